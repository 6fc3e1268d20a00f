//! Judges a request by the policies of all layers above it. `request` and `explain` are the same
//! walk: one stops at the first rule that says no, the other writes down what each rule says.

use std::fmt::{self, Arguments, Display};
use std::net::IpAddr;

use jiff::Timestamp;

use super::{Label, Policy, Rates, pattern};
use crate::ask::CACHE;
use crate::{Ask, Denied, Millis, Rule};

/// One layer of the tree and what it says.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// What it is a layer of: `team`.
    pub kind: &'static str,
    /// What people call it: `research`.
    pub name: &'a str,
    /// Its rules.
    pub policy: &'a Policy,
}

/// `team research`
impl Display for Layer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// New tokens of each choice at most. 0 where nothing is generated.
    pub max_output: u32,
    /// How secret the request is: the highest label of all layers and of the request itself.
    pub label: Label,
    /// What is said is recorded.
    pub record: bool,
}

/// What one rule of one layer says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The layer's name.
    pub layer: String,
    /// The policy's field: `models`, `max_tokens`, ...
    pub rule: &'static str,
    /// Whether it lets the request through.
    pub passed: bool,
    /// The bound and what was asked, in a sentence.
    pub text: String,
}

/// Takes what each rule says; an error ends the walk. The text is written only where it is read.
type Say<'s> = dyn FnMut(&Layer<'_>, Rule, bool, Arguments<'_>) -> Result<(), Denied> + 's;

/// May this address send anything now? Asked before a body is read. `source` is `None` for a
/// request through a Unix socket, which no network holds.
///
/// # Errors
/// The first rule that says no.
pub fn door(layers: &[Layer<'_>], source: Option<IpAddr>, now: Millis) -> Result<(), Denied> {
    judge_door(layers, source, now, &mut refuse)
}

/// May this request be served, and how much may it generate?
///
/// # Errors
/// The first rule that says no.
pub fn request(layers: &[Layer<'_>], ask: &Ask) -> Result<Allowed, Denied> {
    judge_request(layers, ask, &mut refuse)
}

/// What each rule of each layer says about a request, the door's rules first. Rates are named and
/// not counted; labels are no rule of their own and say what the request's label becomes.
#[must_use]
pub fn explain(
    layers: &[Layer<'_>],
    ask: &Ask,
    source: Option<IpAddr>,
    now: Millis,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |layer: &Layer<'_>, rule: Rule, passed: bool, text: Arguments<'_>| {
        let (layer, rule, text) = (layer.to_string(), field(rule), text.to_string());
        findings.push(Finding { layer, rule, passed, text });
        Ok(())
    };
    let door = judge_door(layers, source, now, &mut say);
    let request = judge_request(layers, ask, &mut say);
    assert!(door.is_ok() && request.is_ok(), "a listener that never refuses ends no walk");
    for layer in layers {
        for rates in &layer.policy.rates {
            let (layer, text) = (layer.to_string(), Bounds(rates).to_string());
            findings.push(Finding { layer, rule: "rates", passed: true, text });
        }
    }
    findings
}

fn refuse(layer: &Layer<'_>, rule: Rule, passed: bool, text: Arguments<'_>) -> Result<(), Denied> {
    if passed {
        return Ok(());
    }
    Err(Denied::new(rule, format!("{layer}, {}: {text}", field(rule))))
}

/// The policy's field that a rule stands in.
fn field(rule: Rule) -> &'static str {
    match rule {
        Rule::Network => "networks",
        Rule::Hours => "hours",
        Rule::Model => "models",
        Rule::Provider => "providers",
        Rule::MaxTokens => "max_tokens",
        Rule::MaxContext => "max_context",
        Rule::Tools => "tools",
        Rule::Label => "label",
        other => other.name(),
    }
}

fn judge_door(
    layers: &[Layer<'_>],
    source: Option<IpAddr>,
    now: Millis,
    say: &mut Say<'_>,
) -> Result<(), Denied> {
    for layer in layers {
        let Policy { networks, hours, .. } = layer.policy;
        if !networks.is_empty() {
            let passed = source.is_some_and(|from| networks.iter().any(|one| one.contains(from)));
            let (from, among) = (Source(source), Among::new(passed, networks));
            say(layer, Rule::Network, passed, format_args!("{from} {among}"))?;
        }
        if !hours.is_empty() {
            let passed = hours.iter().any(|one| one.contains(now));
            let (at, among) = (Moment(now), Among::new(passed, hours));
            say(layer, Rule::Hours, passed, format_args!("{at} {among}"))?;
        }
    }
    Ok(())
}

fn judge_request(layers: &[Layer<'_>], ask: &Ask, say: &mut Say<'_>) -> Result<Allowed, Denied> {
    let mut output = ask.max_output.map_or(ask.room, |wish| wish.min(ask.room));
    let mut label = ask.label;
    for layer in layers {
        if let Some(models) = &layer.policy.models {
            let passed = any(models, &ask.model);
            let (model, among) = (Name(&ask.model), Among::new(passed, models));
            say(layer, Rule::Model, passed, format_args!("{model} {among}"))?;
        }
        // Nobody is sent an answer that is given again.
        if let Some(providers) = &layer.policy.providers
            && !ask.is_local()
            && ask.backend != CACHE
        {
            let passed = any(providers, &ask.backend);
            let (provider, among) = (Name(&ask.backend), Among::new(passed, providers));
            say(layer, Rule::Provider, passed, format_args!("{provider} {among}"))?;
        }
        if let Some(bound) = layer.policy.max_tokens {
            judge_tokens(layer, bound, ask, &mut output, say)?;
        }
        if let Some(bound) = layer.policy.max_context {
            judge_context(layer, bound, ask, &mut output, say)?;
        }
        if let Some(tools) = &layer.policy.tools {
            judge_tools(layer, tools, ask, say)?;
        }
        if let Some(own) = layer.policy.label {
            let joined = label.map_or(own, |so_far| so_far.join(own));
            label = Some(joined);
            let text = format_args!("{own}; the request is {joined} with the layers so far");
            say(layer, Rule::Label, true, text)?;
        }
    }
    let label = label.unwrap_or_default();
    let record = layers.iter().any(|layer| layer.policy.records(label));
    Ok(Allowed { max_output: output, label, record })
}

/// New tokens of all choices together.
fn judge_tokens(
    layer: &Layer<'_>,
    bound: u32,
    ask: &Ask,
    output: &mut u32,
    say: &mut Say<'_>,
) -> Result<(), Denied> {
    let choices = ask.choices.max(1);
    if let Some(wish) = ask.max_output {
        let all = u64::from(wish) * u64::from(choices);
        let text = format_args!("{all} new tokens are asked for: at most {bound}");
        return say(layer, Rule::MaxTokens, all <= u64::from(bound), text);
    }
    if ask.room == 0 {
        return say(layer, Rule::MaxTokens, true, format_args!("nothing is generated"));
    }
    let share = bound / choices;
    if share == 0 {
        let text = format_args!("{choices} choices are asked for: at most {bound} new tokens");
        return say(layer, Rule::MaxTokens, false, text);
    }
    *output = share.min(*output);
    let text = format_args!("at most {bound} new tokens, so {output} for each choice");
    say(layer, Rule::MaxTokens, true, text)
}

/// Prompt and one choice together.
fn judge_context(
    layer: &Layer<'_>,
    bound: u32,
    ask: &Ask,
    output: &mut u32,
    say: &mut Say<'_>,
) -> Result<(), Denied> {
    let input = ask.input_tokens;
    if let Some(wish) = ask.max_output {
        let passed = input.saturating_add(u64::from(wish)) <= u64::from(bound);
        let asked = format_args!("{input} tokens of prompt and {wish} of answer are asked for");
        return say(layer, Rule::MaxContext, passed, format_args!("{asked}: at most {bound}"));
    }
    // Something is to be generated, so one token has to fit.
    let least = u64::from(ask.room > 0);
    if input.saturating_add(least) > u64::from(bound) {
        let text = format_args!("{input} tokens of prompt leave no room: at most {bound}");
        return say(layer, Rule::MaxContext, false, text);
    }
    let left = u32::try_from(u64::from(bound) - input).unwrap_or(u32::MAX);
    *output = left.min(*output);
    let text = format_args!("{input} tokens of prompt and {output} of answer: at most {bound}");
    say(layer, Rule::MaxContext, true, text)
}

fn judge_tools(
    layer: &Layer<'_>,
    allowed: &[String],
    ask: &Ask,
    say: &mut Say<'_>,
) -> Result<(), Denied> {
    if let Some(tool) = ask.tools.iter().find(|tool| !any(allowed, tool)) {
        let nameless = "a tool without a name";
        let tool = Name(if tool.is_empty() { nameless } else { tool });
        let among = Among::new(false, allowed);
        return say(layer, Rule::Tools, false, format_args!("{tool} {among}"));
    }
    let text = format_args!("{} tools are offered, all of them allowed", ask.tools.len());
    say(layer, Rule::Tools, true, text)
}

fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|one| pattern::matches(one, name))
}

/// Entries of a list that a sentence shows.
const SHOWN_MAX: usize = 8;

/// Letters of a caller's name that a sentence shows.
const NAME_MAX: usize = 80;

/// `is none of a, b and 7 more`
struct Among<'a, T> {
    passed: bool,
    list: &'a [T],
}

impl<'a, T> Among<'a, T> {
    fn new(passed: bool, list: &'a [T]) -> Self {
        Self { passed, list }
    }
}

impl<T: Display> Display for Among<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.list.is_empty() {
            return f.write_str("is not allowed: none is");
        }
        f.write_str(if self.passed { "is one of " } else { "is none of " })?;
        for (at, one) in self.list.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{one}", if at == 0 { "" } else { ", " })?;
        }
        match self.list.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A name that a caller wrote, as far as it is worth showing.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.0.chars().take(NAME_MAX).collect();
        write!(f, "`{}`", short.escape_debug())
    }
}

struct Source(Option<IpAddr>);

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("a request without an address"),
        }
    }
}

struct Moment(Millis);

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{}", time.strftime("%a %F %H:%M UTC")),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// What rates bound, for `explain`.
struct Bounds<'a>(&'a Rates);

impl Display for Bounds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { model, requests_per_minute, tokens_per_minute, concurrent } = self.0;
        let mut gap = "";
        for (bound, what) in [
            (requests_per_minute, "requests a minute"),
            (tokens_per_minute, "tokens a minute"),
            (concurrent, "requests at once"),
        ] {
            if let Some(bound) = bound {
                write!(f, "{gap}{bound} {what}")?;
                gap = ", ";
            }
        }
        match model {
            Some(model) => write!(f, ", for {model}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        serde_json::from_str(json).expect(json)
    }

    /// Layers `org`, `team`, `key` of these policies.
    fn judge(policies: &[&str], ask: &Ask) -> Result<Allowed, Denied> {
        let policies: Vec<Policy> = policies.iter().map(|json| policy(json)).collect();
        let names = [("org", "acme"), ("team", "research"), ("key", "ci")];
        let layers = names.into_iter().zip(&policies);
        let layer = |((kind, name), policy)| Layer { kind, name, policy };
        let layers: Vec<Layer<'_>> = layers.map(layer).collect();
        request(&layers, ask)
    }

    fn ask() -> Ask {
        Ask {
            model: "qwen3-8b".to_owned(),
            input_tokens: 100,
            choices: 2,
            room: 4000,
            ..Ask::default()
        }
    }

    #[track_caller]
    fn allowed(policies: &[&str], ask: &Ask, output: u32) {
        assert_eq!(judge(policies, ask).map(|allowed| allowed.max_output), Ok(output));
    }

    #[track_caller]
    fn denied(policies: &[&str], ask: &Ask, rule: Rule, said: &str) {
        let denied = judge(policies, ask).expect_err(said);
        assert_eq!((denied.rule, denied.message.as_str()), (rule, said));
        assert_eq!(denied.retry_after_s, None);
    }

    #[test]
    fn no_rules_allow_all() {
        allowed(&[], &ask(), 4000);
        allowed(&["{}", "{}"], &ask(), 4000);
        allowed(&["{}"], &Ask { max_output: Some(7), ..ask() }, 7);
        allowed(&["{}"], &Ask { max_output: Some(9000), ..ask() }, 4000);
    }

    #[test]
    fn models_and_tools() {
        allowed(&[r#"{"models": ["llama*", "qwen*"]}"#], &ask(), 4000);
        let said = "team research, models: `qwen3-8b` is none of llama*, qwen2*";
        denied(&["{}", r#"{"models": ["llama*", "qwen2*"]}"#], &ask(), Rule::Model, said);
        let said = "org acme, models: `qwen3-8b` is not allowed: none is";
        denied(&[r#"{"models": []}"#], &ask(), Rule::Model, said);
        let tools = vec!["get_time".to_owned(), "rm".to_owned()];
        let with_tools = Ask { tools, ..ask() };
        allowed(&[r#"{"tools": ["get_*", "??"]}"#], &with_tools, 4000);
        allowed(&[r#"{"tools": []}"#], &ask(), 4000);
        let said = "org acme, tools: `rm` is none of get_*";
        denied(&[r#"{"tools": ["get_*"]}"#], &with_tools, Rule::Tools, said);
    }

    #[test]
    fn new_tokens_of_all_choices() {
        let bound = r#"{"max_tokens": 1001}"#;
        allowed(&[bound], &ask(), 500);
        allowed(&[bound, r#"{"max_tokens": 4}"#, bound], &ask(), 2);
        allowed(&[bound], &Ask { max_output: Some(500), ..ask() }, 500);
        allowed(&[r#"{"max_tokens": 1000}"#], &Ask { max_output: Some(500), ..ask() }, 500);
        let said = "org acme, max_tokens: 1002 new tokens are asked for: at most 1001";
        denied(&[bound], &Ask { max_output: Some(501), ..ask() }, Rule::MaxTokens, said);
        let said = "org acme, max_tokens: 2 choices are asked for: at most 1 new tokens";
        denied(&[r#"{"max_tokens": 1}"#], &ask(), Rule::MaxTokens, said);
        // Nothing is generated: nothing is bounded.
        allowed(&[r#"{"max_tokens": 1}"#], &Ask { room: 0, ..ask() }, 0);
        let most = Ask { max_output: Some(u32::MAX), choices: u32::MAX, ..ask() };
        assert_eq!(judge(&[bound], &most).map_err(|denied| denied.rule), Err(Rule::MaxTokens));
    }

    #[test]
    fn prompt_and_answer() {
        let bound = r#"{"max_context": 600}"#;
        allowed(&[bound], &ask(), 500);
        allowed(&[r#"{"max_tokens": 10}"#, bound], &ask(), 5);
        allowed(&[r#"{"max_context": 101}"#], &ask(), 1);
        allowed(&[bound], &Ask { max_output: Some(500), ..ask() }, 500);
        let said = "org acme, max_context: 100 tokens of prompt and 501 of answer are asked for: \
                    at most 600";
        denied(&[bound], &Ask { max_output: Some(501), ..ask() }, Rule::MaxContext, said);
        let said = "org acme, max_context: 100 tokens of prompt leave no room: at most 100";
        denied(&[r#"{"max_context": 100}"#], &ask(), Rule::MaxContext, said);
        allowed(&[r#"{"max_context": 100}"#], &Ask { room: 0, ..ask() }, 0);
        let endless = Ask { input_tokens: u64::MAX, max_output: Some(1), ..ask() };
        assert_eq!(judge(&[bound], &endless).map_err(|denied| denied.rule), Err(Rule::MaxContext));
    }

    #[test]
    fn labels_join_upward() {
        let label = |policies: &[&str], label| {
            judge(policies, &Ask { label, ..ask() }).expect("no rule says no").label
        };
        assert_eq!(label(&["{}"], None), Label::Internal);
        assert_eq!(label(&["{}"], Some(Label::Public)), Label::Public);
        assert_eq!(label(&[r#"{"label": "public"}"#], None), Label::Public);
        let layers = [r#"{"label": "restricted"}"#, r#"{"label": "public"}"#];
        assert_eq!(label(&layers, Some(Label::Confidential)), Label::Restricted);
        assert_eq!(label(&layers[1..], Some(Label::Confidential)), Label::Confidential);
    }

    #[test]
    fn the_door_looks_at_addresses_and_times() {
        let policy = policy(
            r#"{"networks": ["10.0.0.0/8", "::1"],
                "hours": [{"days": [1], "from": "09:00", "to": "17:00", "time_zone": "UTC"}]}"#,
        );
        let layers = [Layer { kind: "key", name: "ci", policy: &policy }];
        // 2026-03-09 is a Monday.
        let at = |text: &str| text.parse::<Timestamp>().expect(text).as_millisecond();
        let work = at("2026-03-09T12:00:00Z");
        let check = |source: Option<&str>, now: Millis, said: Option<(Rule, &str)>| {
            let source = source.map(|text| text.parse().expect(text));
            let found = door(&layers, source, now).map_err(|denied| (denied.rule, denied.message));
            assert_eq!(found, said.map_or(Ok(()), |(rule, text)| Err((rule, text.to_owned()))));
        };
        check(Some("10.1.2.3"), work, None);
        check(Some("::ffff:10.1.2.3"), work, None);
        check(Some("::1"), work, None);
        let said = "key ci, networks: 11.1.2.3 is none of 10.0.0.0/8, ::1";
        check(Some("::ffff:11.1.2.3"), work, Some((Rule::Network, said)));
        let said = "key ci, networks: a request without an address is none of 10.0.0.0/8, ::1";
        check(None, work, Some((Rule::Network, said)));
        let said = "key ci, hours: Tue 2026-03-10 12:00 UTC is none of Mon 09:00 to 17:00 UTC";
        check(Some("::1"), at("2026-03-10T12:00:00Z"), Some((Rule::Hours, said)));
        assert_eq!(door(&[], None, work), Ok(()));
    }

    #[test]
    fn sentences_stay_short() {
        let patterns = vec!["x".repeat(256); 1000];
        let long = Policy { models: Some(patterns), ..Policy::default() };
        let layers = [Layer { kind: "org", name: "acme", policy: &long }];
        let denied = request(&layers, &Ask { model: "m\n".repeat(9999), ..ask() }).unwrap_err();
        assert!(denied.message.len() < 3000 && denied.message.ends_with("and 992 more"));
        assert!(!denied.message.contains('\n'));
    }
}
