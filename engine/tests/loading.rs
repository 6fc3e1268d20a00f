//! Opening models: every fixture gives the spec that its authors meant, in both file formats.

mod loading_kit;

use engine::model::Dtype;
use engine::open::{Wordless, open_weights, spec_of_config};
use engine::plan::{PlanOptions, plan};
use engine::spec::{LayerPart, MlpSpec, ModelSpec, Role};
use kernels::{CacheElement, Format};
use loading_kit::{Folder, Gguf, Meta, fixture, read_safetensors, safetensors};

fn opened(name: &str) -> Wordless {
    open_weights(&fixture(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn tied(spec: &ModelSpec) -> bool {
    spec.head.expect("a decoder").tied
}

/// A spec in one line, so that a table can say what is expected.
fn line(spec: &ModelSpec) -> String {
    let attention = &spec.layers[0].attention;
    let windows: Vec<u32> =
        spec.layers.iter().map(|layer| layer.attention.window.unwrap_or(0)).collect();
    let mlp_bias = matches!(&spec.layers[0].mlp, MlpSpec::Dense(dense) if dense.bias);
    let flags = [
        ("qk_norm", attention.qk_norm.is_some()),
        ("qkv_bias", attention.qkv_bias),
        ("out_bias", attention.out_bias),
        ("mlp_bias", mlp_bias),
        ("tied", tied(spec)),
    ];
    let flags: Vec<_> = flags.iter().filter(|flag| flag.1).map(|flag| flag.0).collect();
    format!(
        "{} {}x{} vocab {} context {} heads {}/{}x{} width {} eps {:e} windows {windows:?} {}",
        spec.family,
        spec.layers.len(),
        spec.hidden,
        spec.vocab,
        spec.context,
        attention.heads,
        attention.kv_heads,
        attention.head_dim,
        spec.layers[0].mlp.width(),
        spec.norm.eps,
        flags.join(" ")
    )
}

#[test]
fn every_folder_opens_with_the_expected_spec() {
    for (name, wanted, format, eos) in [
        (
            "llama_gqa",
            "llama 3x64 vocab 384 context 512 heads 4/2x16 width 160 eps 1e-5 windows [0, 0, 0] ",
            Format::Bf16,
            vec![370],
        ),
        (
            "llama_tied",
            "llama 2x96 vocab 384 context 512 heads 6/3x16 width 224 eps 1e-5 windows [0, 0] tied",
            Format::F32,
            vec![370],
        ),
        (
            "llama_bias",
            "llama 2x64 vocab 384 context 512 heads 2/2x32 width 160 eps 1e-5 windows [0, 0] \
             qkv_bias out_bias mlp_bias",
            Format::F16,
            vec![370],
        ),
        (
            "mistral_swa",
            "mistral 3x64 vocab 384 context 512 heads 4/2x16 width 160 eps 1e-5 \
             windows [24, 24, 24] ",
            Format::Bf16,
            vec![370],
        ),
        (
            "qwen2",
            "qwen2 3x64 vocab 384 context 512 heads 4/2x16 width 160 eps 1e-6 \
             windows [0, 0, 0] qkv_bias",
            Format::Bf16,
            vec![370],
        ),
        (
            "qwen3",
            "qwen3 3x64 vocab 384 context 512 heads 4/2x32 width 160 eps 1e-6 \
             windows [0, 0, 0] qk_norm tied",
            Format::Bf16,
            vec![370],
        ),
    ] {
        let mut model = opened(name);
        assert_eq!(line(&model.spec), wanted);
        assert_eq!(model.format, format, "{name}");
        model.eos.sort_unstable();
        model.eos.dedup();
        assert_eq!(model.eos, eos, "{name}");
        assert_eq!(model.defaults.do_sample, Some(false), "{name}");
        assert_eq!(model.notes, [""; 0], "{name}");
        let file = fixture(name).join("model.safetensors");
        let data: usize = read_safetensors(&file).iter().map(|tensor| tensor.3.len()).sum();
        assert_eq!(model.weight_bytes, data as u64, "{name}");
        let attention = &model.spec.layers[0].attention;
        assert_eq!(attention.scale, 1.0 / (attention.head_dim as f32).sqrt());
        assert_eq!(model.spec.ropes.len(), 1);
        assert!(!model.spec.ropes[0].interleaved);
        assert_eq!(model.spec.ropes[0].inv_freq.len(), attention.head_dim / 2);
    }
}

#[test]
fn bases_of_the_rotation_are_read_in_both_spellings() {
    for (name, theta, dim) in
        [("llama_gqa", 1e4_f32, 16.0), ("llama_tied", 2e4, 16.0), ("qwen3", 1e6, 32.0)]
    {
        let found = opened(name).spec.ropes[0].inv_freq[1];
        let wanted = theta.powf(-2.0 / dim);
        assert!((found / wanted - 1.0).abs() < 1e-6, "{name}: {found} {wanted}");
    }
}

#[test]
fn tensors_are_the_bytes_of_the_file() {
    let model = opened("llama_gqa");
    let tensors = read_safetensors(&fixture("llama_gqa").join("model.safetensors"));
    let bytes = |name: &str| &tensors.iter().find(|tensor| tensor.0 == name).unwrap().3;
    for (role, rows, cols, name) in [
        (Role::Embedding, 384, 64, "model.embed_tokens.weight"),
        (Role::Head, 384, 64, "lm_head.weight"),
        (Role::FinalNorm, 1, 64, "model.norm.weight"),
        (Role::Layer(1, LayerPart::Key), 32, 64, "model.layers.1.self_attn.k_proj.weight"),
        (Role::Layer(2, LayerPart::AttentionOut), 64, 64, "model.layers.2.self_attn.o_proj.weight"),
        (Role::Layer(0, LayerPart::Down), 64, 160, "model.layers.0.mlp.down_proj.weight"),
    ] {
        let view = model.weights.tensor(role, rows, cols).unwrap();
        assert_eq!((view.rows, view.cols, &*view.bytes), (rows, cols, &bytes(name)[..]), "{name}");
    }
    let widened = model.weights.vector(Role::FinalNorm, 64).unwrap();
    let pairs = bytes("model.norm.weight").chunks_exact(2);
    let wanted: Vec<f32> =
        pairs.map(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
    assert_eq!(widened, wanted);
    let error = model.weights.tensor(Role::Layer(1, LayerPart::Key), 33, 64).unwrap_err();
    assert!(error.problem.contains("k_proj.weight is 32 x 64; config.json asks for 33 x 64"));
    assert!(error.file.ends_with("model.safetensors"));
}

#[test]
fn shards_and_names_without_prefix_make_no_difference() {
    let tensors = read_safetensors(&fixture("llama_gqa").join("model.safetensors"));
    let folder = Folder::copy_of("llama_gqa", &["config.json", "generation_config.json"]);
    let mut map = serde_json::Map::new();
    for (part, chunk) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
        let name = format!("model-0000{part}-of-00003.safetensors");
        let bare = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
        let chunk: Vec<_> =
            chunk.iter().cloned().map(|(name, d, s, b)| (bare(&name), d, s, b)).collect();
        map.extend(chunk.iter().map(|tensor| (tensor.0.clone(), name.clone().into())));
        folder.write(&name, safetensors(&chunk));
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    folder.write("model.safetensors.index.json", index.to_string());
    let (split, whole) = (open_weights(&folder.0).unwrap(), opened("llama_gqa"));
    assert_eq!(split.spec, whole.spec);
    assert_eq!(split.weight_bytes, whole.weight_bytes);
    for need in whole.spec.tensors() {
        let [left, right] = [&split, &whole]
            .map(|model| model.weights.tensor(need.role, need.rows, need.cols).unwrap());
        assert_eq!(left.bytes, right.bytes, "{need:?}");
    }
}

#[test]
fn gguf_means_the_same_as_its_config() {
    let wanted = spec_of_config(&fixture("gguf_llama/hf_config.json")).unwrap();
    let mut model = opened("gguf_llama/llama-q4_k_m.gguf");
    assert!(model.spec.ropes[0].interleaved, "q and k rows are permuted in these files");
    model.spec.ropes[0].interleaved = false;
    assert_eq!(model.spec, wanted);
    assert_eq!(model.format, Format::Q4K);
    assert_eq!(model.eos, [370]);
    let view = model.weights.tensor(Role::Layer(1, LayerPart::Query), 256, 256).unwrap();
    assert_eq!(view.bytes.len(), 256 * view.format.row_bytes(256));
    assert_eq!(model.weights.vector(Role::FinalNorm, 256).unwrap().len(), 256);
}

fn tiny(change: impl FnOnce(&mut Gguf)) -> Result<Wordless, String> {
    let folder = Folder::new();
    let mut file = Gguf::tiny("llama");
    change(&mut file);
    // The mapping outlives the file's name, so the folder may go.
    open_weights(&folder.write("m.gguf", file.bytes().0)).map_err(|error| error.to_string())
}

#[test]
fn gguf_options_are_honoured() {
    let plain = tiny(|_| ()).unwrap();
    assert!(tied(&plain.spec), "no output.weight");
    assert_eq!(plain.spec.vocab, 5);
    assert_eq!(plain.spec.layers[0].attention.head_dim, 4);
    assert_eq!(plain.weights.vector(Role::FinalNorm, 8).unwrap()[7], 8.0);
    assert_eq!(plain.eos, [4]);

    let model = tiny(|file| {
        file.add_f32("output.weight", &[8, 5]);
        file.add_f32("rope_freqs.weight", &[2]);
        for (name, len) in [("q", 8), ("k", 4), ("v", 4)] {
            file.add_f32(&format!("blk.0.attn_{name}.bias"), &[len]);
        }
        file.set("llama.rope.freq_base", Meta::F32(100.0));
        file.set("llama.attention.sliding_window", Meta::U32(16));
        file.set("llama.expert_count", Meta::U32(0));
        file.set("general.alignment", Meta::U32(64));
        file.set("tokenizer.ggml.eot_token_id", Meta::U32(3));
        file.alignment = 64;
        file.version = 2;
    })
    .unwrap();
    assert!(!tied(&model.spec));
    assert_eq!(model.spec.ropes[0].inv_freq, [1.0, 0.1 / 2.0], "divided by 1 and 2");
    assert!(model.spec.layers[0].attention.qkv_bias);
    assert!(!model.spec.layers[0].attention.out_bias);
    assert_eq!(model.spec.layers[0].attention.window, Some(16));
    assert_eq!(model.eos, [4, 3]);

    let scaled = |key: &str, kind: Option<&str>| {
        let model = tiny(|file| {
            file.set(key, Meta::F32(4.0));
            if let Some(kind) = kind {
                file.set("llama.rope.scaling.type", Meta::Text(kind.to_owned()));
            }
        });
        model.unwrap().spec.ropes[0].inv_freq[0]
    };
    assert_eq!(scaled("llama.rope.scaling.factor", Some("linear")), 0.25);
    assert_eq!(scaled("llama.rope.scale_linear", None), 0.25);
    assert_eq!(scaled("llama.rope.scaling.factor", Some("none")), 1.0);
}

#[test]
fn qwen_gguf_rotates_halves() {
    for (arch, extra) in [("qwen2", ["q.bias", "k.bias", "v.bias"].as_slice()), ("qwen3", &[])] {
        let folder = Folder::new();
        let mut file = Gguf::tiny(arch);
        for name in extra {
            let len = if name.starts_with('q') { 8 } else { 4 };
            file.add_f32(&format!("blk.0.attn_{name}"), &[len]);
        }
        if arch == "qwen3" {
            file.add_f32("blk.0.attn_q_norm.weight", &[4]);
            file.add_f32("blk.0.attn_k_norm.weight", &[4]);
        }
        let model = open_weights(&folder.write("m.gguf", file.bytes().0));
        let spec = model.unwrap_or_else(|error| panic!("{error}")).spec;
        assert_eq!(spec.family, arch);
        assert!(!spec.ropes[0].interleaved);
        let attention = &spec.layers[0].attention;
        assert_eq!(
            (attention.qkv_bias, attention.qk_norm.is_some()),
            (arch == "qwen2", arch == "qwen3")
        );
    }
}

#[test]
fn a_whole_model_opens_with_its_text() {
    // The GGUF file names only 370; <|im_end|> is a special token of its vocabulary.
    for (name, eos) in [("llama_gqa", &[370][..]), ("gguf_llama/llama-q4_k_m.gguf", &[370, 373])] {
        let files = engine::open(&fixture(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(files.eos, eos, "{name}");
        assert_eq!(files.text.vocab_size(), files.spec.vocab, "{name}");
        assert_eq!(files.notes, [""; 0], "{name}");
    }
    let demo = engine::open_demo();
    assert_eq!(demo.spec.context, 2048);
    assert_eq!(demo.eos, [2033, 2035]);
    assert_eq!(demo.defaults.max_new_tokens, Some(256));
    assert_eq!(demo.format, Format::Bf16);
}

/// The demo is for trying the server out: it must not take a machine over.
#[test]
fn the_demo_is_planned_small() {
    let options = PlanOptions {
        dtype: Dtype::Auto,
        threads: 2,
        context: None,
        cache_bytes: None,
        cache_element: None,
        rows_max: 32,
        step_tokens_max: 512,
    };
    let plan = plan(&engine::open_demo(), &options, 64 << 30).unwrap();
    assert_eq!(plan.cache.element, CacheElement::Bf16);
    assert!(plan.cache_tokens() > 4 * 2048, "{plan}");
    assert!(plan.total_bytes() < 60 << 20, "{plan}");
}
