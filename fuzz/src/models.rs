//! Files of models: the headers of GGUF and safetensors, and config.json. Whoever serves a model
//! has its files from strangers. A model opens, or an error names the file and says why; what it
//! says of its tensors lies within the file.

use std::path::Path;
use std::sync::OnceLock;

use engine::LoadError;
use engine::open::open_weights;

use crate::loading_kit::{Folder, fixture, with_header};

/// What stands behind a header, so that tensors of small models have their data.
const DATA_BYTES: usize = 256 << 10;

/// A folder of this process, with copies of the named files of a fixture.
fn folder(name: &str, files: &[&str]) -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    // A run has one target, and so one folder.
    FOLDER.get_or_init(|| Folder::copy_of(name, files))
}

/// Opens a file or a folder, and looks at the ends of all tensors.
fn open(folder: &Path, path: &Path) {
    let attempt = || {
        let model = open_weights(path)?;
        for need in model.spec.tensors() {
            let view = model.weights.tensor(need.role, need.rows, need.cols)?;
            assert_eq!(view.bytes.len(), view.rows * view.format.row_bytes(view.cols));
            std::hint::black_box((view.bytes.first(), view.bytes.last()));
            if need.role.is_vector() {
                model.weights.vector(need.role, need.cols)?;
            }
        }
        Ok::<_, LoadError>(())
    };
    if let Err(error) = attempt() {
        assert!(error.file.starts_with(folder), "{error}");
        assert!(error.problem.len() > 8 && error.problem.len() < 2000, "{error}");
    }
}

/// A GGUF file: its header, and zeros behind it.
pub fn gguf(header: &[u8]) {
    let folder = folder("llama_gqa", &[]);
    let file = [header, &vec![0; DATA_BYTES]].concat();
    open(&folder.0, &folder.write("m.gguf", file));
}

/// A safetensors file of a known model: the text of its header, and zeros behind it.
pub fn safetensors(header: &[u8]) {
    let folder = folder("llama_gqa", &["config.json"]);
    let header = String::from_utf8_lossy(header);
    folder.write("model.safetensors", with_header(&header, &vec![0; DATA_BYTES]));
    open(&folder.0, &folder.0);
}

/// The configuration beside a model's weights.
pub fn model_config(text: &[u8]) {
    let folder = folder("llama_gqa", &["model.safetensors"]);
    folder.write("config.json", text);
    open(&folder.0, &folder.0);
}

/// Headers of GGUF files.
pub(crate) fn gguf_seeds() -> Vec<Vec<u8>> {
    let header = |arch: &&str| {
        let (mut bytes, header) = crate::loading_kit::Gguf::tiny(arch).bytes();
        bytes.truncate(header);
        bytes
    };
    ["llama", "qwen2", "qwen3", "gemma3", "phi3", "bert"].iter().map(header).collect()
}

/// Headers of safetensors files, and configurations.
pub(crate) fn folder_seeds(configs: bool) -> Vec<Vec<u8>> {
    let names = [
        "llama_gqa",
        "phi3_longrope",
        "llama_gptq_w4g128",
        "llama_awq_w4g128",
        "llama_fp8_block",
        "llama_ct_int4",
        "bert_rerank",
        "qwen3_embed_last",
    ];
    let read = |name: &&str| {
        if configs {
            return std::fs::read(fixture(name).join("config.json")).expect("a file of tests");
        }
        let file = std::fs::read(fixture(name).join("model.safetensors")).expect("a file of tests");
        let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
        file[8..8 + usize::try_from(length).expect("small")].to_vec()
    };
    names.iter().map(read).collect()
}
