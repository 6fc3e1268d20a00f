//! Keys: `hk-`, 12 letters by which a key is found, `-`, 32 letters (160 bits) that are its secret.
//!
//! Only the SHA-256 of the whole is kept. A slow hash would protect secrets that people choose;
//! 160 random bits need none, and this one is computed for every request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::{Principal, same};
use crate::directory::Directory;
use crate::entity::{Entity, Key};
use crate::id::{hex_of, random_letters, text_of};
use crate::policy::pattern::{self, matches};
use crate::{Denied, Id, Millis, Rule};

const MARK: &str = "hk-";
const PREFIX_LETTERS: usize = 12;
const SECRET_LETTERS: usize = 32;
/// Bytes of the part that may be seen.
const PREFIX: usize = MARK.len() + PREFIX_LETTERS;
/// Bytes of a key.
const LENGTH: usize = PREFIX + 1 + SECRET_LETTERS;

/// What is compared with where no key has the prefix: as long as a hash, and none.
const NOBODY: [u8; 64] = [b'-'; 64];

/// A key that was just made. Its secret is shown once and kept nowhere.
pub struct Minted {
    /// The whole key, for its owner's eyes.
    pub shown: String,
    /// The part that may be seen.
    pub prefix: String,
    /// SHA-256 of the whole, hexadecimal.
    pub hash: String,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Minted {
    /// A key that nobody has.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a default would be the same each time")]
    pub fn new() -> Self {
        let prefix = format!("{MARK}{}", random_letters(PREFIX_LETTERS));
        let shown = format!("{prefix}-{}", random_letters(SECRET_LETTERS));
        let hash = hash(&shown);
        Self { shown, prefix, hash }
    }
}

/// SHA-256 of a key, hexadecimal.
#[must_use]
pub fn hash(shown: &str) -> String {
    text_of(&hashed(shown))
}

fn hashed(shown: &str) -> [u8; 64] {
    hex_of(&digest(&SHA256, shown.as_bytes()))
}

/// The part of a key that may be seen; `None` where this cannot be a key.
#[must_use]
pub fn parse(shown: &str) -> Option<&str> {
    let letters = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    // Of bytes that are no ASCII, `get` may cut into the middle: that is no key either.
    let (prefix, rest) = (shown.get(..PREFIX)?, shown.get(PREFIX..)?);
    let (found, secret) = (prefix.strip_prefix(MARK)?, rest.strip_prefix('-')?);
    (shown.len() == LENGTH && letters(found) && letters(secret)).then_some(prefix)
}

/// Finds out who shows a key, and whether they may come in from there and now.
///
/// # Errors
/// The first rule that says no. Whether a prefix is known can be told neither from the answer nor
/// from the time that it takes.
pub fn authenticate(
    directory: &Directory,
    shown: Option<&str>,
    source: Option<IpAddr>,
    now: Millis,
) -> Result<Principal, Denied> {
    let shown = shown.ok_or_else(|| {
        Denied::new(Rule::UnknownKey, "no key was shown; send `Authorization: Bearer hk-...`")
    })?;
    let found = parse(shown).and_then(|prefix| directory.key_by_prefix(prefix));
    let kept = found.map_or(&NOBODY[..], |key| key.hash.as_bytes());
    let proved = same(&hashed(shown), kept);
    let key = found
        .filter(|_| proved)
        .ok_or_else(|| Denied::new(Rule::UnknownKey, "this key is not known here"))?;
    enter(directory, key, source, now)
}

/// Finds out whose certificate a client shows: `names` are those in it, with `uri:` or `dns:`
/// before each. A key that names one of them exactly counts before one with a pattern.
///
/// # Errors
/// No key is for this certificate, or several are; or the one that is may not come in.
pub fn of_certificate(
    directory: &Directory,
    names: &[String],
    source: Option<IpAddr>,
    now: Millis,
) -> Result<Principal, Denied> {
    let living = || directory.certified().filter(|key| alive(key, now).is_ok());
    let fitting = |exact: bool| {
        let fits = move |wanted: &String| {
            names.iter().any(|name| if exact { name == wanted } else { matches(wanted, name) })
        };
        living().filter(move |key| key.certificate.as_ref().is_some_and(fits)).take(2)
    };
    let mut found: Vec<_> = fitting(true).collect();
    if found.is_empty() {
        found = fitting(false).collect();
    }
    let [key] = found[..] else {
        let why = if found.is_empty() { "no key is" } else { "several keys are" };
        let message = format!("no key was shown, and {why} for this certificate");
        return Err(Denied::new(Rule::UnknownKey, message));
    };
    enter(directory, key, source, now)
}

/// The principal of a key that was proved.
fn enter(
    directory: &Directory,
    key: &Arc<Key>,
    source: Option<IpAddr>,
    now: Millis,
) -> Result<Principal, Denied> {
    alive(key, now)?;
    let principal = directory.principal(key).ok_or_else(|| {
        let message = format!("what key {} belonged to was deleted", key.label);
        Denied::new(Rule::RevokedKey, message)
    })?;
    principal.enter(source, now)
}

/// Whether this can be the name of certificates in a key.
///
/// # Errors
/// In words: it cannot.
pub fn check_certificate(pattern: &str) -> Result<(), String> {
    let name = pattern.strip_prefix("uri:").or_else(|| pattern.strip_prefix("dns:"));
    let bounded =
        pattern.len() <= pattern::BYTES_MAX && pattern.bytes().all(|b| b.is_ascii_graphic());
    // Names of hosts are compared in small letters.
    let fits = !pattern.starts_with("dns:") || !pattern.bytes().any(|b| b.is_ascii_uppercase());
    if bounded && fits && name.is_some_and(|name| name.bytes().any(|b| b.is_ascii_alphanumeric())) {
        return Ok(());
    }
    Err("write uri:spiffe://example.org/ci or dns:ci.example.org (in small letters); `*` stands \
         for any letters, `?` for one"
        .to_owned())
}

/// Whether a key's time is not over.
fn alive(key: &Key, now: Millis) -> Result<(), Denied> {
    let over = |at: Option<Millis>| at.is_some_and(|at| at <= now);
    if over(key.revoked_at) {
        return Err(Denied::new(Rule::RevokedKey, format!("key {} was revoked", key.label)));
    }
    if over(key.expires_at) {
        return Err(Denied::new(Rule::ExpiredKey, format!("key {} has expired", key.label)));
    }
    Ok(())
}

/// A key in another's place: the old one as it is to be kept, revoked after `overlap` milliseconds
/// (a time of revocation that comes earlier stays), the new one, and what to show. Only the secret
/// is new: the new key allows what the old one did, and expires when it would have.
///
/// # Errors
/// The old key is revoked or expired: it has nothing to hand on. Or it has no secret.
pub fn rotate(old: &Key, overlap: Millis, now: Millis) -> Result<(Key, Key, Minted), Denied> {
    alive(old, now)?;
    if old.certificate.is_some() {
        let message = "A certificate opens this key: it has no secret that could be changed.";
        return Err(Denied::new(Rule::Permission, message));
    }
    let minted = Minted::new();
    let new = Key {
        id: Id::new(Key::KIND, now),
        prefix: minted.prefix.clone(),
        hash: minted.hash.clone(),
        revoked_at: None,
        replaces: Some(old.id.clone()),
        created_at: now,
        ..old.clone()
    };
    let end = now.saturating_add(overlap.max(0));
    let revoked_at = Some(old.revoked_at.map_or(end, |at| at.min(end)));
    Ok((Key { revoked_at, ..old.clone() }, new, minted))
}
