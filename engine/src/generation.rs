//! `generation_config.json`: the author's sampling defaults and end tokens.
//!
//! A malformed file is an error rather than ignored: a missing end token makes a model talk on
//! until its limit, and nobody would look here for the reason.

use crate::config::Fields;
use crate::model::GenerationDefaults;
use crate::weights::LoadError;

/// Options of the file that change what is generated and are not done here, with the values that
/// change nothing.
const WITHOUT_EFFECT: [(&str, f64); 13] = [
    ("bad_words_ids", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("diversity_penalty", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("exponential_decay_length_penalty", 0.0),
    ("forced_eos_token_id", -1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beams", 1.0),
    ("suppress_tokens", 0.0),
];

/// What the file says.
#[derive(Default)]
pub(crate) struct Generation {
    pub(crate) defaults: GenerationDefaults,
    pub(crate) eos: Vec<u32>,
    /// Sentences for the operator.
    pub(crate) notes: Vec<String>,
}

/// Reads a whole file.
pub(crate) fn read(file: &Fields) -> Result<Generation, LoadError> {
    let number = |key, least, most| -> Result<Option<f32>, LoadError> {
        Ok(file.number(key, least, most)?.map(|number| number as f32))
    };
    // A top-k of a few published files is -1 or 0, both meaning all tokens.
    let top_k = file.number("top_k", -1.0, f64::from(u32::MAX))?;
    let defaults = GenerationDefaults {
        do_sample: file.flag("do_sample")?,
        temperature: number("temperature", 0.0, 100.0)?,
        top_p: number("top_p", f64::MIN_POSITIVE, 1.0)?,
        top_k: top_k.map(|top_k| top_k.max(0.0) as u32),
        min_p: number("min_p", 0.0, 1.0)?,
        typical_p: number("typical_p", f64::MIN_POSITIVE, 1.0)?,
        repetition_penalty: number("repetition_penalty", 1e-3, 1e3)?,
        max_new_tokens: file.whole("max_new_tokens")?.filter(|&tokens| tokens > 0),
    };
    let mut notes = Vec::new();
    for (key, neutral) in WITHOUT_EFFECT {
        let set = file.get(key).is_some_and(|value| match value {
            serde_json::Value::Bool(on) => *on,
            serde_json::Value::Array(list) => !list.is_empty(),
            other => other.as_f64() != Some(neutral),
        });
        if set {
            notes.push(format!("{}: {key} has no effect here", file.file().display()));
        }
    }
    Ok(Generation { defaults, eos: file.ids("eos_token_id")?, notes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(json: &str) -> Result<Generation, String> {
        let file =
            Fields::parse(Path::new("g.json"), json.as_bytes()).map_err(|e| e.to_string())?;
        read(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_and_ends() {
        let read = parse(
            r#"{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
                "repetition_penalty": 1.05, "eos_token_id": [151645, 151643],
                "min_p": null, "num_beams": 4, "min_length": 0, "transformers_version": "4"}"#,
        )
        .unwrap();
        assert_eq!(read.eos, [151_645, 151_643]);
        assert_eq!(read.defaults.top_k, Some(20));
        assert_eq!(read.defaults.temperature, Some(0.7));
        assert_eq!(read.defaults.min_p, None);
        assert_eq!(read.notes, ["g.json: num_beams has no effect here"]);
    }

    #[test]
    fn malformed_values_name_file_and_field() {
        for (json, field) in [
            (r#"{"top_p": 2}"#, "top_p"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"eos_token_id": [1, -2]}"#, "eos_token_id"),
            (r#"{"do_sample": 1}"#, "do_sample"),
            ("[]", "JSON object"),
            ("{", "valid JSON"),
        ] {
            let problem = parse(json).err().unwrap();
            assert!(problem.starts_with("g.json: ") && problem.contains(field), "{problem}");
        }
    }
}
