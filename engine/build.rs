//! Unpacks the demo model's weights, which the library embeds. In the repository they lie in two
//! planes, first bytes and second bytes, under zstd: a third smaller.

use std::env;
use std::fs;
use std::io::Read as _;
use std::path::Path;

const PACKED: &str = "models/demo/model.safetensors.planes2.zst";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PACKED}");
    let packed = fs::read(PACKED).unwrap_or_else(|error| panic!("{PACKED}: {error}"));
    let mut planes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(&packed[..])
        .expect("a zstd frame")
        .read_to_end(&mut planes)
        .expect("a whole frame");
    let (first, second) = planes.split_at(planes.len() / 2);
    let weights: Vec<u8> = first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).collect();
    assert_eq!(weights.len(), planes.len(), "numbers of two bytes");
    let out = env::var_os("OUT_DIR").expect("cargo names a folder");
    fs::write(Path::new(&out).join("model.safetensors"), weights).expect("written");
}
