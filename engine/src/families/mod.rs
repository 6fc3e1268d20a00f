//! Families of models: each turns a config.json or a GGUF header into a [`ModelSpec`], and says
//! where its files keep the tensors.
//!
//! One file per family and one line in [`FAMILIES`]; `docs/add-a-model.md` walks through one. What
//! they share is in `hub` (config.json), `header` (GGUF), `decoder` (assembly), `experts`, `names`
//! and `rope`. Nothing here reads weights or runs anything.

use crate::config::Fields;
use crate::spec::{ModelSpec, Role};
use crate::weights::gguf::Gguf;
use crate::weights::{LoadError, Source, shown};

use header::Header;

mod arcee;
mod bert;
mod cohere;
mod cohere2;
mod decoder;
mod deepseek2;
mod deepseek3;
mod distilbert;
mod ernie45;
mod exaone4;
mod experts;
mod gemma;
mod gemma2;
mod gemma3;
mod glm;
mod glm4;
mod glm4_moe;
mod gpt_oss;
mod granite;
mod granite_moe;
mod header;
mod header_rope;
mod hub;
mod keys;
mod llama;
mod mistral;
mod mixtral;
mod modernbert;
mod names;
mod nemotron;
mod nomic_bert;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod rope;
mod rope_read;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

/// One family and how its files name it.
struct Family {
    /// For people.
    name: &'static str,
    /// `architectures` in config.json.
    architectures: &'static [&'static str],
    /// `model_type` in config.json.
    model_types: &'static [&'static str],
    /// `general.architecture` in GGUF.
    gguf: &'static [&'static str],
    /// Published files name code of their own (`auto_map`) although this computes the same.
    own_code: bool,
    from_config: fn(&Fields) -> Result<ModelSpec, LoadError>,
    from_header: fn(&Header<'_>) -> Result<ModelSpec, LoadError>,
    /// Where a Hugging Face checkpoint of this family keeps a tensor, below one of `prefixes`;
    /// `None`: where most do.
    hub_source: Names,
    /// Where a GGUF file of this family keeps a tensor; `None`: where most do.
    gguf_source: Names,
    /// What may stand before the names in a checkpoint (not before the head's).
    prefixes: &'static [&'static str],
    /// Whether a tensor that nothing computes with may stand in a checkpoint.
    spare: Spare,
}

/// Where a family's files keep the tensor of a role, if not at the usual place.
pub(crate) type Names = fn(&ModelSpec, Role) -> Option<Source>;

/// Whether published checkpoints hold a tensor, by its whole name, that the spec has no use for.
pub(crate) type Spare = fn(&ModelSpec, &str) -> bool;

/// Where most families differ from nothing.
const USUAL: Family = Family {
    name: "",
    architectures: &[],
    model_types: &[],
    gguf: &[],
    own_code: false,
    from_config: |config| Err(config.wrong("architectures", "is not read from a config.json")),
    from_header: |header| Err(header.wrong("block_count", "is not read from a GGUF header")),
    hub_source: |_, _| None,
    gguf_source: |_, _| None,
    prefixes: &["model.", ""],
    spare: |_, _| false,
};

const FAMILIES: [&Family; 38] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &mixtral::FAMILY,
    &qwen2::FAMILY,
    &qwen2_moe::FAMILY,
    &qwen3::FAMILY,
    &qwen3_moe::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi::FAMILY,
    &phi3::FAMILY,
    &olmo2::FAMILY,
    &olmo3::FAMILY,
    &olmoe::FAMILY,
    &granite::FAMILY,
    &granite_moe::FAMILY,
    &smollm3::FAMILY,
    &stablelm::FAMILY,
    &starcoder2::FAMILY,
    &cohere::FAMILY,
    &cohere2::FAMILY,
    &glm::FAMILY,
    &glm4::FAMILY,
    &glm4_moe::FAMILY,
    &deepseek2::FAMILY,
    &deepseek3::FAMILY,
    &gpt_oss::FAMILY,
    &arcee::FAMILY,
    &seed_oss::FAMILY,
    &ernie45::FAMILY,
    &exaone4::FAMILY,
    &nemotron::FAMILY,
    &bert::BERT,
    &bert::ROBERTA,
    &distilbert::FAMILY,
    &nomic_bert::FAMILY,
    &modernbert::FAMILY,
];

/// How a family is named, for people and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyNames {
    /// For people.
    pub name: &'static str,
    /// `architectures` in config.json.
    pub architectures: &'static [&'static str],
    /// `general.architecture` in GGUF.
    pub gguf: &'static [&'static str],
}

/// All families that run here, in the order of their list.
pub fn families() -> impl Iterator<Item = FamilyNames> {
    FAMILIES.into_iter().map(|family| {
        let Family { name, architectures, gguf, .. } = *family;
        FamilyNames { name, architectures, gguf }
    })
}

/// What a model's configuration describes.
pub(crate) struct Described {
    /// What it computes.
    pub(crate) spec: ModelSpec,
    /// See [`Family::hub_source`].
    pub(crate) hub_source: Names,
    /// See [`Family::gguf_source`].
    pub(crate) gguf_source: Names,
    /// See [`Family::prefixes`].
    pub(crate) prefixes: &'static [&'static str],
    /// See [`Family::spare`].
    pub(crate) spare: Spare,
    /// What in the file has no effect here, for the operator.
    pub(crate) notes: Vec<String>,
}

/// What a folder's config.json describes.
///
/// # Errors
/// The family is not supported, or the file asks for something that is not computed here.
pub(crate) fn from_config(config: &Fields) -> Result<Described, LoadError> {
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
        (Some(name), _) => find(name, |family| family.architectures)
            .map_err(|problem| config.wrong("architectures", &problem))?,
        (None, Some(name)) => find(name, |family| family.model_types)
            .map_err(|problem| config.wrong("model_type", &problem))?,
        (None, None) => return Err(config.wrong("architectures", "is missing")),
    };
    if let Some(found) = model_type.filter(|found| !family.model_types.contains(found)) {
        let (found, wanted) = (shown(found), family.model_types.join(" or "));
        let problem = format!("is {found}, but the architecture's is {wanted}");
        return Err(config.wrong("model_type", &problem));
    }
    keys::refuse_foreign(config, family.own_code)?;
    let spec = (family.from_config)(config)?;
    let notes = keys::unasked(config, family.name)?;
    Ok(family.describe(spec, notes))
}

/// What a GGUF header describes.
///
/// # Errors
/// As [`from_config`].
pub(crate) fn from_header(gguf: &Gguf) -> Result<Described, LoadError> {
    let name = gguf.need_text("general.architecture")?;
    let family = find(name, |family| family.gguf)
        .map_err(|problem| gguf.wrong("general.architecture", &problem))?;
    let header = Header::new(gguf);
    let spec = (family.from_header)(&header)?;
    header.refuse_unasked()?;
    Ok(family.describe(spec, Vec::new()))
}

/// Where the GGUF files of an architecture keep a tensor, if not at the usual place.
pub(crate) fn gguf_names(arch: &str) -> Option<Names> {
    let family = FAMILIES.into_iter().find(|family| family.gguf.contains(&arch));
    family.map(|family| family.gguf_source)
}

impl Family {
    fn describe(&self, spec: ModelSpec, notes: Vec<String>) -> Described {
        let Self { hub_source, gguf_source, prefixes, spare, .. } = *self;
        Described { spec, hub_source, gguf_source, prefixes, spare, notes }
    }
}

fn find(
    name: &str,
    spelled: fn(&Family) -> &'static [&'static str],
) -> Result<&'static Family, String> {
    if let Some(family) = FAMILIES.into_iter().find(|family| spelled(family).contains(&name)) {
        return Ok(family);
    }
    let known: Vec<_> = FAMILIES.into_iter().flat_map(spelled).copied().collect();
    let names: Vec<_> = FAMILIES.into_iter().map(|family| family.name).collect();
    let nearest = known.iter().map(|known| (distance(stem(name), stem(known)), known)).min();
    // A family further away than half of its name is no help to anybody.
    let hint = match nearest {
        Some((edits, known)) if 2 * edits <= stem(name).len() => format!(" (nearest is {known})"),
        _ => String::new(),
    };
    Err(format!("{} is not supported{hint}; families: {}", shown(name), names.join(", ")))
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
    use std::path::Path;

    use super::*;

    #[test]
    fn an_unknown_family_names_the_nearest() {
        let problem = find("Qwen3NextForCausalLM", |family| family.architectures).err().unwrap();
        assert!(problem.contains("nearest is Qwen3ForCausalLM)"), "{problem}");
        let problem = find("llama4", |family| family.gguf).err().unwrap();
        assert!(problem.contains("nearest is llama)"), "{problem}");
        let problem = find("Wav2Vec2", |family| family.architectures).err().unwrap();
        assert!(problem.starts_with("Wav2Vec2 is not supported; families: llama"), "{problem}");
    }

    fn read(json: &str) -> Result<Described, String> {
        let config = Fields::parse(Path::new("config.json"), json.as_bytes()).unwrap();
        from_config(&config).map_err(|error| error.problem)
    }

    /// A configuration with these fields changed or added, and what has to hold of its spec.
    fn check(architecture: &str, fields: &str, expect: fn(&ModelSpec) -> bool) {
        let json = format!(
            r#"{{"architectures": ["{architecture}"], "vocab_size": 96, "hidden_size": 32,
                "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48{fields}}}"#
        );
        let read = read(&json).unwrap_or_else(|problem| panic!("{architecture}: {problem}"));
        assert!(expect(&read.spec), "{architecture} {fields}: {:?}", read.spec);
        assert_eq!(read.notes, [""; 0], "{architecture} {fields}");
    }

    fn windowed(spec: &ModelSpec) -> Vec<bool> {
        spec.layers.iter().map(|layer| layer.attention.window.is_some()).collect()
    }

    /// What an absent field means is a family's own.
    #[test]
    fn absent_fields_mean_what_the_familys_class_says() {
        let tied = |spec: &ModelSpec| spec.head.is_some_and(|head| head.tied);
        let untied = |spec: &ModelSpec| spec.head.is_some_and(|head| !head.tied);
        for name in ["Gemma", "Cohere", "SmolLM3", "Starcoder2", "Ernie4_5"] {
            check(&format!("{name}ForCausalLM"), r#", "num_key_value_heads": 2"#, tied);
        }
        for name in ["Llama", "Mistral", "Qwen2", "Phi3", "Olmo2", "Granite"] {
            check(&format!("{name}ForCausalLM"), r#", "num_key_value_heads": 2"#, untied);
        }
        check("LlamaForCausalLM", "", |spec| spec.layers[0].attention.kv_heads == 4);
        check("LlamaForCausalLM", r#", "tie_word_embeddings": true"#, tied);
        let two = r#", "num_key_value_heads": 2"#;
        check("Gemma2ForCausalLM", two, |spec| windowed(spec) == [true, false, true, false]);
        check("Olmo3ForCausalLM", two, |spec| windowed(spec) == [true, true, true, false]);
        check("MistralForCausalLM", two, |spec| windowed(spec) == [true; 4]);
        let none = r#", "num_key_value_heads": 2, "sliding_window": null"#;
        check("MistralForCausalLM", none, |spec| windowed(spec) == [false; 4]);
    }

    #[test]
    fn code_of_its_own_is_refused_where_it_could_differ() {
        let with = |architecture: &str| {
            read(&format!(
                r#"{{"architectures": ["{architecture}"], "vocab_size": 96, "hidden_size": 32,
                    "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48,
                    "auto_map": {{"AutoModelForCausalLM": "modeling.Model"}}}}"#
            ))
        };
        assert!(with("Phi3ForCausalLM").is_ok());
        let problem = with("LlamaForCausalLM").err().unwrap();
        assert!(problem.contains("auto_map.AutoModelForCausalLM"), "{problem}");
    }

    #[test]
    fn the_two_names_of_a_model_have_to_agree() {
        let problem = read(r#"{"architectures": ["LlamaForCausalLM"], "model_type": "qwen2"}"#);
        assert!(problem.err().unwrap().contains("model_type: is qwen2"));
        let kimi = r#"{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2"}"#;
        assert!(read(kimi).err().unwrap().contains("hidden_size: is missing"));
    }

    /// Two families of one name would hide the second.
    #[test]
    fn no_name_means_two_families() {
        let spellings: [fn(&Family) -> &'static [&'static str]; 3] =
            [|family| family.architectures, |family| family.model_types, |family| family.gguf];
        for spelled in spellings {
            let mut names: Vec<_> = FAMILIES.into_iter().flat_map(spelled).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }
}
