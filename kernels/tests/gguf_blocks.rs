//! Dequantized GGUF blocks against gguf-py: random bytes with sane scales, so every pattern of
//! codes, signs and sub-scales occurs. Also through the packed layout of the CPU.

use kernels::cpu::{isa::Isa, matrix::Matrix, pool::Pool};
use kernels::reference::dequant;
use kernels::{Format, MatrixPart, Precision};

const BLOCKS: &[u8] = include_bytes!("data/gguf_blocks/blocks.safetensors");

/// Bytes of a tensor of a safetensors file: length, JSON header, data.
fn tensor(name: &str) -> &'static [u8] {
    let length = u64::from_le_bytes(BLOCKS[..8].try_into().expect("8 bytes")) as usize;
    let (header, data) = BLOCKS[8..].split_at(length);
    let header: serde_json::Value = serde_json::from_slice(header).expect("a JSON header");
    let at = |i: usize| header[name]["data_offsets"][i].as_u64().expect("an offset") as usize;
    &data[at(0)..at(1)]
}

#[test]
fn blocks_are_dequantized_as_gguf_py_does() {
    let formats = [
        ("Q4_0", Format::Q4_0),
        ("Q4_1", Format::Q4_1),
        ("Q5_0", Format::Q5_0),
        ("Q5_1", Format::Q5_1),
        ("Q8_0", Format::Q8_0),
        ("Q2_K", Format::Q2K),
        ("Q3_K", Format::Q3K),
        ("Q4_K", Format::Q4K),
        ("Q5_K", Format::Q5K),
        ("Q6_K", Format::Q6K),
        ("IQ2_XXS", Format::Iq2Xxs),
        ("IQ2_XS", Format::Iq2Xs),
        ("IQ2_S", Format::Iq2S),
        ("IQ3_XXS", Format::Iq3Xxs),
        ("IQ3_S", Format::Iq3S),
        ("IQ1_S", Format::Iq1S),
        ("IQ1_M", Format::Iq1M),
        ("IQ4_NL", Format::Iq4Nl),
        ("IQ4_XS", Format::Iq4Xs),
        ("TQ1_0", Format::Tq1_0),
        ("TQ2_0", Format::Tq2_0),
        ("MXFP4", Format::Mxfp4),
        ("BF16", Format::Bf16),
    ];
    for (name, format) in formats {
        let raw = tensor(&format!("{name}.raw"));
        let wanted: Vec<f32> = tensor(&format!("{name}.f32"))
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let (rows, cols) = (4, wanted.len() / 4);
        assert_eq!(format.name(), name.to_lowercase());
        let part = MatrixPart { format, rows, cols, bytes: raw, order: None };
        let matrix = Matrix::pack(&[part], Precision::Float32, Isa::detect(), &Pool::new(1))
            .expect("a sound matrix");
        let (mut plain, mut packed) = (vec![0.0; cols], vec![0.0; cols]);
        for (r, bytes) in raw.chunks_exact(raw.len() / rows).enumerate() {
            dequant::row(format, bytes, &mut plain);
            matrix.row(r, &mut packed);
            assert_eq!(plain, wanted[r * cols..][..cols], "{name} row {r}");
            assert_eq!(packed, plain, "{name} row {r}, packed");
        }
    }
}
