//! Guesses of what a sequence says next, from what it has said: where its last tokens stood
//! before, the text that followed is likely to follow again. Answers that quote, edit or continue
//! their prompt, and code, do so for long stretches.
//!
//! The index is a compressor's match finder: the places behind each pair of tokens are chained,
//! latest first, from a table of fixed size. A token costs one link, and a search only where the
//! guess before it was wrong. Every token that comes is compared with the guess for it, whether
//! or not that was computed as a draft: so how often guesses hold is known without the cost of
//! trying, by the length of what agreed before them. It knows one sequence's tokens and nothing
//! else; the same tokens give the same guesses on every machine.

use crate::types::Token;

/// No place.
const NONE: u32 = 0;

/// Places of a chain that a search looks at.
const PROBES_MAX: usize = 16;

/// Tokens compared before a place. More would not make a guess better.
const AGREED_MAX: u32 = 32;

/// The least that has to agree: one token alone says little.
const AGREED_MIN: u32 = 2;

/// Chains of a table. A longer sequence has longer chains, of which the latest places count.
const CHAINS: std::ops::RangeInclusive<usize> = 1 << 8..=1 << 16;

/// Tokens taken in at once: some 0.1 ms. What a prefix cache brings at once takes a few steps.
pub(crate) const READ_MAX: usize = 8192;

/// How often a guess is thought to hold before one was seen, by class of what agreed before it.
const HOLDS: [f32; 4] = [0.4, 0.6, 0.8, 0.9];

/// Weight of one guess: about as many are remembered as this is part of one.
const NEWS: f32 = 1.0 / 16.0;

/// See the module. A place is a number of tokens: it stands behind so many.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// By the hash of two tokens: the latest place behind them.
    latest: Box<[u32]>,
    /// By place: the one before it in its chain. As long as what was taken in.
    before: Vec<u32>,
    /// The place whose token is guessed to come next.
    next: u32,
    /// Tokens before it that are also the sequence's last.
    agreed: u32,
    /// How often guesses held, by class.
    holds: [f32; 4],
}

impl Lookup {
    /// For a sequence that has about so many tokens to look among.
    pub(crate) fn new(tokens: usize) -> Self {
        let chains = tokens.next_power_of_two().clamp(*CHAINS.start(), *CHAINS.end());
        Self {
            latest: vec![NONE; chains].into(),
            before: vec![NONE],
            next: NONE,
            agreed: 0,
            holds: HOLDS,
        }
    }

    /// Takes in what came behind the tokens that it has. One token more is held against the guess;
    /// more at once are only read, a bounded number of them.
    pub(crate) fn read(&mut self, tokens: &[Token]) {
        let known = self.before.len() - 1;
        match tokens.len() - known {
            0 => return,
            1 => self.hold_against(tokens),
            _ => self.next = NONE,
        }
        let end = tokens.len().min(known + READ_MAX);
        for place in known + 1..=end {
            // Before it is linked: the end must not find itself.
            if place == tokens.len() && self.next == NONE {
                self.search(tokens);
            }
            self.link(tokens, place);
        }
    }

    /// The guesses for the tokens that come next, at most so many, each with how likely it is to
    /// hold if those before it do.
    pub(crate) fn guesses<'a>(
        &'a self,
        tokens: &'a [Token],
        most: usize,
    ) -> impl Iterator<Item = (Token, f32)> + 'a {
        let known = self.before.len() == tokens.len() + 1 && self.next != NONE;
        let period = tokens.len().saturating_sub(self.next as usize).max(1);
        (0..if known { most } else { 0 }).map(move |ahead| {
            // Behind the end a text that repeats itself goes on from its own guesses.
            let token = tokens[self.next as usize + ahead % period];
            (token, self.holds[class(self.agreed + ahead as u32)])
        })
    }

    /// Compares the token that came with the guess for it, and follows the guess if it held.
    fn hold_against(&mut self, tokens: &[Token]) {
        if self.next == NONE {
            return;
        }
        let held = tokens[self.next as usize] == tokens[tokens.len() - 1];
        let estimate = &mut self.holds[class(self.agreed)];
        *estimate += (f32::from(u8::from(held)) - *estimate) * NEWS;
        if held {
            self.next += 1;
            self.agreed = (self.agreed + 1).min(AGREED_MAX);
        } else {
            self.next = NONE;
        }
    }

    /// Finds the latest of the places before which most agrees with the end.
    fn search(&mut self, tokens: &[Token]) {
        self.agreed = AGREED_MIN - 1;
        let Some(chain) = self.chain(tokens, tokens.len()) else { return };
        let mut place = self.latest[chain];
        for _ in 0..PROBES_MAX {
            if place == NONE {
                return;
            }
            let pairs = tokens[..place as usize].iter().rev().zip(tokens.iter().rev());
            let agreed = pairs.take(AGREED_MAX as usize).take_while(|(a, b)| a == b).count() as u32;
            if agreed > self.agreed {
                (self.next, self.agreed) = (place, agreed);
            }
            place = self.before[place as usize];
        }
    }

    /// Puts a place into the chain of the two tokens before it.
    fn link(&mut self, tokens: &[Token], place: usize) {
        let before = match self.chain(tokens, place) {
            Some(chain) => std::mem::replace(&mut self.latest[chain], place as u32),
            None => NONE,
        };
        self.before.push(before);
    }

    fn chain(&self, tokens: &[Token], place: usize) -> Option<usize> {
        let &[.., a, b] = &tokens[..place] else { return None };
        let pair = u64::from(a) << 32 | u64::from(b);
        let hash = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        Some(hash as usize & (self.latest.len() - 1))
    }
}

/// Two or three tokens agree, four to seven, eight to fifteen, more.
fn class(agreed: u32) -> usize {
    (agreed.max(AGREED_MIN).ilog2() as usize - 1).min(HOLDS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a prompt at once, then the rest token by token.
    fn read(prompt: &[Token], rest: &[Token]) -> (Lookup, Vec<Token>) {
        let mut lookup = Lookup::new(prompt.len());
        let mut tokens = prompt.to_vec();
        while lookup.before.len() <= tokens.len() {
            lookup.read(&tokens);
        }
        for &token in rest {
            tokens.push(token);
            lookup.read(&tokens);
            // Nothing new: the guess stays.
            lookup.read(&tokens);
        }
        (lookup, tokens)
    }

    #[track_caller]
    fn check(prompt: &[Token], rest: &[Token], most: usize, want: &[Token]) {
        let (lookup, tokens) = read(prompt, rest);
        let got: Vec<Token> = lookup.guesses(&tokens, most).map(|(token, _)| token).collect();
        assert_eq!(got, want, "behind {tokens:?}");
    }

    #[test]
    fn what_followed_before_is_guessed_to_follow_again() {
        check(&[1, 2, 3, 4, 5, 6], &[], 4, &[]);
        check(&[1, 2, 3, 4, 5, 6], &[2, 3], 3, &[4, 5, 6]);
        check(&[1, 2, 3, 4, 5, 6, 2, 3], &[], 3, &[4, 5, 6]);
        check(&[1, 2, 3, 4, 5, 6], &[3], 3, &[]);
        check(&[7], &[], 3, &[]);
        check(&[7, 7], &[], 2, &[]);
        // The longest agreement wins, the latest among equals.
        check(&[9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2], &[], 1, &[3]);
        check(&[8, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2], &[], 1, &[4]);
        // A guess that held is followed, one that did not is searched anew.
        check(&[1, 2, 3, 4, 5, 1, 2], &[3, 4], 1, &[5]);
        check(&[1, 2, 3, 4, 5, 3, 9, 6, 1, 2], &[3, 9], 1, &[6]);
    }

    #[test]
    fn a_text_that_repeats_itself_goes_on_for_ever() {
        check(&[5, 5, 5], &[5], 4, &[5, 5, 5, 5]);
        check(&[1, 2, 3], &[1, 2, 3], 7, &[1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn guesses_that_fail_are_thought_less_of_and_those_that_hold_more() {
        // The last of each so many tokens is one that never stood there.
        let odds = |period: u32| {
            let prompt: Vec<Token> = (0..100).map(|i| i % 10).collect();
            let said = |i| if i % period == period - 1 { 1000 + i } else { i % 10 };
            read(&prompt, &(0..100).map(said).collect::<Vec<Token>>()).0.holds
        };
        assert!(odds(1000)[3] > 0.97, "{:?}", odds(1000));
        assert!(odds(7)[1] < odds(1000)[1] - 0.1, "{:?}", odds(7));
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 28
        };
        let random: Vec<Token> = (0..800).map(|_| next()).collect();
        let (lookup, _) = read(&random[..200], &random[200..]);
        assert!(lookup.holds[0] < 0.25, "{:?}", lookup.holds);
    }

    #[test]
    fn much_at_once_is_read_in_bounded_parts() {
        let prompt: Vec<Token> = (0..READ_MAX as u32 + 10).map(|i| i / 3 * 7 + i % 3).collect();
        let mut lookup = Lookup::new(prompt.len());
        lookup.read(&prompt);
        assert_eq!(lookup.before.len(), READ_MAX + 1);
        assert_eq!(lookup.guesses(&prompt, 5).count(), 0, "not all of it is known");
        let longer = [&prompt[..], &prompt[40..44]].concat();
        lookup.read(&longer);
        let guess = lookup.guesses(&longer, 3).map(|(token, _)| token);
        assert!(guess.eq(prompt[44..47].iter().copied()));
    }

    #[test]
    fn tables_are_bounded_however_long_a_sequence_is() {
        assert_eq!(Lookup::new(1).latest.len(), 1 << 8);
        assert_eq!(Lookup::new(300).latest.len(), 1 << 9);
        assert_eq!(Lookup::new(10_000_000).latest.len(), 1 << 16);
    }
}
