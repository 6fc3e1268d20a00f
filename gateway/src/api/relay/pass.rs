//! A stream that is passed on as it comes: framed as the caller asked, and listened to where
//! somebody may have to go on with it.

use wire::gemini::{Array, Framing};
use wire::relay::Relay;
use wire::{ApiError, Broken};

use super::super::kept::Own;
use super::super::surface::Surface;
use super::EVENT_BYTES_MAX;
use super::handed::{Listener, Spot};

/// See the module.
pub(super) struct Pass {
    pub(super) relay: Relay,
    /// Google's clients may ask for an array in place of events, which is all that it is asked for.
    array: Option<Array>,
    listener: Option<Box<Listener>>,
    /// What is kept of it.
    pub(super) own: Option<Box<Own>>,
}

impl Pass {
    /// Of an answer with so many choices. With `strip`, the usage at its end is left out.
    /// `listens`: somebody may go on with it. `own`: what is kept of it.
    pub(super) fn new(
        surface: &Surface,
        choices: u32,
        (strip, listens): (bool, bool),
        own: Option<Own>,
    ) -> Self {
        let dialect = surface.dialect();
        Self {
            relay: Relay::new(dialect, strip, EVENT_BYTES_MAX).with_choices(choices),
            array: (surface.framing() == Framing::Array).then(Array::default),
            listener: listens.then(|| Listener::new(dialect)).flatten().map(Box::new),
            own: own.map(Box::new),
        }
    }

    /// Takes bytes of the provider, and writes what may be passed on.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        self.say(out, |relay, out| relay.push(bytes, out))
    }

    /// Has the relay write events.
    fn say<T>(&mut self, out: &mut Vec<u8>, say: impl FnOnce(&mut Relay, &mut Vec<u8>) -> T) -> T {
        let Self { relay, array, listener, own } = self;
        let mut events = Vec::new();
        let held = out.len();
        let aside = array.is_some() || own.is_some();
        let (to, from) = if aside { (&mut events, 0) } else { (&mut *out, held) };
        let said = say(relay, to);
        if let Some(own) = own {
            own.events(&events, out);
            listener.iter_mut().for_each(|listener| listener.hear(&out[held..]));
            return said;
        }
        listener.iter_mut().for_each(|listener| listener.hear(&to[from..]));
        array.iter_mut().for_each(|array| array.push(&events, out));
        said
    }

    /// Ends it here as if the bound on new tokens had been met.
    pub(super) fn cut_short(&mut self, out: &mut Vec<u8>, notice: &ApiError) {
        self.say(out, |relay, out| relay.cut_short(out, notice));
        self.close(out);
    }

    /// Says that it broke.
    pub(super) fn error(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        self.say(out, |relay, out| relay.error(out, error));
        self.close(out);
    }

    /// Ends it: all events have come.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.array.take().into_iter().for_each(|array| array.close(out));
    }

    /// What was handed out, and what the next event must know; `None`: nobody can go on with it.
    pub(super) fn told(&self) -> Option<(&str, Spot)> {
        self.listener.as_ref().and_then(|listener| listener.told())
    }
}
