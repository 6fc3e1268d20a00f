//! Hostile files: seeded mutations of every kind of file that is parsed. Whatever the bytes, the
//! outcome is a model or an error that names a file and a reason; never a panic, and never more
//! memory than the file's own size plus a constant.

mod loading_kit;

use std::fs;
use std::path::Path;

use engine::open::open_weights;
use hearth_tests::memory::{Counting, peak_of};
use hearth_tests::simulation::random::Random;
use loading_kit::{Folder, Gguf, Meta, fixture, read_safetensors, safetensors};

/// What opening may take beside the size of the files: error texts, paths, the spec of up to a
/// thousand layers, JSON values of a small file.
const SLACK: usize = 1 << 20;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens a path of `folder` and holds the outcome to what this file promises.
fn check(folder: &Path, path: &Path, what: &str) -> bool {
    let entries = fs::read_dir(folder).unwrap();
    let size: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    let attempt = || {
        let model = open_weights(path)?;
        for need in model.spec.tensors() {
            let view = model.weights.tensor(need.role, need.rows, need.cols)?;
            assert_eq!(view.bytes.len(), view.rows * view.format.row_bytes(view.cols), "{what}");
            // Touches the ends: they must lie in the mapping.
            std::hint::black_box((view.bytes.first(), view.bytes.last()));
            if need.role.is_vector() {
                model.weights.vector(need.role, need.cols)?;
            }
        }
        Ok::<_, engine::LoadError>(())
    };
    let run = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
    let (outcome, peak) = peak_of(run);
    let limit = size as usize + SLACK;
    assert!(peak <= limit, "{what}: {peak} bytes held, the files have {size}");
    match outcome {
        Err(_) => panic!("{what}: panicked"),
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            assert!(error.file.starts_with(folder), "{what}: {error}");
            assert!(error.problem.len() > 8 && error.problem.len() < 2000, "{what}: {error}");
            false
        }
    }
}

/// One change somewhere in the first `reach` bytes.
fn mutate(bytes: &mut Vec<u8>, reach: usize, random: &mut Random) {
    const ABSURD: [u64; 10] =
        [0, 1, 7, 0x7f, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, i64::MAX as u64, u64::MAX];
    let at = random.index(reach.min(bytes.len()).max(1));
    let absurd = ABSURD[random.index(ABSURD.len())];
    match random.index(6) {
        0 => bytes[at] ^= 1 << random.index(8),
        1 => bytes[at] = random.bits() as u8,
        2 => bytes.truncate(at),
        3 => {
            let word = absurd.to_le_bytes();
            let len = if random.index(2) == 0 { 4 } else { 8 };
            let end = (at + len).min(bytes.len());
            bytes[at..end].copy_from_slice(&word[..end - at]);
        }
        4 => {
            let len = random.index(24).min(bytes.len() - at);
            bytes.drain(at..at + len);
        }
        _ => {
            let len = random.index(24).min(bytes.len() - at);
            let piece = bytes[at..at + len].to_vec();
            bytes.splice(at..at, piece);
        }
    }
    if bytes.is_empty() {
        bytes.push(0);
    }
}

#[test]
fn gguf_headers() {
    let folder = Folder::new();
    let (tiny, tiny_header) = Gguf::tiny("llama").bytes();
    let published = fs::read(fixture("gguf_llama/llama-q4_k_m.gguf")).unwrap();
    let mut opened = 0;
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        // The large file is written less often: it takes a thousand times as long.
        let (mut bytes, header) = match seed % 20 {
            0 => (published.clone(), 9421),
            _ => (tiny.clone(), tiny_header),
        };
        for _ in 0..=random.index(3) {
            mutate(&mut bytes, header, &mut random);
        }
        let path = folder.write("m.gguf", &bytes);
        opened += usize::from(check(&folder.0, &path, &format!("seed {seed}")));
    }
    assert!((30..2000).contains(&opened), "{opened}: mutations should neither all nor never show");
}

#[test]
fn truncated_gguf_never_opens() {
    let folder = Folder::new();
    let (bytes, _) = Gguf::tiny("llama").bytes();
    for len in 1..bytes.len() {
        let path = folder.write("m.gguf", &bytes[..len]);
        assert!(!check(&folder.0, &path, &format!("{len} bytes")));
    }
    let path = folder.write("m.gguf", &bytes);
    assert!(check(&folder.0, &path, "whole"));
}

#[test]
fn safetensors_headers() {
    let folder = Folder::copy_of("llama_gqa", &["config.json"]);
    let whole = fs::read(fixture("llama_gqa/model.safetensors")).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let mut bytes = whole.clone();
        let reach = if seed % 4 == 0 { 8 } else { header };
        mutate(&mut bytes, reach, &mut random);
        folder.write("model.safetensors", &bytes);
        check(&folder.0, &folder.0, &format!("seed {seed}"));
    }
    for len in (1..header).step_by(97).chain([8, 9, header, header + 1, whole.len() - 1]) {
        folder.write("model.safetensors", &whole[..len]);
        assert!(!check(&folder.0, &folder.0, &format!("{len} bytes")));
    }
    // Long lists and long names, where a naive reader would reserve what they claim.
    for (open, item) in
        [(r#"{"a":["#, "0,"), (r#"{"a":{"shape":["#, "0,"), ("[", "["), ("{\"", "a")]
    {
        let header = format!("{open}{}", item.repeat(1 << 18));
        folder.write("model.safetensors", loading_kit::with_header(&header, &[]));
        assert!(!check(&folder.0, &folder.0, open));
    }
}

#[test]
fn indexes() {
    let folder = Folder::copy_of("llama_gqa", &["config.json"]);
    let tensors = read_safetensors(&fixture("llama_gqa/model.safetensors"));
    let shard = "model-00001-of-00001.safetensors";
    folder.write(shard, safetensors(&tensors));
    let map: serde_json::Map<_, _> =
        tensors.iter().map(|tensor| (tensor.0.clone(), shard.into())).collect();
    let whole = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let mut bytes = whole.clone().into_bytes();
        mutate(&mut bytes, whole.len(), &mut random);
        folder.write("model.safetensors.index.json", &bytes);
        check(&folder.0, &folder.0, &format!("seed {seed}"));
    }
}

#[test]
fn configurations() {
    for file in ["config.json", "generation_config.json"] {
        let names = ["config.json", "generation_config.json", "model.safetensors"];
        let folder = Folder::copy_of("phi3_longrope", &names);
        let whole = fs::read(fixture("phi3_longrope").join(file)).unwrap();
        for seed in 0..1500 {
            let mut random = Random::new(seed);
            let mut bytes = whole.clone();
            if seed % 2 == 0 {
                replace_value(&mut bytes, &mut random);
            } else {
                mutate(&mut bytes, whole.len(), &mut random);
            }
            folder.write(file, &bytes);
            check(&folder.0, &folder.0, &format!("{file}, seed {seed}"));
        }
        let rows = ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 17), "0".repeat(1 << 19)];
        let lists = ["[0", "{\"a\":[{}", "{\"eos_token_id\":[0"]
            .map(|open| format!("{open}{}", ",0".repeat(1 << 18)));
        for garbage in rows.iter().chain(&lists) {
            folder.write(file, garbage);
            assert!(!check(&folder.0, &folder.0, &garbage[..8]), "{file}");
        }
    }
}

/// Quantized checkpoints: settings, headers, and the data that says how the rest is read.
#[test]
fn quantized_checkpoints() {
    for (name, seeds) in [
        ("llama_gptq_w4g128", 300),
        ("llama_awq_w4g128", 150),
        ("llama_fp8_block", 150),
        ("llama_ct_int4", 300),
    ] {
        let folder = Folder::copy_of(name, &["config.json", "model.safetensors"]);
        let config = fs::read(fixture(name).join("config.json")).unwrap();
        let settings = find(&config, b"quantization_config");
        let weights = fs::read(fixture(name).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize + 8;
        let mut opened = 0;
        for seed in 0..seeds {
            let mut random = Random::new(seed);
            let (mut config, mut weights) = (config.clone(), weights.clone());
            match seed % 3 {
                0 => {
                    let mut end = config.split_off(settings);
                    let reach = find(&end, b"}").max(1);
                    mutate(&mut end, reach, &mut random);
                    config.extend(end);
                }
                1 => mutate(&mut weights, header, &mut random),
                _ => {
                    let at = header + random.index(weights.len() - header - 64);
                    weights[at..at + 64].fill(random.bits() as u8);
                }
            }
            folder.write("config.json", config);
            folder.write("model.safetensors", weights);
            opened += usize::from(check(&folder.0, &folder.0, &format!("{name}, seed {seed}")));
        }
        assert!((1..seeds as usize).contains(&opened), "{name}: {opened} of {seeds} opened");
    }
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("it is there")
}

#[test]
fn split_gguf_headers() {
    let folder = Folder::new();
    let mut first = Gguf::tiny("llama");
    let mut second = Gguf { keys: Vec::new(), tensors: Vec::new(), ..first.clone() };
    second.tensors = first.tensors.split_off(5);
    for (number, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.set("split.no", Meta::U32(number as u32));
        part.set("split.count", Meta::U32(2));
        part.set("split.tensors.count", Meta::U32(11));
    }
    let parts = [first.bytes(), second.bytes()];
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let mut opened = 0;
    for seed in 0..1000 {
        let mut random = Random::new(seed);
        let mut bytes = parts.clone().map(|(bytes, _)| bytes);
        let part = random.index(2);
        mutate(&mut bytes[part], parts[part].1, &mut random);
        for (name, bytes) in names.iter().zip(&bytes) {
            folder.write(name, bytes);
        }
        let path = folder.0.join(names[random.index(2)]);
        opened += usize::from(check(&folder.0, &path, &format!("seed {seed}")));
    }
    assert!((30..970).contains(&opened), "{opened} opened");
}

/// Puts something else in the place of one value of a flat JSON file.
fn replace_value(bytes: &mut Vec<u8>, random: &mut Random) {
    const VALUES: [&str; 16] = [
        "0",
        "1",
        "-1",
        "3",
        "1e308",
        "-0.0",
        "1e-320",
        "18446744073709551615",
        "4294967296",
        "\"\"",
        "\"yarn\"",
        "[]",
        "[370, 1e9]",
        "{}",
        "null",
        "true",
    ];
    let colons: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b':').collect();
    let start = colons[random.index(colons.len())] + 1;
    let end = bytes[start..].iter().position(|&byte| byte == b'\n').unwrap() + start;
    let comma = usize::from(bytes[end - 1] == b',');
    let value = VALUES[random.index(VALUES.len())];
    bytes.splice(start..end - comma, value.bytes());
}

/// Opening reads headers only: a file of 6 GB (with holes) takes no memory worth mentioning.
#[test]
fn opening_reads_no_weights() {
    let folder = Folder::new();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 16384, "vocab_size": 131_072,
        "num_hidden_layers": 1, "num_attention_heads": 128, "num_key_value_heads": 8,
        "intermediate_size": 53_248, "tie_word_embeddings": true,
    });
    let path = folder.write("config.json", config.to_string());
    let spec = engine::open::spec_of_config(&path).unwrap();
    let (mut header, mut end) = (serde_json::Map::new(), 0_u64);
    for (need, name) in spec.tensors().iter().zip([
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
    ]) {
        let start = end;
        end += 2 * (need.rows * need.cols) as u64;
        let matrix = [need.rows, need.cols];
        let shape = if need.role.is_vector() { &matrix[1..] } else { &matrix[..] };
        let entry =
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), entry);
    }
    let bytes = loading_kit::with_header(&serde_json::Value::Object(header).to_string(), &[]);
    let path = folder.write("model.safetensors", &bytes);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64 + end).unwrap();
    let (model, peak) = peak_of(|| open_weights(&folder.0).unwrap());
    assert_eq!(model.weight_bytes, end);
    assert!(end > 6_000_000_000 && peak < 64 << 10, "{peak} bytes held for {end}");
}
