//! Reference models with their stored outputs, unpacked once from `tests/data/reference.tar.zst`;
//! and the demo model's folder.
//!
//! One solid archive, because random weights hardly compress and the fixtures share tensors and
//! tokenizers. It is unpacked below the target folder under a name that holds the archive's length
//! and checksum, so a new archive never meets old files. Knows archives and folders, not models.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// A folder with fixtures that are looked for first: those that are too large to be packed.
const EXTRA_DIR: &str = "HEARTH_REFERENCE_DIR";

/// A fixture by its name: a folder such as `llama_gqa` or a file in it.
///
/// # Panics
///
/// If there is no such fixture, or the archive cannot be unpacked.
#[must_use]
pub fn reference(name: &str) -> PathBuf {
    if let Some(extra) = env::var_os(EXTRA_DIR) {
        let path = Path::new(&extra).join(name);
        if path.exists() {
            return path;
        }
    }
    let path = references().join(name);
    assert!(path.exists(), "no reference fixture {name}");
    path
}

/// The folder of all packed fixtures.
///
/// # Panics
///
/// If the archive cannot be unpacked.
#[must_use]
pub fn references() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference.tar.zst");
        unpacked(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()))
    })
}

/// The folder of the demo model, whose weights the repository keeps packed.
///
/// # Panics
///
/// If they cannot be unpacked.
#[must_use]
pub fn demo() -> PathBuf {
    const WEIGHTS: &str = "model.safetensors.planes2";
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/models/demo");
    let unpacked = || {
        let packed = fs::read(from.join(format!("{WEIGHTS}.zst")))?;
        let place = |half: &Path| {
            fs::create_dir_all(half)?;
            for entry in fs::read_dir(&from)? {
                let path = entry?.path();
                if let Some(name) =
                    path.file_name().filter(|_| path.extension() == Some("json".as_ref()))
                {
                    fs::copy(&path, half.join(name))?;
                }
            }
            let weights = joined(&self::packed(&from.join(WEIGHTS))?, 2);
            fs::write(half.join("model.safetensors"), weights)
        };
        once("demo", &packed, place)
    };
    unpacked().unwrap_or_else(|error: io::Error| panic!("{}: {error}", from.display()))
}

/// Waits for another process that is unpacking, or unpacks. The folder appears whole or not at all.
fn unpacked(archive: &Path) -> io::Result<PathBuf> {
    let packed = fs::read(archive)?;
    once("reference", &packed, |half| unpack(&packed, half))
}

/// A folder that belongs to these packed bytes, made by `make`.
fn once(
    name: &str,
    packed: &[u8],
    make: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    // A zstd frame ends with the checksum of its content.
    let mut sum: Vec<String> = packed.iter().rev().take(4).map(|b| format!("{b:02x}")).collect();
    sum.reverse();
    let key = format!("hearth-{name}-{}-{}", packed.len(), sum.concat());
    let place = target_dir();
    let folder = place.join(&key);
    if folder.exists() {
        return Ok(folder);
    }
    let lock = File::create(place.join(format!("{key}.lock")))?;
    lock.lock()?;
    if !folder.exists() {
        let half = place.join(format!("{key}.half"));
        if half.exists() {
            fs::remove_dir_all(&half)?;
        }
        make(&half)?;
        fs::rename(&half, &folder)?;
    }
    Ok(folder)
}

/// The content of a file that is kept as `path` with `.zst` behind it.
///
/// # Errors
/// It is not there, or not packed with zstd.
pub fn packed(path: &Path) -> io::Result<Vec<u8>> {
    let packed = fs::read(path.with_added_extension("zst"))?;
    let mut content =
        ruzstd::decoding::StreamingDecoder::new(&packed[..]).map_err(io::Error::other)?;
    let mut data = Vec::new();
    content.read_to_end(&mut data)?;
    Ok(data)
}

/// The target folder that the running test lies in, else the system's temporary folder.
fn target_dir() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let deps = exe.ancestors().find(|path| path.ends_with("deps"));
    let target = deps.and_then(Path::parent).and_then(Path::parent);
    target.map_or_else(env::temp_dir, Path::to_path_buf)
}

fn unpack(packed: &[u8], folder: &Path) -> io::Result<()> {
    let content = ruzstd::decoding::StreamingDecoder::new(packed).map_err(io::Error::other)?;
    for entry in tar::Archive::new(content).entries()? {
        let mut entry = entry?;
        let (path, planes) = name_and_planes(&entry.path()?)?;
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, joined(&data, planes))?;
    }
    Ok(())
}

/// `a/b.planes2` is the file `a/b` in two planes.
fn name_and_planes(path: &Path) -> io::Result<(PathBuf, usize)> {
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::other(format!("{} leaves the folder", path.display())));
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    match extension.strip_prefix("planes").map(str::parse) {
        Some(Ok(planes @ 2..=8)) => Ok((path.with_extension(OsString::new()), planes)),
        _ => Ok((path.to_path_buf(), 1)),
    }
}

/// Undoes the split of numbers into their first bytes, their second bytes and so on, which packs
/// better: exponents next to exponents. What does not fill a number stands at the end.
fn joined(data: &[u8], planes: usize) -> Vec<u8> {
    let numbers = data.len() / planes;
    let (split, rest) = data.split_at(numbers * planes);
    let number = |i| (0..planes).map(move |plane| split[plane * numbers + i]);
    (0..numbers).flat_map(number).chain(rest.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_join_to_numbers() {
        assert_eq!(joined(&[1, 3, 5, 2, 4, 6, 7], 2), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(joined(&[1, 4, 2, 5, 3, 6], 3), [1, 2, 3, 4, 5, 6]);
        assert_eq!(joined(&[1, 2], 1), [1, 2]);
        let (path, planes) = name_and_planes(Path::new("a/b.safetensors.planes4")).unwrap();
        assert_eq!((path.to_str().unwrap(), planes), ("a/b.safetensors", 4));
        assert!(name_and_planes(Path::new("../b")).is_err());
    }
}
