//! What Amazon's dialect says: answers of Converse, and the events of its streams, which are frames
//! of bytes and no text. Written after Amazon's pages and not with what the gateway reads them by:
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>,
//! <https://smithy.io/2.0/aws/amazon-eventstream.html>.

use serde_json::{Value, json};

/// The checksum of IEEE 802.3, bit by bit.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    (!crc).to_be_bytes()
}

/// How a frame begins: its length and that of its headers, and their checksum.
pub(crate) fn prelude(total: usize, headers: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for length in [total, headers] {
        out.extend(u32::try_from(length).expect("short").to_be_bytes());
    }
    out.extend(checksum(&out));
    out
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).expect("short"));
        head.extend(name.as_bytes());
        // A text.
        head.push(7);
        head.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        head.extend(value.as_bytes());
    }
    let mut out = prelude(16 + head.len() + payload.len(), head.len());
    out.extend(head);
    out.extend(payload);
    out.extend(checksum(&out));
    out
}

/// An event of a stream.
pub(crate) fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    let kind = (":content-type", "application/json");
    frame(&[(":event-type", name), kind, (":message-type", "event")], payload)
}

/// What ends a stream early.
pub(crate) fn exception(name: &str, words: &str) -> Vec<u8> {
    let kind = (":content-type", "application/json");
    let headers = [(":exception-type", name), kind, (":message-type", "exception")];
    frame(&headers, json!({ "message": words }).to_string().as_bytes())
}

/// What ends a stream that nobody has a name for: all of it stands in the headers.
pub(crate) fn error(code: &str, words: &str) -> Vec<u8> {
    frame(&[(":error-code", code), (":error-message", words), (":message-type", "error")], b"")
}

fn usage() -> Value {
    json!({ "inputTokens": 11, "outputTokens": 3, "totalTokens": 14 })
}

/// A whole answer.
pub(crate) fn whole(text: &str) -> Value {
    json!({ "output": { "message": { "role": "assistant", "content": [{ "text": text }] } },
        "stopReason": "end_turn", "usage": usage(), "metrics": { "latencyMs": 1 } })
}

/// The frames of a stream.
pub(crate) fn frames(tokens: &[String]) -> Vec<Vec<u8>> {
    let mut all = vec![("messageStart", json!({ "role": "assistant", "p": "abcdefgh" }))];
    for token in tokens {
        let delta = json!({ "contentBlockIndex": 0, "delta": { "text": token } });
        all.push(("contentBlockDelta", delta));
    }
    all.push(("contentBlockStop", json!({ "contentBlockIndex": 0 })));
    all.push(("messageStop", json!({ "stopReason": "end_turn" })));
    all.push(("metadata", json!({ "usage": usage(), "metrics": { "latencyMs": 1 } })));
    all.iter().map(|(name, payload)| event(name, payload.to_string().as_bytes())).collect()
}
