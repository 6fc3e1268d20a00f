//! The master key beside the database: `master.key`, made at the first start, and those from before
//! a rotation, `master.key.ID`, which only open.
//!
//! A rotation puts its new key into `master.key.next` first, seals with it, and gives it its name
//! last. Wherever it is broken off, every key that anything is sealed with lies here, so a server
//! that starts then can open all of it, and the next rotation goes on with the same key.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govern::secret::{Keyring, Master, Secret};

const NAME: &str = "master.key";
const NEXT: &str = "master.key.next";

/// A key that is to follow the one in use.
#[derive(Debug)]
pub struct Next {
    /// It, and all that it replaces.
    pub keyring: Arc<Keyring>,
    folder: PathBuf,
    /// The name of the key that it replaces.
    old: String,
}

/// The keys in a folder. One is made where there is none yet.
///
/// # Errors
/// In words that name the file.
pub fn keyring(folder: &Path) -> Result<Keyring, String> {
    let path = folder.join(NAME);
    if !path.exists() {
        make(&path)?;
    }
    Ok(Keyring { current: read(&path)?, old: others(folder)? })
}

/// A new key for a folder, or the one of a rotation that was broken off.
///
/// # Errors
/// In words that name the file.
pub fn next(folder: &Path) -> Result<Next, String> {
    let Keyring { current, mut old } = keyring(folder)?;
    let path = folder.join(NEXT);
    if !path.exists() {
        make(&path)?;
    }
    let next = read(&path)?;
    let replaced = current.id().to_owned();
    old.push(current);
    let keyring = Arc::new(Keyring { current: next, old });
    Ok(Next { keyring, folder: folder.to_owned(), old: replaced })
}

impl Next {
    /// The new key takes the old one's place, which stays beside it for backups of before.
    ///
    /// # Errors
    /// In words that name the file.
    pub fn take_over(self) -> Result<PathBuf, String> {
        let [name, next] = [NAME, NEXT].map(|name| self.folder.join(name));
        let kept = self.folder.join(format!("{NAME}.{}", self.old));
        let wrong = |error: io::Error| format!("{}: {error}", kept.display());
        match std::fs::hard_link(&name, &kept) {
            // A rotation before this one came so far.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => linked.map_err(wrong)?,
        }
        std::fs::rename(&next, &name).map_err(|error| format!("{}: {error}", next.display()))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(wrong)?;
        Ok(kept)
    }
}

fn make(path: &Path) -> Result<(), String> {
    let wrong = |error: io::Error| format!("{}: {error}", path.display());
    let made = Master::generate();
    // Under another name until it is whole: half a key would be read as none for ever.
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let mut file = file.map_err(wrong)?;
    file.write_all(made.expose().as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    // Nobody's key is replaced, also not one that was made a moment ago.
    let linked = std::fs::hard_link(&part, path);
    std::fs::remove_file(&part).map_err(wrong)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(wrong(error)),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Master, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = Secret::new(std::fs::read_to_string(path).map_err(|error| wrong(&error))?);
    Master::parse(text.expose()).map_err(|error| wrong(&error))
}

/// Keys that only open: of before, and of a rotation that was broken off.
fn others(folder: &Path) -> Result<Vec<Master>, String> {
    let wrong = |error: io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('.'));
        let old = |id: &str| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if name == NEXT || id.is_some_and(old) {
            found.push(read(&entry.path())?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(keyring: &Keyring) -> String {
        keyring.seal(b"secret", "here")
    }

    fn opens(keyring: &Keyring, sealed: &str) -> bool {
        keyring.open(sealed, "here").is_ok()
    }

    #[test]
    fn wherever_a_rotation_stops_everything_opens() {
        let folder = std::env::temp_dir().join(format!("hearth-master-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let first = sealed(&keyring(&folder).expect("a key"));
        let begun = next(&folder).expect("a new key");
        let second = sealed(&begun.keyring);
        assert!(opens(&begun.keyring, &first));
        // Broken off here: a server goes on with the old key, and opens what the new one sealed.
        let now = keyring(&folder).expect("keys");
        assert!(opens(&now, &first) && opens(&now, &second));
        assert_eq!(now.seal(b"", "").get(..15), first.get(..15), "the old key is in use");
        let again = next(&folder).expect("the same new key");
        assert_eq!(again.keyring.current.id(), begun.keyring.current.id());
        let kept = again.take_over().expect("renamed");
        assert!(kept.exists() && !folder.join(NEXT).exists());
        let now = keyring(&folder).expect("keys");
        assert!(opens(&now, &first) && opens(&now, &second));
        assert_eq!(now.current.id(), begun.keyring.current.id());
        std::fs::remove_file(kept).expect("removed");
        let now = keyring(&folder).expect("keys");
        assert!(!opens(&now, &first) && opens(&now, &second));
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
