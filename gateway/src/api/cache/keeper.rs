//! Answers in memory: bounded in bytes and time, the one unused for longest goes first. And an
//! answer as bytes, for whoever keeps it elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Entry, Head, Key, Made};

/// What an entry takes beside its body.
const ENTRY_BYTES: usize = 1024;

/// All answers.
#[derive(Debug)]
pub(super) struct Keeper {
    bytes_max: usize,
    ttl: Duration,
    entries: HashMap<Key, Kept>,
    /// By when they were last used.
    order: BTreeMap<u64, Key>,
    bytes: usize,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    until: Instant,
    used: u64,
}

fn size(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.body.len()
}

impl Keeper {
    pub(super) fn new(bytes_max: usize, ttl: Duration) -> Self {
        let (entries, order) = (HashMap::new(), BTreeMap::new());
        Self { bytes_max, ttl, entries, order, bytes: 0, uses: 0 }
    }

    pub(super) fn get(&mut self, key: Key, now: Instant) -> Option<Entry> {
        if self.entries.get(&key)?.until <= now {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        let kept = self.entries.get_mut(&key)?;
        self.order.remove(&kept.used);
        kept.used = self.uses;
        self.order.insert(kept.used, key);
        Some(kept.entry.clone())
    }

    /// Keeps an answer, at most for as long as it is still kept elsewhere.
    pub(super) fn put(&mut self, key: Key, entry: Entry, now: Instant, left: Duration) {
        self.remove(key);
        if size(&entry) > self.bytes_max {
            return;
        }
        self.uses += 1;
        self.bytes += size(&entry);
        self.order.insert(self.uses, key);
        let until = now + self.ttl.min(left);
        self.entries.insert(key, Kept { entry, until, used: self.uses });
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            self.remove(*oldest);
        }
    }

    /// How many answers there are, and the bytes that they take.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn remove(&mut self, key: Key) {
        if let Some(kept) = self.entries.remove(&key) {
            self.order.remove(&kept.used);
            self.bytes -= size(&kept.entry);
        }
    }
}

/// An answer's head as it is written before its body, in one line.
#[derive(Serialize, Deserialize)]
struct Line {
    headers: Vec<(String, String)>,
    made: Option<Made>,
}

/// An answer as bytes.
pub(super) fn written(entry: &Entry) -> Vec<u8> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = entry.head.headers.iter();
    let line = Line {
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        made: entry.head.made.clone(),
    };
    let mut out = serde_json::to_vec(&line).unwrap_or_default();
    out.push(b'\n');
    out.extend_from_slice(&entry.body);
    out
}

/// The answer that was written so; `None`: it is none.
pub(super) fn read(bytes: &[u8]) -> Option<Entry> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let line: Line = serde_json::from_slice(&bytes[..at]).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in line.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.insert(name, HeaderValue::from_str(&value).ok()?);
    }
    let head = Head { headers, made: line.made };
    Some(Entry { head, body: Bytes::copy_from_slice(&bytes[at + 1..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    fn entry(bytes: usize) -> Entry {
        Entry { head: Head::default(), body: vec![b'x'; bytes].into() }
    }

    #[test]
    fn the_one_unused_for_longest_goes_first() {
        let (now, each) = (Instant::now(), 10_000);
        let mut keeper = Keeper::new(3 * (each + ENTRY_BYTES), Duration::from_secs(60));
        for number in 1..=3 {
            keeper.put(key(number), entry(each), now, Duration::MAX);
        }
        assert!(keeper.get(key(1), now).is_some());
        keeper.put(key(4), entry(each), now, Duration::MAX);
        let there = |keeper: &mut Keeper, number| keeper.get(key(number), now).is_some();
        let found: Vec<bool> = (1..=4).map(|number| there(&mut keeper, number)).collect();
        assert_eq!(found, [true, false, true, true]);
        keeper.put(key(5), entry(each * 4), now, Duration::MAX);
        assert!(!there(&mut keeper, 5), "larger than all room");
        assert!(keeper.bytes <= keeper.bytes_max);
        keeper.put(key(6), entry(each * 3), now, Duration::MAX);
        assert_eq!((keeper.entries.len(), keeper.order.len()), (1, 1));
    }

    #[test]
    fn over_when_its_time_is() {
        let (now, ttl) = (Instant::now(), Duration::from_secs(60));
        let mut keeper = Keeper::new(1 << 20, ttl);
        keeper.put(key(1), entry(1), now, Duration::MAX);
        assert!(keeper.get(key(1), now + ttl / 2).is_some());
        assert!(keeper.get(key(1), now + ttl).is_none(), "a use makes it no younger");
        assert_eq!(keeper.bytes, 0);
        // Written anew it is young again.
        keeper.put(key(1), entry(1), now, Duration::MAX);
        keeper.put(key(1), entry(2), now + ttl / 2, Duration::MAX);
        assert!(keeper.get(key(1), now + ttl).is_some());
    }

    #[test]
    fn written_and_read() {
        let mut whole = entry(3);
        whole.head.headers.insert("content-type", HeaderValue::from_static("text/plain"));
        whole.head.made = Some(Made { model: "m".to_owned(), prompt: Some(7) });
        assert_eq!(read(&written(&whole)), Some(whole));
        for broken in [&b""[..], b"x", b"{}\n", b"[]\n", b"{\"headers\":[[\" \",\"\"]]}\n"] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }
}
