//! Signatures of thoughts. Anthropic's own mean something to Anthropic alone and pass through
//! unchanged. Thoughts that nobody sealed need one too, because the dialect has no block of
//! thoughts without; and a seal of the Responses dialect has to come through a client that knows
//! of signatures only.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::piece::SealRef;
use crate::request::Seal;

/// The signature of words that nobody sealed.
const WORDS: &str = "hearth1.words";

/// What a carried item begins with: then its id in base64, a point, and its content.
const ITEM: &str = "hearth1.item.";

/// The signature that a block of thoughts has.
pub(super) fn signature(seal: Option<SealRef<'_>>) -> Cow<'_, str> {
    match seal {
        Some(SealRef::Signature(signature) | SealRef::Redacted(signature)) => signature.into(),
        Some(SealRef::Encrypted { id, content }) => {
            format!("{ITEM}{}.{content}", URL_SAFE_NO_PAD.encode(id)).into()
        }
        None => WORDS.into(),
    }
}

/// The seal that a signature is; `None`: it seals nothing.
pub(super) fn of(signature: &str) -> Option<Seal> {
    if signature.is_empty() || signature == WORDS {
        return None;
    }
    Some(item(signature).unwrap_or_else(|| Seal::Signature(signature.to_owned())))
}

fn item(signature: &str) -> Option<Seal> {
    let (id, content) = signature.strip_prefix(ITEM)?.split_once('.')?;
    let id = String::from_utf8(URL_SAFE_NO_PAD.decode(id).ok()?).ok()?;
    Some(Seal::Encrypted { id, content: content.to_owned() })
}

/// A request's seal as an answer's.
pub(super) fn as_ref(seal: &Seal) -> SealRef<'_> {
    match seal {
        Seal::Signature(signature) => SealRef::Signature(signature),
        Seal::Redacted(data) => SealRef::Redacted(data),
        Seal::Encrypted { id, content } => SealRef::Encrypted { id, content },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_come_back() {
        let check = |seal: Seal| {
            let carried = signature(Some(as_ref(&seal))).into_owned();
            assert_eq!(of(&carried), Some(seal), "{carried}");
        };
        check(Seal::Signature("EqoBCkgIARABGAI=".into()));
        check(Seal::Encrypted { id: "rs_.\u{e9}".into(), content: "gAAA.b=".into() });
        assert_eq!(of(&signature(None)), None);
        assert_eq!(of(""), None);
        // Not what `signature` writes: somebody else's, and kept as it is.
        assert_eq!(of("hearth1.item.?.x"), Some(Seal::Signature("hearth1.item.?.x".into())));
    }
}
