//! Files for the loading tests: fixtures, folders that clean up after themselves, and writers of
//! small safetensors and GGUF files that can be wrong on purpose.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use engine::open::Wordless;
pub(crate) use hearth_tests::fixtures::reference as fixture;
use serde_json::{Value, json};

/// A folder that is removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hearth-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With copies of the named files of a fixture.
    pub(crate) fn copy_of(name: &str, files: &[&str]) -> Self {
        let folder = Self::new();
        for file in files {
            fs::copy(fixture(name).join(file), folder.0.join(file)).unwrap();
        }
        folder
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind if it fails, which harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The error of an attempt, for the kind of result that has no `Debug`.
pub(crate) fn error_of(result: Result<Wordless, engine::LoadError>) -> String {
    match result {
        Ok(model) => panic!("opened a {} model", model.spec.family),
        Err(error) => error.to_string(),
    }
}

/// A tensor of a safetensors file: name, type, shape, data.
pub(crate) type Tensor = (String, String, Vec<u64>, Vec<u8>);

/// The tensors of a safetensors file.
pub(crate) fn read_safetensors(path: &Path) -> Vec<Tensor> {
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(header);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let tensor = |(name, entry): (String, Value)| {
        let number = |value: &Value| value.as_u64().unwrap();
        let place = [0, 1].map(|i| number(&entry["data_offsets"][i]) as usize);
        let shape = entry["shape"].as_array().unwrap().iter().map(number).collect();
        let dtype = entry["dtype"].as_str().unwrap().to_owned();
        (name, dtype, shape, data[place[0]..place[1]].to_vec())
    };
    tensors.map(tensor).collect()
}

/// A safetensors file.
pub(crate) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

/// A safetensors file with any header.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// A value of a GGUF header.
#[derive(Clone)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    U32s(Vec<u32>),
}

/// A GGUF file to be written.
#[derive(Clone)]
pub(crate) struct Gguf {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) keys: Vec<(String, Meta)>,
    /// Name, dimensions innermost first, type number, data.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
    pub(crate) alignment: usize,
}

impl Gguf {
    /// A model of one layer in f32: hidden 8, two heads of 4, one of keys, width 6, 5 tokens.
    pub(crate) fn tiny(arch: &str) -> Self {
        let mut keys = vec![("general.architecture".to_owned(), Meta::Text(arch.to_owned()))];
        for (name, value) in [
            ("context_length", 64),
            ("embedding_length", 8),
            ("block_count", 1),
            ("feed_forward_length", 6),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            keys.push((format!("{arch}.{name}"), Meta::U32(value)));
        }
        keys.push((format!("{arch}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-5)));
        keys.push(("tokenizer.ggml.model".to_owned(), Meta::Text("gpt2".to_owned())));
        let tokens = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        keys.push(("tokenizer.ggml.tokens".to_owned(), Meta::Texts(tokens)));
        keys.push(("tokenizer.ggml.merges".to_owned(), Meta::Texts(Vec::new())));
        keys.push(("tokenizer.ggml.eos_token_id".to_owned(), Meta::U32(4)));
        let mut file =
            Self { magic: *b"GGUF", version: 3, keys, tensors: Vec::new(), alignment: 32 };
        let shapes: [(&str, &[u64]); 11] = [
            ("token_embd", &[8, 5]),
            ("output_norm", &[8]),
            ("blk.0.attn_norm", &[8]),
            ("blk.0.attn_q", &[8, 8]),
            ("blk.0.attn_k", &[8, 4]),
            ("blk.0.attn_v", &[8, 4]),
            ("blk.0.attn_output", &[8, 8]),
            ("blk.0.ffn_norm", &[8]),
            ("blk.0.ffn_gate", &[8, 6]),
            ("blk.0.ffn_up", &[8, 6]),
            ("blk.0.ffn_down", &[6, 8]),
        ];
        for (name, dims) in shapes {
            file.add_f32(&format!("{name}.weight"), dims);
        }
        file
    }

    pub(crate) fn add_f32(&mut self, name: &str, dims: &[u64]) {
        let count = dims.iter().product::<u64>();
        let data = (0..count).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), dims.to_vec(), 0, data));
    }

    pub(crate) fn set(&mut self, key: &str, value: Meta) {
        self.keys.retain(|(name, _)| name != key);
        self.keys.push((key.to_owned(), value));
    }

    /// The file and the length of its header.
    pub(crate) fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key);
            meta(&mut out, value);
        }
        let mut offset = 0;
        for (name, dims, kind, data) in &self.tensors {
            text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            out.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += data.len().next_multiple_of(self.alignment);
        }
        let header = out.len();
        for (_, _, _, data) in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(data);
        }
        (out, header)
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn meta(out: &mut Vec<u8>, value: &Meta) {
    let mut kind = |number: u32| out.extend(number.to_le_bytes());
    match value {
        Meta::U32(number) => {
            kind(4);
            out.extend(number.to_le_bytes());
        }
        Meta::F32(number) => {
            kind(6);
            out.extend(number.to_le_bytes());
        }
        Meta::Bool(flag) => {
            kind(7);
            out.push(u8::from(*flag));
        }
        Meta::Text(string) => {
            kind(8);
            text(out, string);
        }
        Meta::Texts(list) => {
            kind(9);
            out.extend(8_u32.to_le_bytes());
            out.extend((list.len() as u64).to_le_bytes());
            list.iter().for_each(|item| text(out, item));
        }
        Meta::U32s(list) => {
            kind(9);
            out.extend(4_u32.to_le_bytes());
            out.extend((list.len() as u64).to_le_bytes());
            out.extend(list.iter().flat_map(|item| item.to_le_bytes()));
        }
    }
}
