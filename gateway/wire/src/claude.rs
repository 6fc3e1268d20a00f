//! What a Claude's name says of it: how it is told to think, which efforts it knows, which ways to
//! choose tokens it takes, whether a call can be forced and whether it goes on with a turn that was
//! begun for it. Anthropic refuses what a model does not know, so that each gets what it knows. Of
//! a Claude whose name says nothing it is held that it is a new one.
//! Sources: Anthropic's pages on thinking, adaptive thinking and effort, and on what is new in each
//! model; Bedrock's page on adaptive thinking; the errors that callers have reported.

use serde_json::{Value, json};

use crate::lost::Lost;
use crate::openai::effort_of;
use crate::request::{Decoding, Effort, Reasoning, ToolChoice};

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
    off: Off,
    /// With a budget, turns that call must begin with thoughts.
    begins: bool,
    /// It can be made to call a tool.
    forces: bool,
    /// And may think of it (langchain-aws#1141); others skip their thoughts then, or refuse.
    both: bool,
    /// It goes on with a turn that was begun for it.
    prefills: bool,
    /// Which ways to choose tokens it takes while it does not think.
    draws: Draws,
    /// From the least.
    efforts: &'static [Effort],
    /// The most tokens that it makes, where that is known.
    room: Option<u32>,
}

/// How a model is told not to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Off {
    Disabled,
    /// Not before its answer, but it may between calls.
    BetweenTools,
    /// It cannot be.
    Never,
}

/// What of a request bears on thoughts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setting {
    /// Most tokens of thoughts and answer, where the caller says so.
    pub(crate) max_tokens: Option<u32>,
    /// A call is forced.
    pub(crate) forced: bool,
    /// The answer has begun.
    pub(crate) open: bool,
    /// See [`is_bare`].
    pub(crate) bare: bool,
}

/// How a model is told to think.
#[derive(Debug, PartialEq)]
pub(crate) struct Thinking {
    /// The field `thinking`.
    pub(crate) value: Option<Value>,
    pub(crate) effort: Option<&'static str>,
    /// Tokens that the thoughts may take.
    tokens: u32,
    pub(crate) draws: Draws,
}

impl Thinking {
    /// Says whether its words are shown: where nothing is said, models differ.
    pub(crate) fn show(&mut self, shown: bool) {
        let thinks = |value: &&mut Value| value["type"] == "enabled" || value["type"] == "adaptive";
        if let Some(value) = self.value.as_mut().filter(thinks) {
            value["display"] = if shown { "summarized" } else { "omitted" }.into();
        }
    }
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
    /// Whether a call is forced: asked for, of a model that can be made to.
    pub(crate) fn is_forced(&self, choice: &ToolChoice, lost: &mut Lost) -> bool {
        if choice.forces() && !self.forces {
            lost.field("tool_choice");
        }
        choice.forces() && self.forces
    }

    /// One of which nothing is known.
    const ANY: Self = Self {
        budgets: true,
        adapts: true,
        unasked: false,
        off: Off::Disabled,
        begins: false,
        forces: true,
        both: false,
        prefills: true,
        draws: Draws::Free,
        efforts: &EFFORTS,
        room: None,
    };

    /// By its name at Anthropic, on Bedrock, Vertex or OpenRouter. A name that is no Claude's is
    /// that of a model which speaks the dialect: nothing is held of it.
    pub(crate) fn of(model: &str) -> Self {
        let model = model.to_ascii_lowercase();
        let Some((_, name)) = model.rsplit_once("claude") else { return Self::ANY };
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let version = version(&words).unwrap_or(u32::MAX);
        let opus = words.contains(&"opus");
        let room = Some(if opus && version < 405 { 32_000 } else { 64_000 });
        let old = Self { adapts: false, begins: true, efforts: &[], room, ..Self::ANY };
        let efforts = if opus && version == 405 { &EFFORTS[..3] } else { &[] };
        let one = Self { draws: Draws::One, efforts, ..old };
        match version {
            0..307 => Self { budgets: false, ..old },
            307..401 => old,
            401..406 => one,
            406 => Self { adapts: true, prefills: false, efforts: &EFFORTS_406, ..one },
            407..500 => Self { unasked: false, ..Self::new(&words, version) },
            _ => Self::new(&words, version),
        }
    }

    /// From 4.7 on.
    fn new(words: &[&str], version: u32) -> Self {
        let is = |kind: &str| words.contains(&kind);
        let (fable, opus) = (is("fable") || is("mythos"), is("opus") && version >= 505);
        let sonnet = is("sonnet") && version >= 505;
        let off = match (fable || opus, sonnet) {
            (true, _) => Off::Never,
            (_, true) => Off::BetweenTools,
            _ => Off::Disabled,
        };
        Self {
            budgets: false,
            unasked: true,
            off,
            forces: !(opus || sonnet || fable && version >= 501),
            both: version >= 408,
            prefills: false,
            draws: Draws::Usual,
            room: Some(128_000),
            ..Self::ANY
        }
    }

    /// How it is told.
    pub(crate) fn thinking(self, asked: Reasoning, within: Setting, lost: &mut Lost) -> Thinking {
        let none = Thinking { value: None, effort: None, tokens: 0, draws: self.draws };
        if asked.effort == Some(Effort::None) || asked.budget == Some(0) {
            return self.off(none, lost);
        }
        let barred = (within.forced && !self.both) || (within.open && self.begins);
        if barred || !(self.budgets || self.adapts) {
            // Asked for both, the provider refuses the request.
            lost.some("reasoning_effort", asked.effort.as_ref());
            lost.some("thinking_token_budget", asked.budget.as_ref());
            return none;
        }
        if self.efforts.is_empty() && asked.budget.is_some() {
            lost.some("reasoning_effort", asked.effort.as_ref());
        }
        if within.bare && self.begins {
            return self.bare(none, asked, lost);
        }
        // A bound in tokens is an effort in other words, where that is all there is.
        let bound = asked.budget.filter(|_| !self.budgets).map(effort_of);
        let budget = self.budget(asked, within.max_tokens, lost);
        match (budget, asked.effort.or(bound)) {
            (Some(budget), effort) => Thinking {
                value: Some(json!({"type": "enabled", "budget_tokens": budget})),
                effort: effort.and_then(|effort| self.level(effort)),
                tokens: budget,
                draws: self.draws.of_thinking(),
            },
            (None, Some(effort)) if self.adapts => self.adaptive(effort),
            (None, _) => none,
        }
    }

    fn adaptive(self, effort: Effort) -> Thinking {
        Thinking {
            value: Some(json!({"type": "adaptive"})),
            effort: self.level(effort),
            tokens: tokens(effort),
            draws: self.draws.of_thinking(),
        }
    }

    /// Among calls without thoughts it takes no budget. That is not the caller's doing: its
    /// dialect may have no words for what a provider wants back. One that adapts gets the effort
    /// that the budget comes to; others answer this turn without thoughts.
    fn bare(self, none: Thinking, asked: Reasoning, lost: &mut Lost) -> Thinking {
        if self.adapts
            && let Some(effort) = asked.effort.or(asked.budget.map(effort_of))
        {
            return self.adaptive(effort);
        }
        let effort = asked.effort.filter(|_| asked.budget.is_none());
        for (name, said) in [
            ("reasoning_effort", effort.is_some()),
            ("thinking_token_budget", asked.budget.is_some()),
        ] {
            if said {
                lost.in_this_turn(name);
            }
        }
        Thinking { effort: asked.effort.and_then(|effort| self.level(effort)), ..none }
    }

    /// Told not to think.
    fn off(self, none: Thinking, lost: &mut Lost) -> Thinking {
        // One that thinks only when asked need not be told, and some of those refuse the word.
        let said = self.budgets || self.unasked;
        let value = match self.off {
            Off::Disabled => said.then(|| json!({"type": "disabled"})),
            Off::BetweenTools => Some(json!({"type": "between_tools"})),
            Off::Never => {
                // The least that there is, which is not nothing.
                lost.field("reasoning_effort");
                return Thinking { effort: self.level(Effort::Low), ..none };
            }
        };
        Thinking { value, ..none }
    }

    /// The budget that it is given: what was asked, or what an effort means where the model knows
    /// budgets alone.
    fn budget(self, asked: Reasoning, max_tokens: Option<u32>, lost: &mut Lost) -> Option<u32> {
        if !self.budgets {
            let both = asked.budget.filter(|_| asked.effort.is_some());
            lost.some("thinking_token_budget", both.as_ref());
            return None;
        }
        let below = max_tokens.or(self.room).unwrap_or(u32::MAX).saturating_sub(1);
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

    /// The limit that holds for the thoughts: the caller's. Where there is none and nobody knows
    /// how far the model goes, it is that of an answer.
    pub(crate) fn limit(self, asked: Option<u32>, answer: u32) -> Option<u32> {
        asked.or(self.room.is_none().then_some(answer))
    }

    /// The tokens of an answer, and those of thoughts beside them, as far as the model goes.
    pub(crate) fn limit_with(self, answer: u32, thinking: &Thinking) -> u32 {
        let room = self.room.unwrap_or_default().max(answer);
        answer.saturating_add(thinking.tokens).min(room)
    }

    /// Whether the turns end with one of the assistant, which it goes on with. A model that does
    /// not refuses such turns: they are left out.
    pub(crate) fn is_open(self, turns: &mut Vec<Value>, lost: &mut Lost) -> bool {
        let open = turns.last().is_some_and(|turn| turn["role"] == "assistant");
        if open && !self.prefills {
            lost.field("continue_final_message");
            turns.pop();
        }
        open && self.prefills
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

/// Kinds of blocks, in both dialects that a Claude is asked in.
const THOUGHTS: [&str; 3] = ["thinking", "redacted_thinking", "reasoningContent"];
const CALLS: [&str; 2] = ["tool_use", "toolUse"];
const RESULTS: [&str; 2] = ["tool_result", "toolResult"];

/// Whether the model is among calls that came without thoughts, or whose thoughts were lost on the
/// way. Told a budget there, it is refused: "Expected `thinking` or `redacted_thinking`, but found
/// `tool_use`". Its first turn of several may have thoughts alone (litellm#18926). `kind`: what a
/// block is.
pub(crate) fn is_bare(turns: &[Value], kind: fn(&Value) -> Option<&str>) -> bool {
    let blocks = |turn: &Value| turn["content"].as_array().cloned().unwrap_or_default();
    let is = |block: &Value, kinds: &[&str]| kind(block).is_some_and(|kind| kinds.contains(&kind));
    let mut called = false;
    for turn in turns.iter().rev() {
        let blocks = blocks(turn);
        let has = |kinds| blocks.iter().any(|block| is(block, kinds));
        let only = |kinds| !blocks.is_empty() && blocks.iter().all(|block| is(block, kinds));
        match turn["role"].as_str() {
            Some("assistant") if !has(&CALLS) => break,
            Some("assistant") if has(&THOUGHTS) => return false,
            Some("assistant") => called = true,
            // What the user says begins anew. Behind the last calls it is not known to.
            Some("user") if called && !only(&RESULTS) => break,
            _ => {}
        }
    }
    called
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
    /// Of a model that is told to think.
    fn of_thinking(self) -> Self {
        if self == Self::Usual { Self::Usual } else { Self::Thinking }
    }

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
