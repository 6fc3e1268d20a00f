//! `docs/families.md`: which families run, and which fixtures show it. The page is made from the
//! list of families and from the fixtures that the tests of logits go through, so it cannot say
//! more than they do. `BLESS=1 cargo test -p engine --test families_page` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hearth_tests::fixtures::{reference, references};
use kernels::Format;

#[path = "common/refused.rs"]
mod refused;
use refused::REFUSED;

const HEAD: &str = "\
# Families and formats

Made by `BLESS=1 cargo test -p engine --test families_page`; do not edit.

A model is chosen by `architectures` in its config.json, or by `general.architecture` in a GGUF
file. What is not listed is refused by name, with the nearest that is.

The last column names the fixtures whose logits and hidden states are compared with those of
Hugging Face transformers in float32 in every test run
(`engine/tests/logits.rs`, `engine/tests/families.rs`, `engine/tests/embed.rs`; what they hold:
`tests/data/README.md`). A family without one is read and checked by its configuration only.

| family | config.json | GGUF | compared |
|---|---|---|---|
";

const FORMATS: &str = "
## Formats

Any family can come in any of these. Weights stay in the format they come in; products take it
apart in registers.

| container | what |
|---|---|
| safetensors | F32, F16, BF16, F8_E4M3, F8_E5M2 (widened to F16); one file or shards |
| GPTQ | 2, 3, 4 and 8 bits, groups of multiples of 32 or none, act-order, v1 and v2 zeros |
| AWQ | 4 bits, GEMM packing |
| FP8 | a scale per tensor, channel or block; static or dynamic (activations are not rounded) |
| compressed-tensors | pack-quantized, int-quantized, float-quantized |
| MXFP4 | stacked experts, as gpt-oss is published |
| bitsandbytes | nf4, fp4 (double quantization too), int8 |
| GGUF | versions 2 and 3, split files, all types below |

Types that products take as they are, by their names:

";

/// Folders with a config.json below the archive, with how they are called there.
fn fixtures() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for group in ["", "families", "encoders"] {
        let folder = references().join(group);
        for entry in std::fs::read_dir(&folder).expect("fixtures").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let refused = REFUSED.iter().any(|(refused, _)| *refused == name);
            if path.join("config.json").exists() && !refused {
                found.push((name, path));
            }
        }
    }
    found.sort();
    found
}

fn architecture(folder: &Path) -> String {
    let bytes = std::fs::read(folder.join("config.json")).expect("a config");
    let config: serde_json::Value = serde_json::from_slice(&bytes).expect("json");
    config["architectures"][0].as_str().unwrap_or_default().to_owned()
}

fn page() -> String {
    let mut by_architecture: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, folder) in fixtures() {
        by_architecture.entry(architecture(&folder)).or_default().push(name);
    }
    let mut page = HEAD.to_owned();
    for family in engine::families() {
        let compared: Vec<_> = family
            .architectures
            .iter()
            .filter_map(|name| by_architecture.get(*name))
            .flatten()
            .map(String::as_str)
            .collect();
        let (hub, gguf) = (family.architectures.join(", "), family.gguf.join(", "));
        let _ = writeln!(page, "| {} | {hub} | {gguf} | {} |", family.name, compared.join(", "));
    }
    page.push_str(FORMATS);
    let mut names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
    names.dedup();
    let _ = writeln!(page, "{}", names.join(", "));
    page
}

#[test]
fn the_page_says_what_the_tests_show() {
    assert!(reference("llama_gqa").exists(), "fixtures are there");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/families.md");
    let page = page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let how = "BLESS=1 cargo test -p engine --test families_page";
    assert_eq!(found, page, "{} is out of date: {how}", path.display());
}
