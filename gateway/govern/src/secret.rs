//! Secrets at rest: sealed under a master key (AES-256-GCM), opened only where they are used, and
//! shown nowhere. Neither `Debug`, `Display` nor an error holds any of one.
//!
//! A sealed secret is `v1.KEY.DATA`: the master key's id, and base64 of a random 96-bit nonce, the
//! ciphertext and its tag. The place where it is kept is authenticated along with it, so that it
//! cannot be moved to another row. One master key is good for 2^32 seals; rotate it before.

pub mod reference;

use std::fmt;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};

use crate::id::random;

pub use reference::{Reference, ReferenceError, Vault};

/// Bytes of a master key.
const KEY_BYTES: usize = 32;

/// Before every sealed secret; another form would be another word.
const VERSION: &str = "v1";

/// Why a secret cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text is no master key.
    #[error("a master key is 32 bytes, as 64 hexadecimal digits or in base64")]
    NotAKey,
    /// The key is one byte, repeated: a placeholder.
    #[error("this master key is a placeholder: make one with `openssl rand -hex 32`")]
    Placeholder,
    /// The text is no sealed secret.
    #[error("this is not a sealed secret")]
    NotSealed,
    /// The key that it was sealed with is not at hand.
    #[error("this secret was sealed with master key {0}, which is not at hand")]
    UnknownKey(String),
    /// It was altered, or belongs to another place.
    #[error("this secret was altered, or moved from the place where it belongs")]
    Altered,
}

/// Memory that can be overwritten.
pub trait Wipe {
    /// Overwrites it with zeros.
    fn wipe(&mut self);
}

impl Wipe for [u8] {
    fn wipe(&mut self) {
        self.fill(0);
        // Nobody reads the zeros: without this the compiler may leave them out.
        std::hint::black_box(self);
    }
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        self.as_mut_slice().wipe();
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        std::mem::take(self).into_bytes().wipe();
    }
}

/// Something that is not shown, and overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Secret<T> {
    /// Hides it.
    pub const fn new(secret: T) -> Self {
        Self(secret)
    }

    /// Shows it to whoever has to use it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<Vec<u8>> {
    /// The same as text; `None` where it is none.
    #[must_use]
    pub fn into_text(mut self) -> Option<Secret<String>> {
        let text = String::from_utf8(std::mem::take(&mut self.0));
        text.map(Secret).map_err(|not| Secret(not.into_bytes())).ok()
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key that seals other secrets.
pub struct Master {
    id: String,
    key: LessSafeKey,
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Master({})", self.id)
    }
}

impl Master {
    /// Reads a key: 32 bytes as hexadecimal digits or in base64 (either alphabet, padded or not).
    ///
    /// # Errors
    /// It is none, or a placeholder.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = Secret(unhex(text).or_else(|| unbase64(text)).ok_or(SecretError::NotAKey)?);
        if bytes.0.len() != KEY_BYTES {
            return Err(SecretError::NotAKey);
        }
        if bytes.0.iter().all(|byte| *byte == bytes.0[0]) {
            return Err(SecretError::Placeholder);
        }
        let mut context = Context::new(&SHA256);
        context.update(b"hearth master key id");
        context.update(&bytes.0);
        let digest = context.finish();
        let id = hex::encode(&digest.as_ref()[..6]);
        let key = UnboundKey::new(&AES_256_GCM, &bytes.0).map_err(|_| SecretError::NotAKey)?;
        Ok(Self { id, key: LessSafeKey::new(key) })
    }

    /// The text of a fresh key, to be put into a file.
    ///
    /// # Panics
    /// The system has no randomness.
    #[must_use]
    pub fn generate() -> Secret<String> {
        let mut bytes = random::<KEY_BYTES>();
        let text = hex::encode(bytes.as_slice());
        bytes.wipe();
        Secret(text)
    }

    /// Its name in what it sealed: 12 digits that say nothing of the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals a secret for the place where it will be kept, such as `user/user_0k3v/totp`.
    ///
    /// # Panics
    /// It is longer than 64 GiB, or the system has no randomness.
    #[must_use]
    pub fn seal(&self, what: &[u8], place: &str) -> String {
        let nonce = random::<NONCE_LEN>();
        let tag_bytes = AES_256_GCM.tag_len();
        // Room for all of it: growing would leave copies behind.
        let mut data = Vec::with_capacity(NONCE_LEN + what.len() + tag_bytes);
        data.extend_from_slice(&nonce);
        data.extend_from_slice(what);
        let tag = self.key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            self.bound_to(place),
            &mut data[NONCE_LEN..],
        );
        data.extend_from_slice(tag.expect("shorter than 64 GiB").as_ref());
        self.prefix() + &URL_SAFE_NO_PAD.encode(data)
    }

    /// What everything begins with that it has sealed.
    pub(crate) fn prefix(&self) -> String {
        format!("{VERSION}.{}.", self.id)
    }

    /// Opens what this key sealed for this place.
    ///
    /// # Errors
    /// It is not sealed, was sealed with another key or for another place, or was altered.
    pub fn open(&self, sealed: &str, place: &str) -> Result<Secret<Vec<u8>>, SecretError> {
        let (id, data) = split(sealed)?;
        if id != self.id {
            return Err(SecretError::UnknownKey(id.to_owned()));
        }
        let mut data = URL_SAFE_NO_PAD.decode(data).map_err(|_| SecretError::NotSealed)?;
        let Some(nonce) = data.first_chunk::<NONCE_LEN>() else {
            return Err(SecretError::NotSealed);
        };
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_within(nonce, self.bound_to(place), &mut data, NONCE_LEN..);
        // What was opened lies at the start now; behind it is what it was made of.
        let length = opened.map_err(|_| SecretError::Altered)?.len();
        data[length..].wipe();
        data.truncate(length);
        Ok(Secret(data))
    }

    /// What is authenticated along with a secret. An id has no dot: no two places meet.
    fn bound_to(&self, place: &str) -> Aad<String> {
        Aad::from(format!("{VERSION}.{}.{place}", self.id))
    }
}

/// The id of the key and the data of a sealed secret.
fn split(sealed: &str) -> Result<(&str, &str), SecretError> {
    let mut parts = sealed.split('.');
    let (Some(VERSION), Some(id), Some(data), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SecretError::NotSealed);
    };
    let plain = id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { Ok((id, data)) } else { Err(SecretError::NotSealed) }
}

/// The master key in use, and those from before a rotation, which only open.
#[derive(Debug)]
pub struct Keyring {
    /// Seals, and opens.
    pub current: Master,
    /// Open what has not been sealed anew yet.
    pub old: Vec<Master>,
}

impl Keyring {
    /// Seals with the key in use; see [`Master::seal`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn seal(&self, what: &[u8], place: &str) -> String {
        self.current.seal(what, place)
    }

    /// Opens what any of the keys sealed for this place.
    ///
    /// # Errors
    /// It is not sealed, the key is not at hand, it belongs to another place, or was altered.
    pub fn open(&self, sealed: &str, place: &str) -> Result<Secret<Vec<u8>>, SecretError> {
        let (id, _) = split(sealed)?;
        let mut all = std::iter::once(&self.current).chain(&self.old);
        let master = all.find(|master| master.id == id);
        master.ok_or_else(|| SecretError::UnknownKey(id.to_owned()))?.open(sealed, place)
    }

    /// The same secret under the key in use; `None` where it is so already.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn rewrap(&self, sealed: &str, place: &str) -> Result<Option<String>, SecretError> {
        let opened = self.open(sealed, place)?;
        let (id, _) = split(sealed)?;
        Ok((id != self.current.id).then(|| self.seal(opened.expose(), place)))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text).ok().filter(|bytes| bytes.len() == KEY_BYTES)
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let padded_or_not: GeneralPurposeConfig =
        NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [STANDARD, URL_SAFE];
    alphabets.iter().find_map(|a| GeneralPurpose::new(a, padded_or_not).decode(text).ok())
}
