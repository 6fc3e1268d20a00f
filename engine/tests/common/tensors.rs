//! Reads the reference tensors: the part of safetensors that the fixtures use.

use std::path::Path;

use serde_json::Value;

/// A safetensors file in memory.
pub(crate) struct Tensors {
    header: Value,
    data: Vec<u8>,
}

impl Tensors {
    /// Reads a file of the repository; anything unexpected is a broken fixture and panics.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let (len, rest) = bytes.split_at(8);
        let len = u64::from_le_bytes(len.try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&rest[..len]).expect("a header");
        Self { header, data: rest[len..].to_vec() }
    }

    /// A float32 tensor, flat, row-major.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name, "F32").map(f32::from_le_bytes).collect()
    }

    /// A tensor of 32-bit ids.
    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.words(name, "I32").map(u32::from_le_bytes).collect()
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.get(name).is_some()
    }

    fn words(&self, name: &str, dtype: &str) -> impl Iterator<Item = [u8; 4]> {
        let entry = self.header.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(entry["dtype"], dtype, "{name}");
        let offset = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        let bytes = &self.data[offset(0)..offset(1)];
        bytes.chunks_exact(4).map(|word| word.try_into().unwrap())
    }
}
