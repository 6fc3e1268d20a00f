//! `encrypted_content` of reasoning items. A provider's own is passed through. Ours carries what a
//! caller must hand back where nothing is stored: the words, and the seal of a provider of another
//! dialect. It hides nothing and proves nothing; a provider checks its seal itself.
//!
//! `hearth1.WORDS`, `hearth1.WORDS.sSIGNATURE`, `hearth1.WORDS.rREDACTED`, each in base64, or
//! `hearth1.WORDS.eID.CONTENT` with a content of the provider's own; or, where it is known which
//! one's, `hearth1.WORDS.pPROVIDER.ID.CONTENT`.

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
                b'p' => {
                    let (_, id, content) = parted(&seal[1..])?;
                    Seal::Encrypted { id, content: content.to_owned() }
                }
                _ => return None,
            };
            (words, Some(seal))
        }
    };
    Some(Thought { text: read(words)?, seal })
}

fn read(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// What this provider made for the item with this id, with its words.
pub(super) fn by(provider: &str, id: &str, words: &str, content: &str) -> String {
    let [words, provider, id] = [words, provider, id].map(|text| STANDARD.encode(text));
    format!("{OURS}{words}.p{provider}.{id}.{content}")
}

/// Whose it is, the item's id there, and what it made; `None`: nobody noted that.
pub(super) fn sealed_by(content: &str) -> Option<(String, String, &str)> {
    parted(content.strip_prefix(OURS)?.split_once('.')?.1.strip_prefix('p')?)
}

fn parted(text: &str) -> Option<(String, String, &str)> {
    let (provider, rest) = text.split_once('.')?;
    let (id, content) = rest.split_once('.')?;
    Some((read(provider)?, read(id)?, content))
}

/// Whether it was made here.
pub(super) fn is_ours(content: &str) -> bool {
    content.starts_with(OURS)
}
