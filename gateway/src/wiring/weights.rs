//! A digest of a model's weights, so that machines find out whether they have the same. Reading
//! hundreds of gigabytes at each start would be too much: of each file its size, its beginning
//! (which names the tensors) and blocks all over it are read. That tells one model from another
//! and a tuned one from its base; a flipped bit in between it does not see.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes of a file's beginning.
const HEAD: u64 = 64 << 10;
/// Blocks all over a file, and the bytes of each.
const BLOCKS: u64 = 64;
const BLOCK: u64 = 4 << 10;

/// Of the files at this path, a folder or one file; `what` says what is computed with them.
///
/// # Errors
/// A file cannot be read.
pub(super) fn digest(path: &Path, what: &str) -> io::Result<String> {
    let mut digest = Sha256::new();
    digest.update(what);
    for file in files(path)? {
        let size = file.metadata()?.len();
        digest.update(size.to_le_bytes());
        let mut open = File::open(&file)?;
        sample(&mut open, 0, HEAD, &mut digest)?;
        for block in 0..BLOCKS {
            let at = size.saturating_sub(BLOCK) / BLOCKS * block;
            sample(&mut open, at, BLOCK, &mut digest)?;
        }
        sample(&mut open, size.saturating_sub(BLOCK), BLOCK, &mut digest)?;
    }
    Ok(hex::encode(digest.finalize()))
}

/// Of an adapter's folder; its configuration counts to the last byte, since it scales the weights.
///
/// # Errors
/// A file cannot be read.
pub fn adapter_digest(folder: &Path) -> io::Result<String> {
    digest(folder, &std::fs::read_to_string(folder.join("adapter_config.json"))?)
}

fn sample(file: &mut File, at: u64, bytes: u64, digest: &mut Sha256) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let mut read = Vec::new();
    file.take(bytes).read_to_end(&mut read)?;
    digest.update(&read);
    Ok(())
}

/// The files that weights are in; none for what is built in.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|end| end == "safetensors" || end == "gguf") {
            all.push(file);
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_have_another_digest() {
        let folder = std::env::temp_dir().join(format!("hearth-weights-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("model.safetensors");
        let mut bytes = vec![7_u8; 3 << 20];
        let of = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("a file");
            digest(&folder, "spec").expect("a digest")
        };
        let first = of(&bytes);
        assert_eq!(of(&bytes), first);
        assert_ne!(digest(&folder, "other spec").expect("a digest"), first);
        // A tuned model differs everywhere; one block of those that are read is enough.
        let at = bytes.len() - 100;
        bytes[at] = 8;
        assert_ne!(of(&bytes), first);
        bytes[at] = 7;
        bytes.push(7);
        assert_ne!(of(&bytes), first);
        std::fs::remove_dir_all(&folder).expect("gone");
        assert!(digest(Path::new("demo"), "spec").is_ok(), "what is built in has no files");
    }
}
