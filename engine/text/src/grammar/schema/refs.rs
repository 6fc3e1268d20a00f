//! Where references lead. All of a schema lies in it: nothing is fetched.

use std::collections::HashMap;

use serde_json::Value;

use super::SchemaError;
use super::read::{ROOT, Raws};

/// Whether a draft is older than 2020-12.
pub(super) fn is_old(schema: &str) -> Result<bool, String> {
    match schema.trim_end_matches('#') {
        "https://json-schema.org/draft/2020-12/schema" => Ok(false),
        "https://json-schema.org/draft/2019-09/schema"
        | "http://json-schema.org/draft-07/schema"
        | "https://json-schema.org/draft-07/schema"
        | "http://json-schema.org/draft-06/schema"
        | "http://json-schema.org/draft-04/schema" => Ok(true),
        _ => Err("names a draft that is not known here: 2020-12 to draft 4 are".to_owned()),
    }
}

/// Makes of each reference the schema that it leads to.
pub(super) fn link(
    raws: &mut Raws,
    root: &Value,
    places: &HashMap<*const Value, u32>,
    anchors: &HashMap<&str, u32>,
    base: Option<&str>,
) -> Result<(), SchemaError> {
    for id in 0..raws.list.len() {
        let Some(reference) = raws.list[id].reference.take() else { continue };
        let target = lookup(&reference, root, places, anchors, base).map_err(|why| {
            let path = raws.path(u32::try_from(id).unwrap_or(u32::MAX));
            let shown: String = reference.chars().take(100).collect();
            SchemaError::new(&path, "$ref", format!("{why}: '{shown}'"))
        })?;
        raws.list[id].all.push(target);
    }
    progress(raws)
}

fn lookup(
    reference: &str,
    root: &Value,
    places: &HashMap<*const Value, u32>,
    anchors: &HashMap<&str, u32>,
    base: Option<&str>,
) -> Result<u32, &'static str> {
    let base = base.map(|base| base.trim_end_matches('#'));
    let local = base.and_then(|base| reference.strip_prefix(base)).unwrap_or(reference);
    if local.is_empty() {
        return Ok(ROOT);
    }
    let fragment = local.strip_prefix('#').ok_or("points outside of the schema")?;
    let fragment = decode(fragment).ok_or("is not a reference")?;
    let found = if fragment.is_empty() || fragment.starts_with('/') {
        root.pointer(&fragment).and_then(|value| places.get(&std::ptr::from_ref(value)))
    } else {
        anchors.get(fragment.as_str())
    };
    found.copied().ok_or("points at no schema")
}

/// Percent-encoded text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// That no schema asks for itself before it says anything.
fn progress(raws: &Raws) -> Result<(), SchemaError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let next = |id: u32| -> Vec<u32> {
        let raw = &raws.list[id as usize];
        let options = raw.choices.iter().flat_map(|choice| choice.options.iter());
        raw.all.iter().chain(options).copied().collect()
    };
    let mut marks = vec![Mark::New; raws.list.len()];
    for start in 0..raws.list.len() {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        let mut stack = vec![(start, None::<std::vec::IntoIter<u32>>)];
        while let Some((id, children)) = stack.last_mut() {
            let id = *id;
            if children.is_none() {
                match marks[id as usize] {
                    Mark::New => marks[id as usize] = Mark::Open,
                    Mark::Done => {
                        stack.pop();
                        continue;
                    }
                    Mark::Open => {
                        let why = "leads back to itself before it says anything";
                        return Err(SchemaError::new(&raws.path(id), "$ref", why));
                    }
                }
            }
            match children.get_or_insert_with(|| next(id).into_iter()).next() {
                Some(child) => stack.push((child, None)),
                None => {
                    marks[id as usize] = Mark::Done;
                    stack.pop();
                }
            }
        }
    }
    Ok(())
}
