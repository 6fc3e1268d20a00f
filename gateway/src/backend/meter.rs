//! Who pays for a request: says how many tokens are paid for, is told what is made, and is asked
//! before more is made. It lives on the engine's thread, so that what was made is known whether or
//! not anybody reads it.

use scheduler::types::Usage;

/// Who pays.
pub trait Meter: Send {
    /// New tokens per choice that are paid for.
    fn allowance(&self) -> u32;

    /// Tokens were made; `longest` is the longest choice now. A higher allowance where more is
    /// paid for since. Called for each token: it must not wait.
    fn made(&mut self, longest: u32) -> Option<u32>;

    /// The last word, before anybody hears of the end.
    fn ended(&mut self, end: &End);
}

/// How a request ended, for who pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What was used.
    pub usage: Usage,
    /// The engine failed.
    pub failed: bool,
    /// The longest choice, in tokens.
    pub longest: u32,
}

/// A meter and what it has to be told.
pub(super) struct Metered {
    meter: Box<dyn Meter>,
    /// Tokens of each choice.
    made: Vec<u32>,
    longest: u32,
}

impl Metered {
    pub(super) fn new(meter: Box<dyn Meter>) -> Self {
        Self { meter, made: Vec::new(), longest: 0 }
    }

    /// Takes a token of a choice.
    pub(super) fn token(&mut self, choice: u32) -> Option<u32> {
        let at = usize::try_from(choice).unwrap_or(usize::MAX);
        if at >= self.made.len() {
            self.made.resize(at + 1, 0);
        }
        self.made[at] += 1;
        self.longest = self.longest.max(self.made[at]);
        self.meter.made(self.longest)
    }

    pub(super) fn ended(&mut self, usage: Usage, failed: bool) {
        self.meter.ended(&End { usage, failed, longest: self.longest });
    }
}
