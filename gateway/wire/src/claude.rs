//! What a Claude's name says of it: how it is told to think, which efforts it knows, and which ways
//! to choose tokens it takes. Anthropic refuses what a model does not know, so that each gets what
//! it knows. Of a Claude whose name says nothing it is held that it is a new one.
//! Sources: Anthropic's pages on thinking, adaptive thinking and effort; Bedrock's page on adaptive
//! thinking; the errors that callers have reported.

use serde_json::{Value, json};

use crate::lost::Lost;
use crate::openai::effort_of;
use crate::request::{Decoding, Effort, Reasoning};

/// The least budget of thoughts.
pub(crate) const BUDGET_MIN: u32 = 1024;

/// The least share of tokens that a model that thinks may be told to choose from.
const THINKING_TOP_P_MIN: f64 = 0.95;

const EFFORTS: [Effort; 5] =
    [Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

/// Those of the first that adapts.
const EFFORTS_406: [Effort; 4] = [Effort::Low, Effort::Medium, Effort::High, Effort::Max];

/// A model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claude {
    /// It takes a budget of thoughts.
    budgets: bool,
    /// It finds out itself how much it thinks.
    adapts: bool,
    /// It thinks where nothing is said of that.
    unasked: bool,
    /// It cannot be told not to think.
    always: bool,
    /// Which ways to choose tokens it takes while it does not think.
    draws: Draws,
    /// From the least.
    efforts: &'static [Effort],
}

/// How a model is told to think.
#[derive(Debug, PartialEq)]
pub(crate) struct Thinking {
    /// The field `thinking`.
    pub(crate) value: Option<Value>,
    pub(crate) effort: Option<&'static str>,
    pub(crate) draws: Draws,
}

/// Which ways to choose tokens are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draws {
    Free,
    /// A temperature or a share of tokens, not both.
    One,
    /// Those that a model which thinks takes: no temperature but the usual one, few others.
    Thinking,
    /// None but the usual ones.
    Usual,
}

impl Claude {
    /// By its name at Anthropic, on Bedrock, Vertex or OpenRouter. A name that is no Claude's is
    /// that of a model which speaks the dialect: nothing is held of it.
    pub(crate) fn of(model: &str) -> Self {
        let (budgets, adapts, unasked, always) = (true, true, false, false);
        let all = Self { budgets, adapts, unasked, always, draws: Draws::Free, efforts: &EFFORTS };
        let model = model.to_ascii_lowercase();
        let Some((_, name)) = model.rsplit_once("claude") else { return all };
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let is = |kind: &str| words.contains(&kind);
        let always = is("fable") || is("mythos");
        let newest = Self { budgets: false, unasked: true, always, draws: Draws::Usual, ..all };
        let one = Self { draws: Draws::One, ..all };
        match version(&words) {
            Some(..307) => Self { budgets: false, adapts: false, efforts: &[], ..all },
            Some(..401) => Self { adapts: false, efforts: &[], ..all },
            Some(405) if is("opus") => Self { adapts: false, efforts: &EFFORTS[..3], ..one },
            Some(..406) => Self { adapts: false, efforts: &[], ..one },
            Some(406) => Self { efforts: &EFFORTS_406, ..one },
            Some(..500) => Self { unasked: false, ..newest },
            Some(_) | None => newest,
        }
    }

    /// How it is told. `max_tokens` bounds thoughts and answer; `forced`: a call is forced, with
    /// which there are no thoughts.
    pub(crate) fn thinking(
        self,
        asked: Reasoning,
        max_tokens: Option<u32>,
        forced: bool,
        lost: &mut Lost,
    ) -> Thinking {
        let none = Thinking { value: None, effort: None, draws: self.draws };
        if asked.effort == Some(Effort::None) || asked.budget == Some(0) {
            return self.off(none, lost);
        }
        if forced || !(self.budgets || self.adapts) {
            // Asked for both, the provider refuses the request.
            lost.some("reasoning_effort", asked.effort.as_ref());
            lost.some("thinking_token_budget", asked.budget.as_ref());
            return none;
        }
        if self.efforts.is_empty() && asked.budget.is_some() {
            lost.some("reasoning_effort", asked.effort.as_ref());
        }
        // A bound in tokens is an effort in other words, where that is all there is.
        let bound = asked.budget.filter(|_| !self.budgets).map(effort_of);
        let effort = asked.effort.or(bound);
        let value = match self.budget(asked, max_tokens, lost) {
            Some(budget) => json!({"type": "enabled", "budget_tokens": budget}),
            None if self.adapts && effort.is_some() => json!({"type": "adaptive"}),
            None => return none,
        };
        let draws = if self.draws == Draws::Usual { Draws::Usual } else { Draws::Thinking };
        Thinking { value: Some(value), effort: effort.and_then(|effort| self.level(effort)), draws }
    }

    /// Told not to think.
    fn off(self, none: Thinking, lost: &mut Lost) -> Thinking {
        if self.always {
            // The least that there is, which is not nothing.
            lost.field("reasoning_effort");
            return Thinking { effort: self.level(Effort::Low), ..none };
        }
        // One that thinks only when asked need not be told, and some of those refuse the word.
        let said = self.budgets || self.unasked;
        Thinking { value: said.then(|| json!({"type": "disabled"})), ..none }
    }

    /// The budget that it is given: what was asked, or what an effort means where the model knows
    /// budgets alone.
    fn budget(self, asked: Reasoning, max_tokens: Option<u32>, lost: &mut Lost) -> Option<u32> {
        if !self.budgets {
            let both = asked.budget.filter(|_| asked.effort.is_some());
            lost.some("thinking_token_budget", both.as_ref());
            return None;
        }
        let below = max_tokens.map_or(u32::MAX, |max| max.saturating_sub(1));
        let (budget, field) = match (asked.budget, asked.effort) {
            (Some(budget), _) => (budget, "thinking_token_budget"),
            (None, Some(effort)) if !self.adapts => {
                // Room for the answer is left.
                let most = max_tokens.map_or(u32::MAX, |max| max / 5 * 4);
                (tokens(effort).min(most).max(BUDGET_MIN), "reasoning_effort")
            }
            (None, _) => return None,
        };
        let fits = Some(budget.min(below)).filter(|budget| *budget >= BUDGET_MIN);
        if fits.is_none() {
            lost.field(field);
        }
        fits
    }

    /// The greatest effort that it knows which is no greater, or its least.
    fn level(self, effort: Effort) -> Option<&'static str> {
        let known = self.efforts.iter().rfind(|known| **known <= effort);
        known.or(self.efforts.first()).map(|effort| effort.name())
    }

    /// It shows no thoughts unless that is asked for.
    pub(crate) fn hides(self) -> bool {
        !self.budgets && self.adapts
    }
}

/// What an effort means in tokens; the other way around from [`effort_of`].
fn tokens(effort: Effort) -> u32 {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 8_192,
        Effort::High | Effort::XHigh | Effort::Max => 24_576,
    }
}

/// The first number of one or two digits, times a hundred, and the next one if it stands right
/// behind: what is longer is a date.
fn version(words: &[&str]) -> Option<u32> {
    let number = |word: &&str| word.parse::<u32>().ok().filter(|_| word.len() <= 2);
    // Bedrock's oldest is `claude-v2`.
    let first = |word: &&str| number(&word.strip_prefix('v').unwrap_or(word));
    let at = words.iter().position(|word| first(word).is_some())?;
    Some(first(&words[at])? * 100 + words.get(at + 1).and_then(number).unwrap_or(0))
}

impl Draws {
    /// The temperature and the share of tokens that are sent.
    pub(crate) fn shares(self, decoding: &Decoding, lost: &mut Lost) -> (Option<f64>, Option<f64>) {
        let least = match self {
            Self::Free | Self::One => (0.0, 0.0),
            Self::Thinking => (1.0, THINKING_TOP_P_MIN),
            Self::Usual => (1.0, 1.0),
        };
        let mut taken = |asked: Option<f64>, least: f64, field: &str| {
            let taken = asked.filter(|value| (least..=1.0).contains(value));
            lost.some(field, asked.filter(|_| taken.is_none()).as_ref());
            taken
        };
        let temperature = taken(decoding.temperature, least.0, "temperature");
        let top_p = taken(decoding.top_p, least.1, "top_p");
        match (self, temperature, top_p) {
            (Self::Free, ..) => (temperature, top_p),
            // What is usual there need not be said.
            (Self::Usual, ..) => (None, None),
            (_, Some(_), Some(p)) if p >= 1.0 => (temperature, None),
            (_, Some(t), Some(_)) if t >= 1.0 => (None, top_p),
            (_, Some(_), Some(_)) => {
                lost.field("top_p");
                (temperature, None)
            }
            (_, temperature, top_p) => (temperature, top_p),
        }
    }

    /// The number of candidates that is sent. 0 keeps all, as does saying nothing.
    pub(crate) fn top_k(self, asked: Option<u32>, lost: &mut Lost) -> Option<u32> {
        let free = matches!(self, Self::Free | Self::One);
        let asked = asked.filter(|k| *k != 0);
        lost.some("top_k", asked.filter(|_| !free).as_ref());
        asked.filter(|_| free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_providers() {
        let check = |name: &str, expect| {
            let (_, rest) = name.rsplit_once("claude").expect("a Claude");
            let words: Vec<&str> = rest.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            assert_eq!(version(&words), expect, "{name}");
        };
        check("claude-sonnet-4-5", Some(405));
        check("claude-sonnet-4-5-20250929", Some(405));
        check("claude-opus-4-20250514", Some(400));
        check("claude-3-7-sonnet-latest", Some(307));
        check("claude-3-opus-20240229", Some(300));
        check("claude-2.1", Some(201));
        check("claude-instant-1.2", Some(102));
        check("claude-sonnet-5", Some(500));
        check("claude-opus-4-8[1m]", Some(408));
        check("claude-mythos-preview", None);
        check("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Some(405));
        check("anthropic.claude-opus-4-6-v1", Some(406));
        check("anthropic.claude-sonnet-4-20250514-v1:0", Some(400));
        check("anthropic.claude-v2:1", Some(201));
        check("claude-haiku-4-5@20251001", Some(405));
        check("anthropic/claude-sonnet-4.5", Some(405));
        check("anthropic/claude-3.5-haiku", Some(305));
    }
}
