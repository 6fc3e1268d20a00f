//! Answers of providers, whole and in streams: however the bytes are cut, callers of every dialect
//! get the same, can read it, and take it for whole only where it is.

use serde_json::Value;
use wire::relay::{self, Relay};
use wire::{
    ApiError, Broken, Delta, Dialect, ErrorKind, Limits, Piece, Reader as _, Remark, Said, Usage,
    Writer as _, cohere, converse, gemini, messages, openai, responses, sse,
};

use crate::frame::frame;
use crate::pieces;
use crate::side::{From, In, LIMIT, well_nested};

/// A provider's stream as a caller gets it; whether it came to its end.
fn translated(from: From, to: In, pieces: &[&[u8]]) -> (bool, Vec<u8>) {
    let (mut frames, mut reader, mut writer) = (from.frames(), from.reader(), to.writer(1));
    let (mut begun, mut done, mut failed, mut out) = (false, false, false, Vec::new());
    let mut used = Usage::default();
    let mut said = |said: Said<'_>, out: &mut Vec<u8>| match said {
        Said::Begun { .. } => {}
        Said::Usage(usage) => used = usage,
        Said::Failed(_) => failed = true,
        Said::Done => done = true,
        Said::Piece(piece) => {
            if !std::mem::replace(&mut begun, true) {
                writer.start(out, &Piece { usage: Some(used), ..Piece::default() });
            }
            writer.piece(out, &piece);
        }
    };
    let mut each =
        |name: &str, data: &str| reader.event(name, data, &mut |one| said(one, &mut out));
    let read = pieces.iter().try_for_each(|piece| frames.push(piece, &mut each));
    let read = read.and_then(|()| reader.end(&mut |one| said(one, &mut out)));
    let sound = read.is_ok() && done && !failed;
    let given: usize = pieces.iter().map(|piece| piece.len()).sum();
    assert!(out.len() <= 40_000 + 60 * given, "{} bytes of {given}", out.len());
    if sound {
        writer.end(&mut out, &used, &Remark::default());
    } else {
        let error = ApiError::new(ErrorKind::Upstream, "provider_error", "It broke.");
        writer.error(&mut out, &error);
    }
    (sound, out)
}

/// A stream of events that is read and written again for every caller.
fn stream(from: From, bytes: &[u8]) {
    for to in In::ALL {
        let (sound, out) = translated(from, to, &[bytes]);
        let shown = String::from_utf8_lossy(&out);
        // Where calls are mixed with other blocks a writer may have to give up.
        let gave_up = shown.contains("two calls at once");
        let whole = well_nested(to, &out);
        assert!(whole == sound || (sound && gave_up), "{to:?}, {sound}: {shown}");
        assert!((sound, out) == translated(from, to, &pieces(bytes)), "{to:?}: a cut shows");
    }
}

/// A stream that is passed on in its own dialect.
fn relayed(dialect: Dialect, bytes: &[u8]) {
    let pass = |strip: bool, pieces: &[&[u8]]| {
        let (mut relay, mut out) = (Relay::new(dialect, strip, LIMIT), Vec::new());
        for piece in pieces {
            relay.push(piece, &mut out).expect("short events");
        }
        (relay, out)
    };
    for strip in [false, true] {
        let ((relay, out), (other, same)) = (pass(strip, &[bytes]), pass(strip, &pieces(bytes)));
        assert!(out == same && relay.usage() == other.usage(), "a cut shows");
        assert_eq!(
            (relay.ended(), relay.failed(), relay.pieces(), relay.flex()),
            (other.ended(), other.failed(), other.pieces(), other.flex())
        );
        assert!(strip || bytes.starts_with(&out), "something was added");
        let (mut relay, mut out) = (relay, out);
        relay.error(&mut out, &ApiError::new(ErrorKind::Upstream, "c", "m"));
        let (mut other, mut same) = (other, same);
        other.cut_short(&mut same, &ApiError::new(ErrorKind::Quota, "c", "m"));
        assert!(relay.failed() && other.ended());
    }
}

/// Of OpenAI's chat, and of plain completions.
pub fn chat(bytes: &[u8]) {
    stream(From::Chat, bytes);
    relayed(Dialect::Chat, bytes);
    relayed(Dialect::Completions, bytes);
}

/// The rest of a stream of Responses that breaks off here, as far as anybody can go on with it.
fn continued(bytes: &[u8]) {
    let (mut begun, mut reader) = (responses::Begun::default(), responses::Reader::new());
    let mut text = String::new();
    let read = sse::Events::new(LIMIT).push(bytes, &mut |name, data| {
        begun.event(data, text.len())?;
        reader.event(name, data, &mut |said| {
            if let Said::Piece(Piece { delta: Delta::Content(more), .. }) = said {
                text.push_str(more);
            }
        })
    });
    let Some(place) = read.ok().and_then(|()| begun.place(&text)) else { return };
    let mut writer = place.writer(Box::new(|prefix| format!("{prefix}_1")), Box::new(|| 1));
    let mut out = Vec::new();
    writer.piece(&mut out, &Piece { delta: Delta::Content("more"), ..Piece::default() });
    writer.end(&mut out, &Usage::default(), &Remark::default());
    let shown = String::from_utf8(out).expect("UTF-8");
    let data = shown.lines().filter_map(|line| line.strip_prefix("data: "));
    let data: Vec<Value> = data.map(|data| serde_json::from_str(data).expect("JSON")).collect();
    assert_eq!(data.last().expect("an end")["type"], "response.completed");
}

/// A stream of Responses that is passed on and kept: what is kept does not depend on its pieces.
fn passed(bytes: &[u8]) {
    let asked = br#"{"model":"m","input":"hi"}"#;
    let mut ids = |prefix: &str| format!("{prefix}_1");
    let request = responses::Passing::parse(asked, &Limits::default(), &mut ids).expect("accepted");
    let pass = |pieces: &[&[u8]]| {
        let mut relay = Relay::new(Dialect::Responses, false, LIMIT);
        let (mut passed, mut out) = (request.answer("resp_1", "p"), Vec::new());
        for piece in pieces {
            let mut events = Vec::new();
            relay.push(piece, &mut events).expect("short events");
            passed.events(&events, &mut out);
        }
        (passed.finished(), out)
    };
    let (kept, out) = pass(&[bytes]);
    assert!(kept.as_ref().is_none_or(|kept| kept["id"] == "resp_1" && kept["store"] == true));
    assert!((kept, out) == pass(&pieces(bytes)), "a cut shows");
}

/// Of OpenAI's Responses.
pub fn responses(bytes: &[u8]) {
    stream(From::Responses, bytes);
    relayed(Dialect::Responses, bytes);
    continued(bytes);
    passed(bytes);
}

/// Of Anthropic's Messages.
pub fn messages(bytes: &[u8]) {
    stream(From::Messages, bytes);
    relayed(Dialect::Messages, bytes);
}

/// Of Google's generateContent.
pub fn gemini(bytes: &[u8]) {
    stream(From::Gemini, bytes);
    relayed(Dialect::Gemini, bytes);
}

/// Of Bedrock's Converse. The bytes are server-sent events, which are put into frames: no change
/// of a frame would get past its checksums. And the bytes themselves, as frames.
pub fn converse(bytes: &[u8]) {
    let mut framed = Vec::new();
    let mut events = sse::Events::new(LIMIT);
    let read = events.push(bytes, &mut |name, data| {
        framed.extend(frame(name, data.as_bytes()));
        Ok(())
    });
    if read.is_ok() {
        stream(From::Converse, &framed);
    }
    let all = |pieces: &[&[u8]]| {
        let (mut frames, mut all) = (converse::Frames::new(LIMIT), Vec::new());
        let mut each = |name: &str, data: &str| -> Result<(), Broken> {
            all.push((name.to_owned(), data.to_owned()));
            Ok(())
        };
        let read = pieces.iter().try_for_each(|piece| frames.push(piece, &mut each));
        (read, all)
    };
    assert!(all(&[bytes]) == all(&pieces(bytes)), "a cut shows");
}

/// Whole answers and errors, in each dialect that they may be in.
pub fn answers(body: &[u8]) {
    for from in From::ALL {
        let Ok(answer) = from.read(body) else { continue };
        for to in In::ALL {
            let written = to.write(&answer.choices, &answer.usage.unwrap_or_default());
            let shown: Value = serde_json::from_slice(&written).expect("JSON");
            // Google has a word for calls that are none, which its reader takes for a failure.
            let mut all = shown["candidates"].as_array().into_iter().flatten();
            let none = all.any(|own| own["finishReason"] == "MALFORMED_FUNCTION_CALL");
            let again = to.from().read(&written);
            assert!(again.is_ok() != none, "{from:?} to {to:?}: {shown}");
        }
    }
    if let Ok(scores) = cohere::read_answer(body, 2) {
        assert!(scores.len() <= 2 && scores.iter().all(|(at, _)| *at < 2));
    }
    for error in [
        openai::read_error(500, body),
        messages::read_error(429, body),
        gemini::read_error(400, body),
        converse::read_error(503, None, body),
        cohere::read_error(500, body),
    ] {
        assert!(error.message.len() <= 2048);
    }
    for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Messages, Dialect::Gemini] {
        let _ = relay::whole(dialect, body);
    }
    for dialect in [Dialect::Cohere, Dialect::Embeddings, Dialect::Rerank, Dialect::Score] {
        let _ = relay::whole(dialect, body);
    }
}
