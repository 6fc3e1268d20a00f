//! One event after another: their numbers, and the place in the output that each speaks of.

use super::echo::Echo;
use super::output::{Item, Part, Reader};
use super::response::Response;
use crate::json::put;

/// Writes events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Of the next event.
    number: u64,
    /// `,"item_id":..,"output_index":..` and, in a part, `,"content_index":..`.
    place: Vec<u8>,
    /// How much of that is the item's.
    item: usize,
}

impl Events {
    /// Behind so many that somebody else has written.
    pub(super) fn after(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// An event up to where its own fields begin.
    fn open(&mut self, out: &mut Vec<u8>, name: &str) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        put(out, &self.number);
        self.number += 1;
    }

    fn close(out: &mut Vec<u8>) {
        out.extend_from_slice(b"}\n\n");
    }

    pub(super) fn response(&mut self, out: &mut Vec<u8>, name: &str, response: &Response) {
        self.open(out, name);
        out.extend_from_slice(b",\"response\":");
        response.write(out, Reader::Caller);
        Self::close(out);
    }

    /// What follows speaks of this item.
    pub(super) fn at_item(&mut self, index: usize, item: &Item) {
        self.place.clear();
        self.place.extend_from_slice(b",\"item_id\":");
        put(&mut self.place, &item.id);
        self.place.extend_from_slice(b",\"output_index\":");
        put(&mut self.place, &index);
        self.item = self.place.len();
    }

    pub(super) fn item(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        index: usize,
        item: &Item,
        echo: &Echo,
    ) {
        self.open(out, name);
        out.extend_from_slice(b",\"output_index\":");
        put(out, &index);
        out.extend_from_slice(b",\"item\":");
        item.write(out, echo, Reader::Caller);
        Self::close(out);
    }

    /// What follows speaks of this part of the item.
    pub(super) fn at_part(&mut self, index: usize) {
        self.place.truncate(self.item);
        self.place.extend_from_slice(b",\"content_index\":");
        put(&mut self.place, &index);
    }

    /// What follows speaks of the item's summary, which has one part.
    pub(super) fn at_summary(&mut self) {
        self.place.truncate(self.item);
        self.place.extend_from_slice(b",\"summary_index\":0");
    }

    pub(super) fn part(&mut self, out: &mut Vec<u8>, name: &str, part: &Part) {
        self.open(out, name);
        out.extend_from_slice(&self.place);
        out.extend_from_slice(b",\"part\":");
        part.write(out);
        Self::close(out);
    }

    /// An event with one text.
    pub(super) fn text(&mut self, out: &mut Vec<u8>, name: &str, field: &str, text: &str) {
        self.begin_text(out, name, field, text);
        Self::close(out);
    }

    /// An event with one text and log-probabilities, as they are written.
    pub(super) fn scored(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        field: &str,
        text: &str,
        logprobs: &[u8],
    ) {
        self.begin_text(out, name, field, text);
        out.extend_from_slice(b",\"logprobs\":[");
        out.extend_from_slice(logprobs);
        out.push(b']');
        Self::close(out);
    }

    fn begin_text(&mut self, out: &mut Vec<u8>, name: &str, field: &str, text: &str) {
        self.open(out, name);
        out.extend_from_slice(&self.place);
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\":");
        put(out, text);
    }
}
