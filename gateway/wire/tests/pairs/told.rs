//! What providers answer, by feature, whole and as streams: written by hand after each provider's
//! own reference. One answer says the same in the same pieces in all dialects, as far as they go.

mod chat;
mod converse;
mod gemini;
mod messages;
mod responses;

use serde_json::{Value, json};

use crate::side::From;

/// Features of answers, in the order of the page.
pub(crate) const FEATURES: [&str; 10] = [
    "text",
    "thoughts and text",
    "a call",
    "two calls",
    "refused, in words",
    "refused by a filter",
    "too long",
    "a stop of the caller",
    "cached tokens",
    "log-probabilities",
];

/// An answer.
pub(crate) struct Told {
    pub(crate) whole: Vec<u8>,
    pub(crate) stream: Vec<u8>,
}

/// What is said, in no dialect's words.
#[derive(Default)]
struct Said {
    thoughts: &'static [&'static str],
    text: &'static [&'static str],
    calls: &'static [(&'static str, &'static str, [&'static str; 2])],
    refusal: Option<&'static str>,
    end: End,
    stop: Option<&'static str>,
    /// Read, of these cached, of these written to the cache, made, of these thoughts.
    usage: [u64; 5],
    logprobs: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Stop,
    Calls,
    Length,
    Filter,
}

const LOOK: (&str, &str, [&str; 2]) = ("call_1", "look", ["{\"at\":", "\"here\"}"]);
const FIND: (&str, &str, [&str; 2]) = ("call_2", "find", ["{\"n\":[1,", "{\"}\":\"\\\"\"}]}"]);

fn said(feature: &str) -> Said {
    let text: &[&str] = &["Hel", "lo."];
    let plain = Said { text, usage: [9, 0, 0, 5, 0], ..Said::default() };
    match feature {
        "thoughts and text" => {
            Said { thoughts: &["Let me", " see."], usage: [9, 0, 0, 12, 7], ..plain }
        }
        "a call" => Said { text: &[], calls: &[LOOK], end: End::Calls, ..plain },
        "two calls" => Said { text: &["Both."], calls: &[LOOK, FIND], end: End::Calls, ..plain },
        "refused, in words" => Said { text: &[], refusal: Some("Not this."), ..plain },
        "refused by a filter" => Said { end: End::Filter, ..plain },
        "too long" => Said { end: End::Length, ..plain },
        "a stop of the caller" => Said { stop: Some("END"), ..plain },
        "cached tokens" => Said { usage: [20, 8, 4, 5, 0], ..plain },
        "log-probabilities" => Said { logprobs: true, ..plain },
        _ => plain,
    }
}

/// `None`: the dialect cannot say it.
pub(crate) fn told(from: From, feature: &str) -> Option<Told> {
    let said = said(feature);
    let speaks = match from {
        From::Chat => true,
        From::Responses => said.stop.is_none(),
        From::Messages => !said.logprobs,
        From::Gemini => said.stop.is_none(),
        From::Converse => said.stop.is_none() && !said.logprobs && said.refusal.is_none(),
    };
    speaks.then(|| match from {
        From::Chat => chat::told(&said),
        From::Responses => responses::told(&said),
        From::Messages => messages::told(&said),
        From::Gemini => gemini::told(&said),
        From::Converse => converse::told(&said),
    })
}

/// Two choices of one answer, in turns; the second ends first.
pub(crate) fn two(from: From) -> Option<Told> {
    let (one, two) = (told(from, "thoughts and text")?, told(from, "a call")?);
    match from {
        From::Chat => Some(chat::both(&one, &two)),
        From::Gemini => Some(gemini::both(&one, &two)),
        From::Responses | From::Messages | From::Converse => None,
    }
}

/// The data of events, in turns, those of the second choice numbered so.
fn in_turns(one: &[u8], two: &[u8], list: &str) -> Vec<Value> {
    let chunks = |bytes: &[u8]| -> Vec<Value> {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    };
    let (mut one, mut two) = (chunks(one).into_iter(), chunks(two).into_iter());
    let mut out = Vec::new();
    loop {
        let (first, second) = (one.next(), two.next());
        if first.is_none() && second.is_none() {
            return out;
        }
        out.extend(first);
        out.extend(second.map(|mut chunk| {
            if let Some(choice) = chunk[list].get_mut(0) {
                choice["index"] = 1.into();
            }
            chunk
        }));
    }
}

/// Events; one without a name has data alone.
fn sse(events: &[(&str, Value)]) -> Vec<u8> {
    let one = |(name, data): &(&str, Value)| match *name {
        "" => format!("data: {data}\n\n"),
        name => format!("event: {name}\ndata: {data}\n\n"),
    };
    events.iter().map(one).collect::<String>().into_bytes()
}

fn entry(text: &str) -> Value {
    json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes(), "top_logprobs":
        [{"token": text, "logprob": -0.5, "bytes": text.as_bytes()}]})
}
