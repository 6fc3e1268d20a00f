//! Frames: a stream that botocore's decoder reads too, in any pieces, and every damage.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::Broken;
use wire::converse::Frames;

/// Of eighteen events, made after the specification and read by botocore 1.44.
pub(super) const STREAM: &[u8] = include_bytes!("stream.bin");

/// An exception, with headers of other types beside it.
const EXCEPTION: &[u8] = include_bytes!("exception.bin");

/// Bytes of the longest frame.
const LIMIT: usize = 1 << 16;

/// A frame with these headers, each a name, a type and a value as it is written.
pub(super) fn frame(headers: &[(&str, u8, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, kind, value) in headers {
        head.push(u8::try_from(name.len()).expect("short"));
        head.extend_from_slice(name.as_bytes());
        head.push(*kind);
        if matches!(kind, 6 | 7) {
            head.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
        }
        head.extend_from_slice(value);
    }
    let length = |length: usize| u32::try_from(length).expect("short").to_be_bytes();
    let mut out = length(16 + head.len() + payload.len()).to_vec();
    out.extend(length(head.len()));
    out.extend(crc(&out));
    out.extend(head);
    out.extend_from_slice(payload);
    out.extend(crc(&out));
    out
}

/// The checksum of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    (!crc).to_be_bytes()
}

/// An event as Bedrock sends it.
pub(super) fn event(name: &str, payload: &str) -> Vec<u8> {
    let headers: [(&str, u8, &[u8]); 3] = [
        (":event-type", 7, name.as_bytes()),
        (":content-type", 7, b"application/json"),
        (":message-type", 7, b"event"),
    ];
    frame(&headers, payload.as_bytes())
}

/// All events of bytes that come in pieces of these lengths.
fn read(bytes: &[u8], pieces: &[usize]) -> Result<Vec<(String, String)>, Broken> {
    let mut frames = Frames::new(LIMIT);
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = pieces.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (now, later) = rest.split_at(length);
        rest = later;
        frames.push(now, &mut |name, data| {
            out.push((name.to_owned(), data.to_owned()));
            Ok(())
        })?;
    }
    Ok(out)
}

#[test]
fn a_stream_in_any_pieces() {
    let whole = read(STREAM, &[STREAM.len()]).expect("frames");
    assert_eq!(whole.len(), 18);
    assert_eq!(whole[0], ("messageStart".into(), r#"{"p":"abcd","role":"assistant"}"#.into()));
    assert_eq!(whole[17].0, "metadata");
    for length in 1..200 {
        assert_eq!(read(STREAM, &[length]).expect("frames"), whole, "pieces of {length}");
    }
    // Our own writer of frames, which the tests use, makes the same bytes.
    let again: Vec<u8> = whole.iter().flat_map(|(name, data)| event(name, data)).collect();
    assert_eq!(again, STREAM);
}

#[test]
fn exceptions_and_errors() {
    let got = read(EXCEPTION, &[EXCEPTION.len()]).expect("a frame");
    assert_eq!(got, [("throttlingException".into(), r#"{"message":"slow down"}"#.into())]);
    let headers: [(&str, u8, &[u8]); 3] = [
        (":message-type", 7, b"error"),
        (":error-code", 7, b"InternalError"),
        (":error-message", 7, b"it \"broke\""),
    ];
    let got = read(&frame(&headers, b""), &[5]).expect("a frame");
    let data = r#"{"code":"InternalError","message":"it \"broke\""}"#;
    assert_eq!(got, [("error".into(), data.into())]);
}

#[test]
fn headers_of_every_type() {
    let values: [(u8, &[u8]); 10] = [
        (0, b""),
        (1, b""),
        (2, b"1"),
        (3, b"12"),
        (4, b"1234"),
        (5, b"12345678"),
        (6, b"bytes"),
        (7, b"text"),
        (8, b"12345678"),
        (9, b"1234567890123456"),
    ];
    for (kind, value) in values {
        let bytes = frame(&[("x", kind, value), (":event-type", 7, b"e")], b"{}");
        let got = read(&bytes, &[bytes.len()]).expect("a frame");
        assert_eq!(got, [("e".into(), "{}".into())], "type {kind}");
    }
    assert!(read(&frame(&[("x", 10, b"")], b"{}"), &[9]).is_err());
}

#[test]
fn every_damage_is_found() {
    let whole = event("e", "{\"a\":1}");
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes, &[3]).is_err(), "bit {bit} of byte {at}");
        }
    }
    for at in 1..whole.len() {
        assert_eq!(read(&whole[..at], &[at]), Ok(vec![]), "cut at {at}");
    }
}

#[test]
fn bounded() {
    let check = |total: u32, headers: u32| {
        let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
        bytes.extend(crc(&bytes));
        // Refused by its beginning, before anything is kept of it.
        read(&bytes, &[bytes.len()]).and_then(|_| read(&[&bytes[..], &[0]].concat(), &[13]))
    };
    let limit = u32::try_from(LIMIT).expect("small");
    assert!(check(limit, 0).is_ok());
    assert!(check(limit + 1, 0).is_err());
    assert!(check(u32::MAX, 0).is_err());
    assert!(check(15, 0).is_err());
    assert!(check(16, 1).is_err());
    assert!(check(64, u32::MAX).is_err());
    let half = frame(&[(":event-type", 7, b"e")], &[0xC3]);
    assert!(read(&half, &[9]).is_err(), "not UTF-8");
}

proptest! {
    #[test]
    fn any_frames_in_any_pieces(
        events in vec(("[a-zA-Z]{0,9}", "\\PC{0,40}"), 0..6), pieces in vec(1..60_usize, 1..9),
    ) {
        let bytes: Vec<u8> = events.iter().flat_map(|(name, data)| event(name, data)).collect();
        prop_assert_eq!(read(&bytes, &pieces), Ok(events));
    }

    #[test]
    fn no_bytes_panic(
        bytes in vec(any::<u8>(), 0..200), at in 0..2900_usize, piece in 1..50_usize,
    ) {
        let _ = read(&bytes, &[piece]);
        let mut stream = STREAM.to_vec();
        let at = at.min(stream.len());
        let end = (at + bytes.len()).min(stream.len());
        stream.splice(at..end, bytes);
        let _ = read(&stream, &[piece]);
    }
}
