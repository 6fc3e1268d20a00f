//! The model families: each turns a `config.json` or a GGUF header into a [`ModelSpec`].
//!
//! One file per family and one line in [`FAMILIES`]. What Llama-like families share is in
//! `decoder` (assembly), `hub` (config.json), `header` (GGUF) and `rope`. Nothing here reads
//! weights or runs anything.

use crate::config::Fields;
use crate::spec::ModelSpec;
use crate::weights::gguf::Gguf;
use crate::weights::{LoadError, shown};

mod decoder;
mod header;
mod hub;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod rope;

/// One family and how its files name it.
struct Family {
    /// For people, and `model_type` in config.json.
    name: &'static str,
    /// `architectures` in config.json.
    architecture: &'static str,
    /// `general.architecture` in GGUF.
    gguf: &'static str,
    from_config: fn(&Fields) -> Result<ModelSpec, LoadError>,
    from_header: fn(&Gguf) -> Result<ModelSpec, LoadError>,
}

const FAMILIES: [&Family; 4] = [&llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

/// What a folder's config.json describes.
///
/// # Errors
/// The family is not supported, or the file asks for something that is not computed here.
pub(crate) fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let architecture = match config.words("architectures")?.as_deref() {
        None | Some([]) => None,
        Some([one]) => Some(*one),
        Some(several) => {
            let problem = format!("names {} architectures, wanted one", several.len());
            return Err(config.wrong("architectures", &problem));
        }
    };
    let model_type = config.word("model_type")?;
    let family = match (architecture, model_type) {
        (Some(name), _) => find(name, |family| family.architecture)
            .map_err(|problem| config.wrong("architectures", &problem))?,
        (None, Some(name)) => find(name, |family| family.name)
            .map_err(|problem| config.wrong("model_type", &problem))?,
        (None, None) => return Err(config.wrong("architectures", "is missing")),
    };
    if let Some(found) = model_type.filter(|found| *found != family.name) {
        let (found, wanted) = (shown(found), family.architecture);
        let problem = format!("is {found}, which contradicts the architecture {wanted}");
        return Err(config.wrong("model_type", &problem));
    }
    (family.from_config)(config)
}

/// What a GGUF header describes.
///
/// # Errors
/// As [`from_config`].
pub(crate) fn from_header(header: &Gguf) -> Result<ModelSpec, LoadError> {
    let name = header.need_text("general.architecture")?;
    let family = find(name, |family| family.gguf)
        .map_err(|problem| header.wrong("general.architecture", &problem))?;
    (family.from_header)(header)
}

fn find(name: &str, spelled: fn(&Family) -> &'static str) -> Result<&'static Family, String> {
    if let Some(family) = FAMILIES.into_iter().find(|family| spelled(family) == name) {
        return Ok(family);
    }
    let known: Vec<_> = FAMILIES.into_iter().map(spelled).collect();
    let nearest = known.iter().map(|known| (distance(stem(name), stem(known)), known)).min();
    // A family further away than half of its name is no help to anybody.
    let hint = match nearest {
        Some((edits, known)) if 2 * edits <= stem(name).len() => format!(" (nearest is {known})"),
        _ => String::new(),
    };
    Err(format!("{} is not supported{hint}; supported: {}", shown(name), known.join(", ")))
}

/// A name without the ending that all of them share.
fn stem(name: &str) -> &str {
    name.strip_suffix("ForCausalLM").unwrap_or(name)
}

/// Edits between two names, of which at most 64 bytes count.
fn distance(left: &str, right: &str) -> usize {
    let [left, right] = [left, right].map(|name| &name.as_bytes()[..name.len().min(64)]);
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_family_names_the_nearest() {
        let problem = find("Qwen3MoeForCausalLM", |family| family.architecture).err().unwrap();
        assert!(problem.contains("nearest is Qwen3ForCausalLM"), "{problem}");
        let problem = find("llama4", |family| family.gguf).err().unwrap();
        assert!(problem.contains("nearest is llama)"), "{problem}");
        let problem = find("BertModel", |family| family.architecture).err().unwrap();
        assert!(problem.starts_with("BertModel is not supported; supported: Llama"), "{problem}");
    }
}
