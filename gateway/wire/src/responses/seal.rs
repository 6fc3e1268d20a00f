//! `encrypted_content` of reasoning items. A provider's own is passed through. Ours carries what a
//! caller must hand back where nothing is stored: the words, and the seal of a provider of another
//! dialect. It hides nothing and proves nothing; a provider checks its seal itself.
//!
//! `hearth1.WORDS`, `hearth1.WORDS.sSIGNATURE`, `hearth1.WORDS.rREDACTED`, each in base64, or
//! `hearth1.WORDS.eID.CONTENT` with a content of the provider's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::request::{Seal, Thought};

const OURS: &str = "hearth1.";

/// Thoughts as `encrypted_content` of the item with this id. What a provider made goes back to it
/// under the id that it gave, which is told where the item has another.
pub(super) fn close(id: &str, words: &str, seal: Option<&Seal>) -> String {
    let words = STANDARD.encode(words);
    match seal {
        None => format!("{OURS}{words}"),
        Some(Seal::Signature(text)) => format!("{OURS}{words}.s{}", STANDARD.encode(text)),
        Some(Seal::Redacted(text)) => format!("{OURS}{words}.r{}", STANDARD.encode(text)),
        Some(Seal::Encrypted { id: theirs, content }) if theirs == id => content.clone(),
        Some(Seal::Encrypted { id: theirs, content }) => {
            format!("{OURS}{words}.e{}.{content}", STANDARD.encode(theirs))
        }
    }
}

/// Thoughts of an item with this id, `encrypted_content` and words; `None`: its beginning says
/// that it is ours, and it is not. Words in ours count more than those beside it, which some
/// clients leave out.
pub(super) fn open(id: &str, content: &str, words: String) -> Option<Thought> {
    let Some(ours) = content.strip_prefix(OURS) else {
        let seal = Seal::Encrypted { id: id.to_owned(), content: content.to_owned() };
        return Some(Thought { text: words, seal: Some(seal) });
    };
    let read = |text: &str| String::from_utf8(STANDARD.decode(text).ok()?).ok();
    let (words, seal) = match ours.split_once('.') {
        None => (ours, None),
        Some((words, seal)) => {
            let seal = match seal.as_bytes().first()? {
                b's' => Seal::Signature(read(&seal[1..])?),
                b'r' => Seal::Redacted(read(&seal[1..])?),
                b'e' => {
                    let (id, content) = seal[1..].split_once('.')?;
                    Seal::Encrypted { id: read(id)?, content: content.to_owned() }
                }
                _ => return None,
            };
            (words, Some(seal))
        }
    };
    Some(Thought { text: read(words)?, seal })
}
