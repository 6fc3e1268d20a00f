//! Google's thought signatures, on their way through dialects that know none.
//!
//! Google signs thoughts and function calls, and wants each signature back on the same part. The
//! signature of a thought becomes a [`Seal`] with a mark in front, so that nobody takes it for
//! another provider's. The signature of a call goes into the call's id, which every dialect brings
//! back: `ID__sig_SIGNATURE`, in letters that all of them allow in ids. Towards callers that speak
//! this dialect it is the other way round: seals of other providers are wrapped in base64, which
//! is what a signature must be here.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::fields::{Fault, Parsed};
use crate::piece::SealRef;
use crate::request::Seal;

/// What Google documents in place of the signature of a call that its models did not make.
pub(super) const SKIP: &str = "skip_thought_signature_validator";

/// The other one that it documents.
const SKIP_TOO: &str = "context_engineering_is_the_way_to_go";

/// In front of a seal: it is a signature of Google's.
const GOOGLES: &str = "google.";

/// In front of a signature's bytes: it is somebody else's seal.
const OURS: &str = "hearth.";

/// Between a call's id and its signature.
const MARK: &str = "__sig_";

/// Bytes of a signature that an id carries. Google's have some thousand; without its signature a
/// call is sent back with [`SKIP`].
const SIGNATURE_BYTES_MAX: usize = 32 << 10;

/// Standard letters, padded or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a part's `thoughtSignature` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// Google's own, in standard base64.
    Google(String),
    /// Another provider's seal, which this server wrapped.
    Wrapped(Seal),
}

/// Base64 in either of its two alphabets.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if text.contains(['-', '_']) {
        return LENIENT.decode(text.replace('-', "+").replace('_', "/")).ok();
    }
    LENIENT.decode(text).ok()
}

/// Reads a part's `thoughtSignature`; `None`: it only says that there is none.
pub(super) fn parse(text: &str) -> Parsed<Option<Signed>> {
    if text.is_empty() || text == SKIP || text == SKIP_TOO {
        return Ok(None);
    }
    let wrong = || Fault::value("thoughtSignature", "expected base64 as it was given out");
    let signature = bytes(text).ok_or_else(wrong)?;
    let Some(wrapped) = signature.strip_prefix(OURS.as_bytes()) else {
        return Ok(Some(Signed::Google(STANDARD.encode(signature))));
    };
    let wrapped = std::str::from_utf8(wrapped).map_err(|_| wrong())?;
    let seal = match wrapped.split_once(':').ok_or_else(wrong)? {
        ("s", text) => Seal::Signature(text.to_owned()),
        ("r", text) => Seal::Redacted(text.to_owned()),
        ("e", text) => {
            let (id, content) = text.split_once('\0').ok_or_else(wrong)?;
            Seal::Encrypted { id: id.to_owned(), content: content.to_owned() }
        }
        _ => return Err(wrong()),
    };
    Ok(Some(Signed::Wrapped(seal)))
}

/// A seal as the `thoughtSignature` of a part.
pub(super) fn write(seal: SealRef<'_>) -> String {
    let wrap = |kind: &str, text: &str| STANDARD.encode(format!("{OURS}{kind}:{text}"));
    match seal {
        SealRef::Signature(text) => match googles(text) {
            Some(signature) => signature.to_owned(),
            None => wrap("s", text),
        },
        SealRef::Redacted(text) => wrap("r", text),
        SealRef::Encrypted { id, content } => wrap("e", &format!("{id}\0{content}")),
    }
}

/// Google's signature as the text of a [`Seal::Signature`].
pub(super) fn mark(signature: &str) -> String {
    let standard = bytes(signature).map(|bytes| STANDARD.encode(bytes));
    format!("{GOOGLES}{}", standard.as_deref().unwrap_or(signature))
}

/// Google's signature in the text of a [`Seal::Signature`], if it is Google's.
pub(super) fn googles(text: &str) -> Option<&str> {
    text.strip_prefix(GOOGLES)
}

/// The text of a [`Seal::Signature`] is Google's, and means nothing to any other provider.
#[must_use]
pub fn is_googles(text: &str) -> bool {
    googles(text).is_some()
}

/// A call's id that carries Google's signature of the call. One that is too long, or not base64,
/// stays behind.
pub(super) fn join(id: &str, signature: &str) -> String {
    let small = bytes(signature).filter(|bytes| bytes.len() <= SIGNATURE_BYTES_MAX);
    match small.filter(|bytes| !bytes.is_empty() && !id.contains(MARK)) {
        Some(bytes) => format!("{id}{MARK}{}", URL_SAFE_NO_PAD.encode(bytes)),
        None => id.to_owned(),
    }
}

/// The id of a call without what it carries for Google. Other providers, which bound the length
/// of ids, are given this one.
#[must_use]
pub fn bare_id(id: &str) -> &str {
    split(id).0
}

/// A call's id, and Google's signature of the call in standard base64 if the id carries one.
pub(super) fn split(id: &str) -> (&str, Option<String>) {
    let parts = id.split_once(MARK);
    let decoded = parts.and_then(|(id, text)| Some((id, URL_SAFE_NO_PAD.decode(text).ok()?)));
    match decoded.filter(|(_, bytes)| !bytes.is_empty()) {
        Some((bare, bytes)) => (bare, Some(STANDARD.encode(bytes))),
        None => (id, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calls_id_brings_its_signature_back() {
        for signature in ["AA==", "+/+/", "-_-_", "AAEC", "AAEC/w"] {
            let standard = STANDARD.encode(bytes(signature).expect("base64"));
            let id = join("call_1", signature);
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{id}");
            assert_eq!(split(&id), ("call_1", Some(standard)), "{signature}");
            assert_eq!(bare_id(&id), "call_1");
        }
        let long = STANDARD.encode(vec![7; SIGNATURE_BYTES_MAX + 1]);
        for signature in ["", "not base64!", &long] {
            assert_eq!(join("call_1", signature), "call_1");
        }
        for id in ["call_1", "__sig_", "a__sig_", "a__sig_!"] {
            assert_eq!(split(id), (id, None));
        }
    }

    #[test]
    fn seals_of_all_providers_are_signatures_here() {
        let check = |seal: SealRef<'_>, expect: Seal| {
            assert_eq!(parse(&write(seal)).expect("base64"), Some(Signed::Wrapped(expect)));
        };
        check(SealRef::Signature("a+/=\u{e9}"), Seal::Signature("a+/=\u{e9}".into()));
        check(SealRef::Redacted("x:y"), Seal::Redacted("x:y".into()));
        let encrypted = Seal::Encrypted { id: "rs_1".into(), content: "c".into() };
        check(SealRef::Encrypted { id: "rs_1", content: "c" }, encrypted);
        // Google's own goes back as it came, in whichever alphabet the client wrote it.
        let marked = mark("-_8=");
        assert_eq!(write(SealRef::Signature(&marked)), "+/8=");
        assert_eq!(parse("-_8").expect("base64"), Some(Signed::Google("+/8=".into())));
        assert_eq!(parse(SKIP).expect("known"), None);
        assert!(parse("no!").is_err());
    }
}
