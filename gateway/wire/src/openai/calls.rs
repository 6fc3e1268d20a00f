//! Calls of a provider's stream, one after the other. Its pieces carry the number of their call, so
//! that a sender may mix them; whoever hears them from here hears one call whole before the next
//! begins. Pieces of a later call wait while an earlier one has no whole object of arguments yet;
//! where calls come in their order, which is nearly always, nothing waits.

use std::borrow::Cow;

use crate::piece::{Broken, Delta};

/// Calls that one answer may have: a bound on what a stranger makes us remember.
const CALLS_MAX: usize = 1024;

/// Bytes that wait for an earlier call.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// What one piece says of a call. An empty id is none.
pub(super) struct Said<'a> {
    /// The sender's number of the call.
    pub(super) index: Option<u32>,
    pub(super) id: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) arguments: Cow<'a, str>,
}

/// The calls of one choice.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<One>,
    /// The call that is being said: those before it are whole, those behind it wait.
    now: usize,
    /// Bytes of those that wait.
    waiting: usize,
}

#[derive(Debug)]
struct One {
    /// The sender's number.
    theirs: u32,
    id: String,
    name: String,
    /// Arguments that wait.
    held: String,
    object: Object,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes a piece. What may be said now goes to `say`.
    ///
    /// # Errors
    /// It is of no call, of one that is over, or of one too many.
    pub(super) fn take(
        &mut self,
        said: &Said<'_>,
        say: &mut dyn FnMut(Delta<'_>),
    ) -> Result<(), Broken> {
        let at = match (self.find(said), said.name) {
            (Some(at), _) => at,
            (None, Some(name)) => self.begin(said, name, say)?,
            (None, None) => return Err(Broken("arguments of a call that has not begun".into())),
        };
        let text = &*said.arguments;
        if text.is_empty() {
            return Ok(());
        }
        if at < self.now {
            // White space behind an object says nothing.
            let nothing = text.trim().is_empty();
            return nothing
                .then_some(())
                .ok_or_else(|| Broken("more of a call that is over".into()));
        }
        let call = &mut self.calls[at];
        call.object.read(text);
        if at > self.now {
            call.held.push_str(text);
            self.waiting += text.len();
            let few = self.waiting <= WAITING_BYTES_MAX;
            return few.then_some(()).ok_or_else(|| Broken("calls that wait without end".into()));
        }
        say(Delta::Arguments { index: number(at), text });
        self.go_on(false, say);
        Ok(())
    }

    /// The choice is over: what waits is said.
    pub(super) fn end(&mut self, say: &mut dyn FnMut(Delta<'_>)) {
        self.go_on(true, say);
    }

    /// Without a number, an id that is new begins a call, and all else belongs to the last.
    fn find(&self, said: &Said<'_>) -> Option<usize> {
        let calls = &self.calls;
        match (said.index, said.id) {
            (Some(theirs), Some(id)) => {
                calls.iter().rposition(|call| call.theirs == theirs && call.id == id)
            }
            (Some(theirs), None) => calls.iter().rposition(|call| call.theirs == theirs),
            (None, Some(id)) => calls.iter().rposition(|call| call.id == id),
            (None, None) => calls.len().checked_sub(1),
        }
    }

    fn begin(
        &mut self,
        said: &Said<'_>,
        name: &str,
        say: &mut dyn FnMut(Delta<'_>),
    ) -> Result<usize, Broken> {
        let at = self.calls.len();
        if at >= CALLS_MAX {
            return Err(Broken("too many calls".into()));
        }
        let index = number(at);
        let id = said.id.map_or_else(|| format!("call_{index}"), str::to_owned);
        let theirs = said.index.unwrap_or(index);
        let (name, held, object) = (name.to_owned(), String::new(), Object::default());
        self.calls.push(One { theirs, id, name, held, object });
        if at == 0 {
            self.start(say);
        } else {
            self.go_on(false, say);
        }
        Ok(at)
    }

    /// Says the next calls, as long as the one before is whole, or `all` of them.
    fn go_on(&mut self, all: bool, say: &mut dyn FnMut(Delta<'_>)) {
        while self.now + 1 < self.calls.len() && (all || self.calls[self.now].object.is_whole()) {
            self.now += 1;
            self.start(say);
        }
    }

    /// The call that is said now begins, with all that waited of it.
    fn start(&mut self, say: &mut dyn FnMut(Delta<'_>)) {
        let index = number(self.now);
        let call = &mut self.calls[self.now];
        say(Delta::CallStart { index, id: &call.id, name: &call.name });
        if !call.held.is_empty() {
            self.waiting -= call.held.len();
            say(Delta::Arguments { index, text: &std::mem::take(&mut call.held) });
        }
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("at most CALLS_MAX")
}

/// How far a JSON object has come, by its brackets alone.
#[derive(Debug, Default)]
struct Object {
    depth: usize,
    begun: bool,
    in_text: bool,
    escaped: bool,
}

impl Object {
    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => {
                    self.begun = true;
                    self.depth += 1;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_text
    }
}
