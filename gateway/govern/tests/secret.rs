//! Secrets at rest, and references to them: opened only with the right key in the right place,
//! and shown nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use govern::secret::reference::{Sources, VaultAnswer};
use govern::secret::{Keyring, Master, Reference, ReferenceError, Secret, SecretError, Vault};
use proptest::prelude::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const PLACE: &str = "user/user_1/totp";

fn master(text: &str) -> Master {
    Master::parse(text).expect("a key")
}

fn open(master: &Master, sealed: &str, place: &str) -> Result<Vec<u8>, SecretError> {
    master.open(sealed, place).map(|secret| secret.expose().clone())
}

#[test]
fn keys_are_read_in_every_usual_form() {
    let id = master(HEX).id().to_owned();
    for same in [
        "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F\n",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        " AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\r\n",
    ] {
        assert_eq!(master(same).id(), id, "{same}");
    }
    let slashes = master("//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=");
    assert_eq!(slashes.id(), master("__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eA").id());
    assert_ne!(master(OTHER).id(), id);
    let long = "ab".repeat(33);
    let million = "a".repeat(1 << 20);
    for wrong in ["", "secret", &HEX[2..], &long, &million, "é", "AAECAwQFBgcICQoLDA0ODw=="] {
        assert_eq!(Master::parse(wrong).err(), Some(SecretError::NotAKey), "{}", wrong.len());
    }
    for byte in ["00", "ff", "61"] {
        let placeholder = Master::parse(&byte.repeat(32)).err();
        assert_eq!(placeholder, Some(SecretError::Placeholder), "{byte}");
    }
    let (one, two) = (Master::generate(), Master::generate());
    assert_ne!(one.expose(), two.expose());
    assert_ne!(master(one.expose()).id(), master(two.expose()).id());
}

#[test]
fn a_secret_opens_with_its_key_in_its_place() {
    let key = master(HEX);
    let sealed = key.seal(b"sk-provider", PLACE);
    let parts: Vec<_> = sealed.split('.').collect();
    assert_eq!((parts.len(), parts[0], parts[1]), (3, "v1", key.id()));
    assert_eq!(open(&key, &sealed, PLACE).expect("opened"), b"sk-provider");
    assert_eq!(open(&master(HEX), &sealed, PLACE).expect("opened"), b"sk-provider");
    assert_ne!(key.seal(b"sk-provider", PLACE), sealed, "a fresh nonce each time");
    assert_eq!(open(&key, &sealed, "user/user_2/totp"), Err(SecretError::Altered));
    assert_eq!(open(&key, &sealed, ""), Err(SecretError::Altered));
    let unknown = Err(SecretError::UnknownKey(key.id().to_owned()));
    assert_eq!(open(&master(OTHER), &sealed, PLACE), unknown);
    // Under another key's name it is that key's to refuse.
    let renamed = sealed.replace(key.id(), master(OTHER).id());
    assert_eq!(open(&master(OTHER), &renamed, PLACE), Err(SecretError::Altered));
    assert_eq!(open(&key, &key.seal(b"", PLACE), PLACE).expect("opened"), b"");
}

#[test]
fn a_megabyte_opens_too() {
    let key = master(HEX);
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
    assert!(open(&key, &key.seal(&large, PLACE), PLACE).expect("opened") == large);
}

/// Every bit of nonce, ciphertext and tag, and every letter of the text around them.
#[test]
fn nothing_of_a_sealed_secret_can_change() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let key = master(HEX);
    let sealed = key.seal(b"secret", PLACE);
    let (head, data) = sealed.rsplit_once('.').expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(data).expect("base64");
    assert_eq!(bytes.len(), 12 + 6 + 16);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(flipped));
        assert_eq!(open(&key, &text, PLACE), Err(SecretError::Altered), "bit {bit}");
    }
    for at in 0..sealed.len() {
        for letter in ['A', '0', '.', '=', 'é'] {
            let mut text = sealed.clone();
            text.replace_range(at..=at, letter.encode_utf8(&mut [0; 4]));
            assert_eq!(text == sealed, open(&key, &text, PLACE).is_ok(), "{at}: {text}");
        }
        assert!(open(&key, &sealed[..at], PLACE).is_err(), "cut at {at}");
    }
    for more in ["A", ".", "=", "\n"] {
        assert!(open(&key, &format!("{sealed}{more}"), PLACE).is_err(), "{more:?}");
    }
    for wrong in ["", "v1", "v1..", "v2.000000000000.AAAA", "v1.0.AAAA", "v1.000000000000."] {
        let refused = open(&key, wrong, PLACE).expect_err(wrong);
        assert_ne!(refused, SecretError::Altered, "{wrong}");
    }
}

#[test]
fn masters_rotate() {
    let before = Keyring { current: master(HEX), old: vec![] };
    let sealed = before.seal(b"secret", PLACE);
    assert_eq!(before.rewrap(&sealed, PLACE), Ok(None));
    let during = Keyring { current: master(OTHER), old: vec![master(HEX)] };
    assert_eq!(during.open(&sealed, PLACE).expect("opened").expose(), b"secret");
    let rewrapped = during.rewrap(&sealed, PLACE).expect("opened").expect("sealed anew");
    assert!(rewrapped.contains(during.current.id()));
    assert_eq!(during.rewrap(&rewrapped, PLACE), Ok(None));
    assert_eq!(during.rewrap(&sealed, "elsewhere"), Err(SecretError::Altered));
    let after = Keyring { current: master(OTHER), old: vec![] };
    assert_eq!(after.open(&rewrapped, PLACE).expect("opened").expose(), b"secret");
    let unknown = SecretError::UnknownKey(before.current.id().to_owned());
    assert_eq!(after.open(&sealed, PLACE).err(), Some(unknown.clone()));
    assert_eq!(after.rewrap(&sealed, PLACE), Err(unknown));
}

proptest! {
    #[test]
    fn any_text_is_refused_or_read(text in ".{0,200}", tail in "[A-Za-z0-9_-]{0,200}") {
        let key = master(HEX);
        for sealed in [text.clone(), format!("v1.{}.{tail}", key.id())] {
            prop_assert!(open(&key, &sealed, PLACE).is_err());
        }
        let _ = Master::parse(&text);
        let _ = Reference::parse(&text);
        for scheme in ["env", "file", "vault"] {
            if let Ok(found) = Reference::parse(&format!("{scheme}:{text}")) {
                // What is a reference is written as it was read.
                prop_assert_eq!(found.expect("one").to_string(), format!("{scheme}:{text}"));
            }
        }
    }

    #[test]
    fn what_is_sealed_opens(what in any::<Vec<u8>>(), place in ".{0,40}", other in ".{0,40}") {
        let key = master(HEX);
        let sealed = key.seal(&what, &place);
        prop_assert_eq!(open(&key, &sealed, &place), Ok(what));
        prop_assert_eq!(open(&key, &sealed, &other).is_ok(), place == other);
    }
}

#[test]
fn references_are_told_from_values() {
    let vault =
        |path: &str, key: &str| Reference::Vault { path: path.to_owned(), key: key.to_owned() };
    let check = |text: &str, expected: Reference| {
        assert_eq!(Reference::parse(text), Ok(Some(expected)), "{text}");
    };
    check("env:OPENAI_API_KEY", Reference::Env("OPENAI_API_KEY".to_owned()));
    check("file:/run/secrets/key", Reference::File(PathBuf::from("/run/secrets/key")));
    check("file:a b:c", Reference::File(PathBuf::from("a b:c")));
    check("vault:secret/hearth#openai", vault("secret/hearth", "openai"));
    check("vault:secret/a#b#c", vault("secret/a#b", "c"));
    for value in ["", "sk-123", "postgres://a:b@c/d", "ENV:A", "environment", "envA:B", " env:A"] {
        assert_eq!(Reference::parse(value), Ok(None), "{value}");
    }
    for wrong in [
        "env:",
        "env:A B",
        "env:1A",
        "env:A=B",
        "env:É",
        "file:",
        "file:a\0b",
        "file:a\n",
        "vault:",
        "vault:secret/a",
        "vault:#key",
        "vault:secret/a#",
    ] {
        assert_eq!(Reference::parse(wrong), Err(ReferenceError::Malformed), "{wrong}");
    }
}

/// A Vault that knows one secret.
struct OneSecret;

impl Vault for OneSecret {
    fn read<'a>(&'a self, path: &'a str, key: &'a str) -> VaultAnswer<'a> {
        let answer = match (path, key) {
            ("secret/hearth", "openai") => Ok(Secret::new("from vault".to_owned())),
            ("secret/hearth", "empty") => Ok(Secret::new(String::new())),
            _ => Err("no such secret".to_owned()),
        };
        Box::pin(std::future::ready(answer))
    }
}

async fn resolve(text: &str) -> Result<(String, Option<String>), ReferenceError> {
    let env = |name: &str| match name {
        "KEY" => Some("from env".to_owned()),
        "EMPTY" => Some(String::new()),
        "LONG" => Some("x".repeat((64 << 10) + 1)),
        _ => None,
    };
    let sources = Sources { env: &env, vault: Some(&OneSecret) };
    let reference = Reference::parse(text)?.expect("a reference");
    let found = reference.resolve(sources).await?;
    Ok((found.value.expose().clone(), found.warning))
}

#[tokio::test]
async fn variables_and_vault_give_their_values() {
    let of = |text: &str| Reference::parse(text).expect("well formed").expect("a reference");
    assert_eq!(resolve("env:KEY").await, Ok(("from env".to_owned(), None)));
    assert_eq!(resolve("env:NONE").await, Err(ReferenceError::NotSet("NONE".to_owned())));
    assert_eq!(resolve("env:EMPTY").await, Err(ReferenceError::Empty(of("env:EMPTY"))));
    assert_eq!(resolve("env:LONG").await, Err(ReferenceError::TooLong(of("env:LONG"))));
    let there = "vault:secret/hearth#openai";
    assert_eq!(resolve(there).await, Ok(("from vault".to_owned(), None)));
    let empty = "vault:secret/hearth#empty";
    assert_eq!(resolve(empty).await, Err(ReferenceError::Empty(of(empty))));
    let gone = "vault:secret/hearth#gone";
    let why = "no such secret".to_owned();
    assert_eq!(resolve(gone).await, Err(ReferenceError::Vault(of(gone), why)));
    let without = Sources { env: &|_| None, vault: None };
    let refused = of(there).resolve(without).await.err();
    assert_eq!(refused, Some(ReferenceError::NoVault(of(there))));
}

/// A folder of this test's own, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// A file's reference.
    fn file(&self, name: &str, mode: u32, content: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        format!("file:{}", path.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn files_give_their_values() {
    let folder = Folder::new("references");
    let of = |text: &str| Reference::parse(text).expect("well formed").expect("a reference");
    for (content, value) in
        [("key", "key"), ("key\n", "key"), ("key\r\n", "key"), (" a\nb \n\n", " a\nb ")]
    {
        let file = folder.file("plain", 0o600, content.as_bytes());
        assert_eq!(resolve(&file).await, Ok((value.to_owned(), None)), "{content:?}");
    }
    let largest = "x".repeat(64 << 10);
    let file = folder.file("largest", 0o640, largest.as_bytes());
    assert_eq!(resolve(&file).await, Ok((largest.clone(), None)));
    let file = folder.file("long", 0o600, format!("{largest}x").as_bytes());
    assert_eq!(resolve(&file).await, Err(ReferenceError::TooLong(of(&file))));
    let file = folder.file("binary", 0o600, b"\xff\xfe");
    assert_eq!(resolve(&file).await, Err(ReferenceError::NotText(of(&file))));
    let file = folder.file("empty", 0o600, b"\n");
    assert_eq!(resolve(&file).await, Err(ReferenceError::Empty(of(&file))));
    let file = folder.file("open", 0o644, b"key");
    let (value, warning) = resolve(&file).await.expect("read");
    assert_eq!((value.as_str(), warning.is_some_and(|w| w.contains("/open"))), ("key", true));
    for wrong in [format!("{file}.gone"), format!("file:{}", folder.0.display())] {
        let refused = resolve(&wrong).await.expect_err("nothing to read");
        assert!(matches!(&refused, ReferenceError::Unreadable(..)), "{refused}");
        assert!(refused.to_string().starts_with(&wrong), "{refused}");
    }
    // A pipe would wait for its writer; a device never ends.
    let refused = resolve("file:/dev/zero").await.expect_err("no file");
    assert!(matches!(refused, ReferenceError::Unreadable(..)), "{refused}");
}

#[tokio::test]
async fn secrets_are_shown_nowhere() {
    let key = master(HEX);
    let keyring = Keyring { current: master(HEX), old: vec![master(OTHER)] };
    let sealed = key.seal(b"hunter2", PLACE);
    let opened = key.open(&sealed, PLACE).expect("opened");
    let folder = Folder::new("shown");
    let binary = folder.file("binary", 0o644, b"hunter2\xff");
    let found = folder.file("found", 0o644, b"hunter2");
    let found = Reference::parse(&found).expect("well formed").expect("a reference");
    let sources = Sources { env: &|_| None, vault: None };
    let mut shown = vec![
        format!("{key:?} {keyring:?} {opened:?} {:?}", Master::generate()),
        format!("{:?} {:?}", opened.clone().into_text(), Secret::new("hunter2".to_owned())),
        format!("{:?}", found.resolve(sources).await),
    ];
    let refusals = [
        Master::parse("hunter2").expect_err("no key"),
        Master::parse(&"61".repeat(32)).expect_err("a placeholder"),
        key.open("hunter2", PLACE).expect_err("not sealed"),
        key.open("v1.hunter2.AAAA", PLACE).expect_err("not sealed"),
        key.open(&sealed, "hunter2").expect_err("another place"),
    ];
    shown.extend(refusals.iter().map(|why| format!("{why} {why:?}")));
    let refusals = [
        Reference::parse("env:hunter2 or not").expect_err("malformed"),
        Reference::parse("vault:hunter2").expect_err("malformed"),
        resolve(&binary).await.expect_err("no text"),
    ];
    shown.extend(refusals.iter().map(|why| format!("{why} {why:?}")));
    for text in shown {
        for secret in ["hunter2", "0102030405", "616161", "[1, 2, 3", "104, 117, 110"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // Bytes that are no text are not shown by that error either.
    let binary = key.open(&key.seal(b"hunter2\xff", PLACE), PLACE).expect("opened");
    assert!(binary.into_text().is_none());
}
