//! Who pays for a request: says how many tokens are paid for, is told what is made, and is asked
//! before more is made. It lives on the engine's thread, so that what was made is known whether or
//! not anybody reads it.

use scheduler::types::{Made, Usage};

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
pub(crate) struct Metered {
    meter: Box<dyn Meter>,
    /// Tokens of each choice.
    made: Vec<u32>,
    longest: u32,
}

impl Metered {
    /// `made` is what was made of the request elsewhere.
    pub(crate) fn new(meter: Box<dyn Meter>, made: &[Made]) -> Self {
        let count = |made: &Made| u32::try_from(made.tokens.len()).unwrap_or(u32::MAX);
        let made: Vec<u32> = made.iter().map(count).collect();
        let longest = made.iter().copied().max().unwrap_or(0);
        Self { meter, made, longest }
    }

    /// Takes a token of a choice.
    pub(crate) fn token(&mut self, choice: u32) -> Option<u32> {
        let at = usize::try_from(choice).unwrap_or(usize::MAX);
        if at >= self.made.len() {
            self.made.resize(at + 1, 0);
        }
        self.made[at] += 1;
        self.longest = self.longest.max(self.made[at]);
        self.meter.made(self.longest)
    }

    pub(crate) fn ended(&mut self, usage: Usage, failed: bool) {
        self.meter.ended(&End { usage, failed, longest: self.longest });
    }
}
