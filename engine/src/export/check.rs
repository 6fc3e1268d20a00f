//! Whether a file that was written holds the model that it was made from: the same computation,
//! the same words.

use std::path::Path;

use super::header::Form;
use crate::model::ModelFiles;
use crate::spec::ModelSpec;
use crate::weights::LoadError;

/// Texts that take a tokenizer's every step: words, numbers, marks, other scripts, white space,
/// special tokens spelled out.
const PROBES: [&str; 6] = [
    "The quick brown fox doesn't jump over 1234567 lazy dogs.",
    "  two spaces,\ttabs\n\n\nand   lines \r\n",
    "fn main() { println!(\"{:?}\", [0x1f, 3.14e-10]); } // snake_case CamelCase",
    "Größe, naïve, 我们说中文, привет, 日本語テキスト, 한국어, עברית, 🦀👩‍👩‍👧",
    "<|im_start|>user\nhi<|im_end|></s><s>[INST] <bos><start_of_turn>",
    " a",
];

/// Two frequencies that differ by less come from two orders of the same operations.
const FREQUENCY: f32 = 1e-6;

/// Opens the file and compares.
///
/// # Errors
/// It does not open, or differs from the source; says in what.
pub(super) fn same(
    source: &ModelFiles,
    written: &Path,
    form: Option<&Form>,
) -> Result<(), LoadError> {
    let wrong = |what: &str| {
        let problem = format!("would not be the same model as a GGUF file: {what}");
        LoadError::new(&source.path, problem)
    };
    let found = crate::open(written).map_err(|error| wrong(&error.problem))?;
    let mut wanted = match form {
        Some(form) => form.read_back(&source.spec, found.spec.family),
        None => source.spec.clone(),
    };
    if near(&wanted, &found.spec) {
        wanted.ropes.clone_from(&found.spec.ropes);
    }
    if let Some(what) = difference(&wanted, &found.spec) {
        return Err(wrong(&what));
    }
    for probe in PROBES {
        let encode = |files: &ModelFiles| files.text.encode(probe, true);
        match (encode(source), encode(&found)) {
            (Ok(a), Ok(b)) if a == b => {}
            _ => return Err(wrong(&format!("{probe:?} has other tokens"))),
        }
    }
    if source.text.has_chat_template() && !found.text.has_chat_template() {
        return Err(wrong("it has no chat template"));
    }
    Ok(())
}

/// Whether the rotations are the same but for rounding.
fn near(a: &ModelSpec, b: &ModelSpec) -> bool {
    a.ropes.len() == b.ropes.len()
        && a.ropes.iter().zip(&b.ropes).all(|(a, b)| {
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= FREQUENCY * a.abs();
            a.inv_freq.len() == b.inv_freq.len()
                && a.inv_freq.iter().zip(&b.inv_freq).all(close)
                && (a.magnitude - b.magnitude).abs() <= FREQUENCY
                && a.interleaved == b.interleaved
                && a.beyond.is_some() == b.beyond.is_some()
        })
}

/// The first field in which two specs differ, as they are printed.
fn difference(wanted: &ModelSpec, found: &ModelSpec) -> Option<String> {
    if wanted == found {
        return None;
    }
    if wanted.ropes != found.ropes {
        return Some("positions are turned otherwise".to_owned());
    }
    let mut layers = wanted.layers.iter().zip(&found.layers).enumerate();
    if let Some((index, (wanted, found))) = layers.find(|(_, (wanted, found))| wanted != found) {
        let field = field(&format!("{wanted:?}"), &format!("{found:?}"));
        return Some(format!("in layer {index} it would say {field}"));
    }
    Some(format!("it would say {}", field(&format!("{wanted:?}"), &format!("{found:?}"))))
}

fn field(wanted: &str, found: &str) -> String {
    let fields = wanted.split(", ").zip(found.split(", "));
    let differs = fields.into_iter().find(|(wanted, found)| wanted != found);
    let (wanted, found) = differs.unwrap_or((wanted, found));
    format!("`{found}` where the source says `{wanted}`")
}
