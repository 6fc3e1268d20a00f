//! What is not supported is refused by name, and what is damaged says where: never ignored.

mod loading_kit;

use std::fs;

use engine::open::open_weights;
use loading_kit::{
    Folder, Gguf, Meta, error_of, fixture, read_safetensors, safetensors, with_header,
};
use serde_json::{Value, json};

/// Opens a fixture with some fields of its config.json replaced (null removes them).
fn with_config(name: &str, changes: &Value) -> String {
    let folder = Folder::copy_of(name, &["model.safetensors"]);
    let config = fs::read(fixture(name).join("config.json")).unwrap();
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&config).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config.insert(key.clone(), value.clone());
        if value == "absent" {
            config.shift_remove(key);
        }
    }
    folder.write("config.json", Value::Object(config).to_string());
    match open_weights(&folder.0) {
        Ok(_) => "opened".to_owned(),
        Err(error) => {
            assert!(error.file.starts_with(&folder.0), "{error}");
            let name = error.file.file_name().unwrap().to_string_lossy().into_owned();
            format!("{name}: {}", error.problem)
        }
    }
}

#[test]
fn options_that_change_the_computation() {
    for (fixture, change, wanted) in [
        ("llama_gqa", json!({"hidden_act": "gelu"}), "opened"),
        ("llama_gqa", json!({"architectures": ["Qwen2XForCausalLM"]}), "nearest is Qwen2For"),
        ("llama_gqa", json!({"architectures": ["A", "B"]}), "names 2 architectures"),
        (
            "llama_gqa",
            json!({"model_type": "qwen2"}),
            "model_type: is qwen2, but the architecture's is llama",
        ),
        (
            "llama_gqa",
            json!({"architectures": null, "model_type": "mixtral"}),
            "num_local_experts: is missing",
        ),
        ("llama_gqa", json!({"architectures": null}), "opened"),
        (
            "llama_gqa",
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "quantization_config.bits: is missing",
        ),
        ("llama_gqa", json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "opened"),
        ("llama_gqa", json!({"logits_scaling": 8.0}), "logits_scaling: values other than 1"),
        ("llama_gqa", json!({"logits_scaling": 1.0}), "opened"),
        ("llama_gqa", json!({"num_local_experts": 8}), "num_local_experts: this option"),
        ("llama_gqa", json!({"sliding_window": 128}), "sliding_window: this family"),
        ("llama_gqa", json!({"layer_types": ["full_attention"]}), "has 1 entries for 3 layers"),
        (
            "llama_gqa",
            json!({"auto_map": {"AutoModelForCausalLM": "x.Y"}}),
            "the model brings code of its own",
        ),
        ("llama_gqa", json!({"mlp_bias": true}), "gate_proj.bias is missing"),
        ("llama_bias", json!({"attention_bias": false}), "k_proj.bias has no place in a llama"),
        ("llama_gqa", json!({"tie_word_embeddings": true}), "opened"),
        ("llama_tied", json!({"tie_word_embeddings": "absent"}), "lm_head.weight is missing"),
        ("llama_gqa", json!({"num_hidden_layers": 2}), "layers.2.input_layernorm.weight has no"),
        ("mistral_swa", json!({"layer_types": vec!["full_attention"; 3]}), "opened"),
        ("qwen2", json!({"use_sliding_window": true}), "opened"),
        ("qwen2", json!({"layer_types": vec!["sliding_attention"; 3]}), "no window"),
    ] {
        let found = with_config(fixture, &change);
        assert!(found.contains(wanted), "{fixture} {change}: {found}");
    }
}

#[test]
fn absurd_numbers_name_file_and_field() {
    for (field, value, wanted) in [
        ("num_attention_heads", json!(0), "wanted a whole number from 1 to 4096, found 0"),
        ("num_attention_heads", json!(-4), "found -4"),
        ("num_attention_heads", json!(3), "2 does not divide num_attention_heads, 3"),
        ("num_attention_heads", json!("four"), "found \"four\""),
        ("num_attention_heads", json!([4]), "found a list"),
        ("num_key_value_heads", json!(3), "num_key_value_heads: 3 does not divide"),
        ("head_dim", json!(15), "head_dim: heads of 15 elements"),
        ("hidden_size", json!(1_u64 << 40), "hidden_size: wanted"),
        ("hidden_size", json!(66), "num_attention_heads: 4 heads do not share out"),
        ("hidden_size", json!("absent"), "hidden_size: is missing"),
        ("vocab_size", json!(u64::MAX), "vocab_size: wanted"),
        ("vocab_size", json!(385), "is 384 x 64; config.json asks for 385 x 64"),
        ("vocab_size", json!(300), "eos_token_id: 370 is not below the vocabulary size 300"),
        ("num_hidden_layers", json!(1001), "num_hidden_layers: wanted"),
        ("num_hidden_layers", json!(4), "model.layers.3.input_layernorm.weight is missing"),
        ("max_position_embeddings", json!(0), "max_position_embeddings: wanted"),
        ("intermediate_size", json!(1.5), "intermediate_size: wanted"),
        ("rms_norm_eps", json!("tiny"), "rms_norm_eps: wanted a number"),
        ("rope_theta", json!(0), "rope_theta: wanted a number from 1 to 1e15"),
        ("eos_token_id", json!([370, "x"]), "eos_token_id: wanted a token id"),
        ("tie_word_embeddings", json!(1), "tie_word_embeddings: wanted true or false"),
    ] {
        let found = with_config("llama_gqa", &json!({ field: value }));
        assert!(found.contains(wanted), "{field} {value}: {found}");
        assert!(found.starts_with("config.json") || found.contains("tensor"), "{found}");
    }
}

#[test]
fn qwen_windows_need_the_switch_and_start_at_their_layer() {
    let windows = |changes: Value| {
        let folder = Folder::new();
        let config = fs::read(fixture("qwen2/config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        let spec = engine::open::spec_of_config(&folder.write("c.json", config.to_string()));
        let layers = spec.unwrap().layers;
        layers.iter().map(|layer| layer.attention.window).collect::<Vec<_>>()
    };
    assert_eq!(windows(json!({})), [None; 3]);
    assert_eq!(windows(json!({"use_sliding_window": true})), [None, None, Some(16)]);
    let on = json!({"use_sliding_window": true, "max_window_layers": 0, "sliding_window": null});
    assert_eq!(windows(on), [None; 3]);
    let types = ["sliding_attention", "full_attention", "sliding_attention"];
    let on = json!({"use_sliding_window": true, "layer_types": types});
    assert_eq!(windows(on), [Some(16), None, Some(16)]);
}

#[test]
fn folders_say_what_is_missing() {
    let folder = Folder::new();
    let error = || error_of(open_weights(&folder.0));
    assert!(error().contains("has no config.json"));
    folder.write("a.gguf", "x");
    assert!(error().contains("a.gguf: give that file's path"));
    folder.write("config.json", fs::read(fixture("llama_gqa/config.json")).unwrap());
    assert!(error().contains("neither model.safetensors nor"));
    folder.write("pytorch_model.bin", "x");
    assert!(error().contains("convert it to safetensors"));
    folder.write("model.safetensors", "");
    assert!(error().contains("is empty"));
    let path = folder.0.join("model.safetensors");
    assert!(error_of(open_weights(&path)).contains("give the folder"));
    assert!(error_of(open_weights(&folder.0.join("none"))).contains("cannot be opened"));
}

#[test]
fn indexes_stay_in_their_folder() {
    let tensors = read_safetensors(&fixture("llama_gqa/model.safetensors"));
    let index = |shard: &str, extra: Option<&str>| {
        let folder = Folder::copy_of("llama_gqa", &["config.json"]);
        folder.write("part.safetensors", safetensors(&tensors));
        let mut map: serde_json::Map<String, Value> =
            tensors.iter().map(|tensor| (tensor.0.clone(), shard.into())).collect();
        map.extend(extra.map(|name| (name.to_owned(), shard.into())));
        let index = json!({ "weight_map": map }).to_string();
        folder.write("model.safetensors.index.json", index);
        open_weights(&folder.0).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(index("part.safetensors", None), "");
    assert!(index("other.safetensors", None).contains("other.safetensors: cannot be opened"));
    assert!(index("part.safetensors", Some("x")).contains("holds tensor x, but it does not"));
    for outside in ["../part.safetensors", "/etc/passwd", "a/b.safetensors", ".safetensors"] {
        let found = index(outside, None);
        assert!(found.contains("is not the name of a safetensors file here"), "{found}");
    }
}

#[test]
fn damaged_safetensors_headers() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let good = entry("F32", "[2]", "[0,8]");
    let huge = "18446744073709551615";
    for (header, wanted) in [
        (entry("F32", "[2]", "[8,16]"), "data from 8 to 16 does not lie in"),
        (entry("F32", "[2]", "[8,0]"), "data from 8 to 0"),
        (entry("F32", "[3]", "[0,8]"), "3 elements of F32 do not take the 8 bytes"),
        (entry("F32", &format!("[{huge},2]"), "[0,8]"), "do not take the 8 bytes"),
        (entry("Q9", "[2]", "[0,8]"), "element type Q9 is not known"),
        (entry("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), "at most 8 dimensions"),
        (entry("F32", "[-2]", "[0,8]"), "integer"),
        (format!(r#"{good},"a":{good}"#), "tensor a occurs twice"),
        (format!(r#"{good},"b":{good}"#), "tensors a and b overlap"),
        (r#"{"dtype":"F32"}"#.to_owned(), "missing field"),
    ] {
        let folder = Folder::copy_of("llama_gqa", &["config.json"]);
        let header = format!(r#"{{"a":{header}}}"#);
        folder.write("model.safetensors", with_header(&header, &[0; 8]));
        let found = error_of(open_weights(&folder.0));
        assert!(found.contains(wanted) && found.contains("model.safetensors: "), "{found}");
    }
    let folder = Folder::copy_of("llama_gqa", &["config.json"]);
    for bytes in [&b"short"[..], &[255; 16], &[200, 0, 0, 0, 0, 0, 0, 0, b'{']] {
        folder.write("model.safetensors", bytes);
        let found = error_of(open_weights(&folder.0));
        assert!(found.contains("too few") || found.contains("claims"), "{found}");
    }
}

#[test]
fn tensors_of_types_that_are_not_computed() {
    let read = || read_safetensors(&fixture("llama_gqa/model.safetensors"));
    for (dtype, bytes, wanted) in [
        ("F64", 8, "0.mlp.up_proj.weight has elements of type F64; F32, F16"),
        ("I8", 1, "0.mlp.up_proj.weight has elements of type I8; F32, F16"),
    ] {
        let mut tensors = read();
        let name = "0.mlp.up_proj.weight";
        let at = tensors.iter().position(|tensor| tensor.0.ends_with(name)).unwrap();
        tensors[at].1 = dtype.to_owned();
        tensors[at].3.resize(160 * 64 * bytes, 0);
        let folder = Folder::copy_of("llama_gqa", &["config.json"]);
        folder.write("model.safetensors", safetensors(&tensors));
        let found = error_of(open_weights(&folder.0));
        assert!(found.contains(wanted), "{found}");
    }
}

fn gguf(change: impl FnOnce(&mut Gguf)) -> String {
    let folder = Folder::new();
    let mut file = Gguf::tiny("llama");
    change(&mut file);
    let path = folder.write("m.gguf", file.bytes().0);
    let Err(error) = open_weights(&path) else { return "opened".to_owned() };
    let error = error.to_string();
    error.strip_prefix(&format!("{}: ", path.display())).expect("names the file").to_owned()
}

#[test]
fn gguf_files_that_are_something_else() {
    let arch = |name: &str| Meta::Text(name.to_owned());
    assert!(gguf(|f| f.magic = *b"GGML").contains("is not a GGUF file"));
    assert!(gguf(|f| f.version = 1).contains("version 1"));
    assert!(gguf(|f| f.version = 3_u32.swap_bytes()).contains("big-endian"));
    assert!(gguf(|f| f.version = 4).contains("version 4"));
    assert!(gguf(|f| f.set("split.count", Meta::U32(3))).contains("split.no: is missing"));
    let found = gguf(|f| f.set("general.architecture", arch("qwen3next")));
    assert!(found.contains("qwen3next is not supported (nearest is qwen3)"), "{found}");
    let found = gguf(|f| f.keys.retain(|key| key.0 != "general.architecture"));
    assert!(found.contains("general.architecture: is missing"), "{found}");
    for (number, name) in [(31, "Q4_0_4_4 (retired)"), (28, "F64"), (9, "Q8_1")] {
        let found = gguf(|f| f.tensors[3].2 = number);
        let wanted = format!("tensor blk.0.attn_q.weight: type {name} is not supported");
        assert!(found.contains(&wanted), "{found}");
    }
    let found = gguf(|f| f.tensors[3].2 = 23);
    assert!(found.contains("rows of 8 elements are not made of blocks of 256"), "{found}");
    assert!(gguf(|f| f.set("general.architecture", arch("clip"))).contains("mmproj"));
    assert!(gguf(|f| f.tensors[3].2 = 999).contains("type number 999"));
}

#[test]
fn gguf_options_that_change_the_computation() {
    for (key, value, wanted) in [
        ("expert_count", Meta::U32(8), "llama.expert_used_count: is missing"),
        ("attention.clamp_kqv", Meta::F32(8.0), "clamp_kqv: this option is not supported"),
        ("attention.causal", Meta::Bool(false), "without a causal mask"),
        ("attention.head_count", Meta::U32s(vec![2]), "found a list of 1"),
        ("attention.head_count", Meta::U32(0), "from 1 to 4096, found 0"),
        ("attention.value_length", Meta::U32(8), "other than the head size, 4"),
        ("rope.dimension_count", Meta::U32(2), "opened"),
        ("rope.scaling.type", Meta::Text("alibi".to_owned()), "alibi is not supported"),
        ("context_length", Meta::U32(0), "context_length: wanted"),
        ("embedding_length", Meta::U32(12), "with 12 columns is missing"),
        ("block_count", Meta::U32(2), "blk.1.attn_norm.weight is missing"),
        ("feed_forward_length", Meta::U32(7), "is 6 x 8; the header asks for 7 x 8"),
        ("vocab_size", Meta::U32(6), "is 6, the embedding table has 5 rows"),
    ] {
        let found = gguf(|file| file.set(&format!("llama.{key}"), value));
        assert!(found.contains(wanted), "{key}: {found}");
    }
    let found = gguf(|file| file.set("tokenizer.ggml.eos_token_id", Meta::U32(5)));
    assert!(found.contains("5 is not below the vocabulary size 5"), "{found}");
    let six = vec![String::new(); 6];
    let found = gguf(|file| file.set("tokenizer.ggml.tokens", Meta::Texts(six)));
    assert!(found.contains("has 6 entries, more than the 5"), "{found}");
    let found = gguf(|file| file.add_f32("blk.0.ffn_gate_exps.weight", &[4]));
    assert!(found.contains("ffn_gate_exps.weight has no place"), "{found}");
    let found = gguf(|file| file.add_f32("rope_freqs.weight", &[3]));
    assert!(found.contains("rope_freqs.weight is 3; the header asks for 2"), "{found}");
}
