//! Low-rank adapters: the numbers of the merged model, many in one batch, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::adapter::Adapter;
use engine::model::Dtype;
use scheduler::types::Request;

mod common;
use common::Size;
use common::reference::Reference;
use common::serve::{Serve, request};

const BASE: &str = "llama_gqa";
const ADAPTER: &str = "llama_gqa_lora";

fn read(folder: &Path) -> Result<Adapter, String> {
    let base = engine::open(&hearth_tests::fixtures::reference(BASE)).expect("the base");
    let base = base.adapter_base.expect("a folder takes adapters");
    base.open(folder).map_err(|error| error.to_string())
}

/// A batch in which every other sequence has the adapter: each must draw what its own model
/// draws, whatever stands beside it.
#[test]
fn rows_with_and_without_an_adapter_share_a_batch() {
    let (plain, adapted) = (Reference::folder(BASE), Reference::folder(ADAPTER));
    let files = engine::open(&plain.model).expect("the base");
    let adapter = Arc::new(read(&adapted.model).expect("the adapter"));
    let size = Size { rows: 8, step_tokens: 48, pages: 160 };
    let mut serve = Serve::new(&files, Dtype::Float32, size);
    // Numbers need not be dense, and another adapter may stand beside.
    serve.engine().set_adapter(3, &adapter).expect("it fits");
    serve.engine().set_adapter(1, &adapter).expect("it fits");
    let mut requests = Vec::new();
    for (index, (a, b)) in plain.prompts.iter().zip(&adapted.prompts).enumerate() {
        let id = 3 * index as u64;
        requests.push(request(id, &a.input_ids, 32));
        for (offset, number) in [(1, 1), (2, 3)] {
            // Another salt for every adapter: cached pages must not meet.
            let salt = u64::from(number);
            let adapted = request(id + offset, &b.input_ids, 32);
            requests.push(Request { adapter: number, salt, ..adapted });
        }
    }
    let answers = serve.run(requests);
    for (index, (a, b)) in plain.prompts.iter().zip(&adapted.prompts).enumerate() {
        for (offset, prompt) in [(0, a), (1, b), (2, b)] {
            let found = &answers[3 * index + offset].choices[0].tokens;
            let sure = prompt.first_close_step;
            assert_eq!(found[..sure], prompt.greedy_ids[..sure], "prompt {index}, {offset}");
        }
    }
    assert_ne!(
        answers[0].choices[0].tokens, answers[1].choices[0].tokens,
        "the adapter changes something"
    );
}

/// After an adapter is gone, its number computes the base again.
#[test]
fn an_adapter_that_is_dropped_leaves_nothing() {
    let (plain, adapted) = (Reference::folder(BASE), Reference::folder(ADAPTER));
    let files = engine::open(&plain.model).expect("the base");
    let size = Size { rows: 2, step_tokens: 48, pages: 64 };
    let mut serve = Serve::new(&files, Dtype::Float32, size);
    serve
        .engine()
        .set_adapter(2, &Arc::new(read(&adapted.model).expect("the adapter")))
        .expect("it fits");
    serve.engine().drop_adapter(2);
    let prompt = &plain.prompts[2];
    let one = Request { adapter: 2, ..request(0, &prompt.input_ids, 32) };
    let answers = serve.run(vec![one]);
    let sure = prompt.first_close_step;
    assert_eq!(answers[0].choices[0].tokens[..sure], prompt.greedy_ids[..sure]);
}

/// A copy of the adapter with some of its files changed.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let to = std::env::temp_dir().join(format!("hearth-lora-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&to).unwrap();
        let from = hearth_tests::fixtures::reference(ADAPTER);
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
        Self(to)
    }

    fn config(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.0.join("adapter_config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let cases: [(&str, serde_json::Value, &str); 9] = [
        ("use_dora", true.into(), "use_dora: this option is not supported"),
        ("peft_type", "LOHA".into(), "peft_type: LOHA is not supported"),
        ("bias", "all".into(), "bias: all is not supported"),
        ("modules_to_save", serde_json::json!(["lm_head"]), "modules_to_save"),
        ("init_lora_weights", "pissa".into(), "pissa changes the base model"),
        ("r", 4.into(), "says rank 4, the tensors have 8"),
        ("rank_pattern", serde_json::json!({"q_proj": 2}), "says rank 2"),
        ("rank_pattern", serde_json::json!({"(": 2}), "is not a pattern"),
        ("fan_in_fan_out", true.into(), "fan_in_fan_out"),
    ];
    for (index, (key, value, wanted)) in cases.into_iter().enumerate() {
        let copy = Copy::new(&format!("case{index}"));
        copy.config(|config| config[key] = value);
        let problem = read(&copy.0).unwrap_err();
        assert!(problem.contains(wanted), "{key}: {problem}");
    }
}

#[test]
fn damaged_files_and_other_bases_are_refused() {
    let copy = Copy::new("cut");
    let weights = copy.0.join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let problem = read(&copy.0).unwrap_err();
    assert!(problem.contains("adapter_model.safetensors"), "{problem}");
    std::fs::remove_file(&weights).unwrap();
    let problem = read(&copy.0).unwrap_err();
    assert!(problem.contains("adapter_model.safetensors"), "{problem}");

    let other = engine::open(&hearth_tests::fixtures::reference("llama_bias")).expect("a base");
    let adapter = hearth_tests::fixtures::reference(ADAPTER);
    let problem = other.adapter_base.expect("a folder").open(&adapter).unwrap_err().to_string();
    assert!(problem.contains("the adapter is for another base model"), "{problem}");
}

/// rslora and patterns change scales, and nothing else.
#[test]
fn scales_follow_the_options() {
    let copy = Copy::new("scales");
    copy.config(|config| {
        config["use_rslora"] = true.into();
        config["alpha_pattern"] = serde_json::json!({"v_proj": 32, "layers.1.mlp.*": 4});
    });
    let adapter = read(&copy.0).expect("an adapter");
    let scale = |layer, part| adapter.pair(layer, part).expect("a pair").scale();
    use engine::spec::LayerPart as P;
    let root = 8.0_f32.sqrt();
    assert!((scale(0, P::Query) - 16.0 / root).abs() < 1e-6);
    assert!((scale(0, P::Value) - 32.0 / root).abs() < 1e-6);
    assert!((scale(1, P::Up) - 4.0 / root).abs() < 1e-6);
    assert!((scale(0, P::Up) - 16.0 / root).abs() < 1e-6);
}
