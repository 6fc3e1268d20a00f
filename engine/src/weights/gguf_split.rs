//! GGUF models in several files, named `NAME-00001-of-00003.gguf` (llama.cpp's `gguf-split`).
//!
//! The first part has all keys; each part has some of the tensors. Any part may be named to open
//! the model.

use std::path::{Path, PathBuf};

use super::gguf_header::Header;
use super::gguf_value::Value;
use super::shown;

/// Published models have at most a few dozen parts.
const PARTS_MAX: u64 = 1000;
/// Digits of the numbers in a name.
const DIGITS: usize = 5;

/// Which part of how many a header says its file is; `None`: a model in one file.
pub(super) fn part(header: &Header) -> Result<Option<(u64, u64)>, String> {
    let Some(count) = whole(header, "split.count")? else { return Ok(None) };
    if count <= 1 {
        return Ok(None);
    }
    let number = whole(header, "split.no")?.ok_or("split.no: is missing")?;
    if count > PARTS_MAX || number >= count {
        return Err(format!("split.count: says part {number} of {count}, which cannot be"));
    }
    Ok(Some((number, count)))
}

/// How many tensors all parts have together.
pub(super) fn tensor_count(header: &Header) -> Result<Option<u64>, String> {
    whole(header, "split.tensors.count")
}

fn whole(header: &Header, key: &str) -> Result<Option<u64>, String> {
    let value = header.values.get(key);
    let found = value.map(Value::whole);
    match found {
        None => Ok(None),
        Some(Some(number)) => Ok(Some(number)),
        Some(None) => Err(format!("{key}: is not a whole number")),
    }
}

/// The paths of all parts, given one.
pub(super) fn paths(path: &Path, number: u64, count: u64) -> Result<Vec<PathBuf>, String> {
    let digits = |number: u64| format!("{number:0DIGITS$}");
    let ending = |number: u64| format!("-{}-of-{}.gguf", digits(number + 1), digits(count));
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let Some(stem) = name.strip_suffix(&ending(number)) else {
        return Err(format!(
            "is part {} of {count} of a model, but its name does not end in {}; the parts are \
             found by their names",
            number + 1,
            shown(&ending(number))
        ));
    };
    Ok((0..count).map(|number| path.with_file_name(format!("{stem}{}", ending(number)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_by_their_numbers() {
        let found = paths(Path::new("/m/a-00002-of-00003.gguf"), 1, 3).unwrap();
        let wanted = ["/m/a-00001-of-00003.gguf", "/m/a-00002-of-00003.gguf"].map(PathBuf::from);
        assert_eq!(found[..2], wanted);
        assert_eq!(found.len(), 3);
        let problem = paths(Path::new("/m/a.gguf"), 1, 3).unwrap_err();
        assert!(problem.contains("part 2 of 3") && problem.contains("-00002-of-00003.gguf"));
    }
}
