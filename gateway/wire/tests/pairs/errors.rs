//! Errors of every provider as every caller reads them: in place of an answer, and in the middle of
//! a stream. The status of the first is the gateway's to choose, by the class of the error.

use serde_json::{Value, json};
use wire::{ApiError, ErrorKind, converse, gemini, messages, openai};

use crate::frame::frame;
use crate::golden::Golden;
use crate::side::{From, In, well_nested};
use crate::told::told;
use crate::via::{Heard, Via};

/// Features, as the page calls them.
pub(crate) const FEATURES: [&str; 2] =
    ["an error in place of an answer", "an error in the middle of one"];

const WORDS: &str = "Slow down.";

/// The status that goes with what all of them say here.
const STATUS: u16 = 429;

/// A provider's refusal of one request too many.
fn refusal(from: From) -> Value {
    match from {
        From::Chat | From::Responses => json!({"error": {"message": WORDS, "param": null,
            "type": "rate_limit_error", "code": "rate_limit_exceeded"}}),
        From::Messages => json!({"type": "error", "request_id": "req_x",
            "error": {"type": "rate_limit_error", "message": WORDS}}),
        From::Gemini => json!({"error":
            {"code": STATUS, "message": WORDS, "status": "RESOURCE_EXHAUSTED"}}),
        From::Converse => json!({"message": WORDS}),
    }
}

/// How the gateway reads it.
fn read(from: From, body: &[u8]) -> ApiError {
    match from {
        From::Chat | From::Responses => openai::read_error(STATUS, body),
        From::Messages => messages::read_error(STATUS, body),
        From::Gemini => gemini::read_error(STATUS, body),
        From::Converse => converse::read_error(STATUS, Some("ThrottlingException"), body),
    }
}

/// And writes it.
fn write(to: In, error: &ApiError) -> Vec<u8> {
    match to {
        In::Chat | In::Completions | In::Responses => openai::answer::error(error),
        In::Messages => messages::error(error, "req_1"),
        In::Gemini => gemini::error(error),
    }
}

/// A stream that fails behind its first word.
fn failing(from: From) -> Vec<u8> {
    let stream = told(from, "text").expect("all have text").stream;
    let word = stream.windows(3).position(|bytes| bytes == b"Hel").expect("it is there");
    let end = match from {
        From::Converse => {
            let mut end = 0;
            while end < word {
                let length = stream[end..end + 4].try_into().expect("four bytes");
                end += usize::try_from(u32::from_be_bytes(length)).expect("short");
            }
            end
        }
        _ => word + stream[word..].windows(2).position(|b| b == b"\n\n").expect("it ends") + 2,
    };
    let mut out = stream[..end].to_vec();
    let mut body = refusal(from);
    if from == From::Responses {
        body = json!({"type": "error", "code": "rate_limit_exceeded", "message": WORDS,
            "param": null, "sequence_number": 9});
    }
    match from {
        From::Converse => out.extend(frame("throttlingException", body.to_string().as_bytes())),
        From::Responses | From::Messages => {
            out.extend(format!("event: error\ndata: {body}\n\n").into_bytes());
        }
        From::Chat | From::Gemini => out.extend(format!("data: {body}\n\n").into_bytes()),
    }
    out
}

/// What the caller gets of a stream that fails, and what was heard of the provider.
fn streamed(from: From, to: In) -> (Heard, Vec<u8>) {
    let mut via = Via::new(from, to);
    via.push(&failing(from)).expect("it can be read");
    let (ended, heard, out) = via.end();
    assert!(ended.is_err(), "{from:?} {to:?}");
    (heard, out)
}

/// What of an error does not arrive; `None`: there is no such error.
pub(crate) fn arrives(from: From, to: In, feature: &str) -> Vec<&'static str> {
    let differing = |all: [(&'static str, bool); 3]| {
        all.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    };
    if feature == FEATURES[0] {
        let error = read(from, refusal(from).to_string().as_bytes());
        assert_eq!((error.kind, &*error.message), (ErrorKind::Overloaded, WORDS), "{from:?}");
        let got = read(to.from(), &write(to, &error));
        let code = |error: &ApiError| error.code.as_ref().map(|code| code.to_ascii_lowercase());
        return differing([
            ("its words", got.message != WORDS),
            ("its class", got.kind != error.kind),
            ("its code", code(&got) != code(&error)),
        ]);
    }
    let (heard, out) = streamed(from, to);
    assert_eq!((heard.failed.as_deref(), &*heard.text), (Some(WORDS), "Hel"), "{from:?}");
    let got = said(to, &out);
    differing([
        ("what was said before", got.text != heard.text),
        ("that it failed", got.failed.is_none()),
        ("that it is no whole answer", got.finish.is_some() && got.failed.is_none()),
    ])
}

/// What the caller's own client hears of a stream.
fn said(to: In, bytes: &[u8]) -> Heard {
    let (mut frames, mut reader, mut heard) =
        (to.from().frames(), to.from().reader(), Heard::default());
    let mut each = |name: &str, data: &str| reader.event(name, data, &mut |said| heard.said(&said));
    frames.push(bytes, &mut each).expect("what is written can be read");
    heard
}

#[test]
fn every_error_as_every_caller_reads_it() {
    let mut golden = Golden::default();
    for to in In::ALL {
        for from in From::ALL {
            for feature in FEATURES {
                let missing = arrives(from, to, feature);
                assert!(missing.iter().all(|name| *name == "its code"), "{from:?} {to:?}");
                let text = if feature == FEATURES[0] {
                    write(to, &read(from, refusal(from).to_string().as_bytes()))
                } else {
                    let (_, out) = streamed(from, to);
                    // It is no whole answer.
                    assert!(!well_nested(to, &out) || to == In::Responses, "{from:?} {to:?}");
                    out
                };
                let text = String::from_utf8(text).expect("UTF-8").replace("\r\n", "\\r\n");
                golden.add(format!("{feature}, {} to {}", from.name(), to.name()), text);
            }
        }
    }
    golden.check("errors.txt", &[]);
}
