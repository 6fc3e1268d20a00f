//! Vectors and scores against Hugging Face transformers in float32, on the reference models; what
//! a result may not depend on; and which files are refused.

mod common;

use std::path::{Path, PathBuf};

use engine::ModelFiles;
use engine::embed::{self, CpuEmbedder, Input, Pooler, Task};
use engine::model::Dtype;
use engine::plan::PlanOptions;
use serde_json::{Value, json};

const PLENTY: u64 = 8 << 30;

fn options(dtype: Dtype, step_tokens_max: usize) -> PlanOptions {
    PlanOptions {
        dtype,
        threads: 1,
        context: None,
        cache_bytes: None,
        cache_element: None,
        rows_max: 1,
        step_tokens_max,
    }
}

fn folder(name: &str) -> PathBuf {
    hearth_tests::fixtures::reference(name)
}

fn open(path: &Path, asked: Option<Task>) -> (ModelFiles, Pooler) {
    let mut files = engine::open(path).unwrap_or_else(|error| panic!("{error}"));
    let pooler = embed::describe(&mut files, asked).unwrap_or_else(|error| panic!("{error}"));
    (files, pooler.expect("a model that reads only"))
}

fn start(path: &Path, options: &PlanOptions) -> CpuEmbedder {
    let (files, pooler) = open(path, None);
    let plan = embed::plan(&files, &pooler, options, PLENTY).unwrap_or_else(|e| panic!("{e}"));
    embed::start_cpu(&files, pooler, &plan).unwrap_or_else(|error| panic!("{error}"))
}

fn json_of(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list");
    list.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Inputs of a reference model: ids and types.
fn inputs(name: &str) -> Vec<(Vec<u32>, Vec<u32>)> {
    let reference = json_of(&folder(name).join("reference.json"));
    let list = reference.get("inputs").or(reference.get("pairs")).expect("inputs");
    let one = |input: &Value| {
        let types = input.get("token_type_ids").map(ids).unwrap_or_default();
        (ids(&input["input_ids"]), types)
    };
    list.as_array().expect("a list").iter().map(one).collect()
}

fn borrowed(inputs: &[(Vec<u32>, Vec<u32>)]) -> Vec<Input<'_>> {
    inputs.iter().map(|(ids, types)| Input { ids, types, skip: 0 }).collect()
}

fn embeddings(name: &str) -> Vec<Vec<f32>> {
    let file = common::tensors::Tensors::read(&folder(name).join("reference.safetensors"));
    let count = inputs(name).len();
    (0..count).map(|i| file.floats(&format!("s{i}.embedding"))).collect()
}

fn furthest(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn vectors_are_the_references() {
    for name in ["bert_embed_mean", "qwen3_embed_last"] {
        let (inputs, wanted) = (inputs(name), embeddings(name));
        let path = folder(name);
        let found = start(&path, &options(Dtype::Float32, 512)).embed(&borrowed(&inputs));
        for (found, wanted) in found.expect("vectors").iter().zip(&wanted) {
            let off = furthest(found, wanted);
            assert!(off < 1e-5, "{name}: off by {off:e}");
        }
        let found = start(&path, &options(Dtype::Bfloat16, 512)).embed(&borrowed(&inputs));
        for (found, wanted) in found.expect("vectors").iter().zip(&wanted) {
            let same = cosine(found, wanted);
            assert!(same > 0.9995, "{name}: cosine {same}");
        }
    }
}

#[test]
fn scores_are_the_references() {
    let name = "bert_rerank";
    let reference = json_of(&folder(name).join("reference.json"));
    let inputs = inputs(name);
    for (dtype, bound) in [(Dtype::Float32, 1e-5), (Dtype::Bfloat16, 0.06)] {
        let found = start(&folder(name), &options(dtype, 512)).embed(&borrowed(&inputs));
        let pairs = reference["pairs"].as_array().expect("pairs");
        for (found, pair) in found.expect("scores").iter().zip(pairs) {
            // This model's files ask for the logit as it is.
            let wanted = pair["logit"].as_f64().expect("a number");
            let off = (f64::from(found[0]) - wanted).abs();
            assert!(found.len() == 1 && off < bound, "{dtype:?}: {found:?}, wanted {wanted}");
        }
    }
}

#[test]
fn texts_become_the_references_tokens() {
    for name in ["bert_embed_mean", "qwen3_embed_last", "bert_rerank"] {
        let (files, _) = open(&folder(name), None);
        let reference = json_of(&folder(name).join("reference.json"));
        for input in reference["inputs"].as_array().into_iter().flatten() {
            let text = input["text"].as_str().expect("a text");
            let (found, types) = files.text.encode_typed(text).expect("tokens");
            assert_eq!(found, ids(&input["input_ids"]), "{name}: {text}");
            assert!(types.iter().all(|&kind| kind == 0));
        }
        for pair in reference["pairs"].as_array().into_iter().flatten() {
            let text = |key: &str| pair[key].as_str().expect("a text");
            let found = files.text.encode_pair(text("query"), text("document")).expect("tokens");
            assert_eq!(found, (ids(&pair["input_ids"]), ids(&pair["token_type_ids"])));
        }
    }
}

/// Alone, together, in any order, in steps of any size: the same bits.
#[test]
fn a_result_does_not_depend_on_its_company() {
    for name in ["bert_embed_mean", "qwen3_embed_last", "bert_rerank"] {
        let mut inputs = inputs(name);
        // A long one, which a decoder computes in several steps.
        let long: Vec<u32> = inputs.iter().flat_map(|(ids, _)| ids).copied().take(200).collect();
        inputs.push((long, Vec::new()));
        let path = folder(name);
        let mut large = start(&path, &options(Dtype::Float32, 2048));
        let alone: Vec<_> = borrowed(&inputs)
            .iter()
            .map(|input| large.embed(&[*input]).expect("a vector").remove(0))
            .collect();
        let mut small = start(&path, &options(Dtype::Float32, 48));
        for _ in 0..2 {
            assert_eq!(large.embed(&borrowed(&inputs)).expect("vectors"), alone, "{name}");
            assert_eq!(small.embed(&borrowed(&inputs)).expect("vectors"), alone, "{name}");
        }
        let mut backwards = borrowed(&inputs);
        backwards.reverse();
        let mut found = small.embed(&backwards).expect("vectors");
        found.reverse();
        assert_eq!(found, alone, "{name}: backwards");
    }
}

#[test]
fn what_cannot_be_computed_is_refused_and_leaves_nothing_behind() {
    let path = folder("bert_embed_mean");
    let mut model = start(&path, &options(Dtype::Float32, 512));
    let good = [2, 5, 3];
    let input = |ids| Input { ids, types: &[], skip: 0 };
    let before = model.embed(&[input(&good)]).expect("a vector");
    let check = |model: &mut CpuEmbedder, bad: Input<'_>, expect: &str| {
        let error = model.embed(&[input(&good), bad]).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    let long = vec![5; 300];
    check(&mut model, input(&[]), "an input of 0 tokens");
    // The author's limit, not that of the positions.
    check(&mut model, input(&long), "an input of 300 tokens; wanted 1 to 256");
    check(&mut model, input(&[350]), "token 350 of a vocabulary of 350");
    check(&mut model, Input { types: &[0], ..input(&good) }, "1 token types for 3");
    check(&mut model, Input { types: &[0, 1, 2], ..input(&good) }, "token type 2 of 2");
    for _ in 0..100 {
        assert_eq!(model.embed(&[input(&good)]).expect("a vector"), before);
    }
}

/// A copy of a reference model whose files a test may change.
struct Copy(PathBuf);

impl Copy {
    fn of(name: &str, title: &str) -> Self {
        let to = std::env::temp_dir().join(format!("hearth-embed-{}-{title}", std::process::id()));
        let _ = std::fs::remove_dir_all(&to);
        copy_folder(&folder(name), &to);
        Self(to)
    }

    fn write(&self, file: &str, value: &Value) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, value.to_string()).expect("written");
    }

    fn change(&self, file: &str, key: &str, value: Value) {
        let mut json = json_of(&self.0.join(file));
        json[key] = value;
        self.write(file, &json);
    }

    fn tensors(&self, file: &str, header: &Value, numbers: &[f32]) {
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        std::fs::write(self.0.join(file), bytes).expect("written");
    }

    fn describe(&self, asked: Option<Task>) -> Result<Option<Pooler>, String> {
        let mut files = engine::open(&self.0).map_err(|error| error.to_string())?;
        embed::describe(&mut files, asked).map_err(|error| error.to_string())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn files_say_what_a_model_is() {
    let task = |name: &str, asked| -> Result<Option<Task>, String> {
        let mut files = engine::open(&folder(name)).map_err(|error| error.to_string())?;
        let pooler = embed::describe(&mut files, asked).map_err(|error| error.to_string())?;
        Ok(pooler.map(|pooler| pooler.task))
    };
    assert_eq!(task("bert_embed_mean", None), Ok(Some(Task::Embed)));
    assert_eq!(task("qwen3_embed_last", None), Ok(Some(Task::Embed)));
    assert_eq!(task("bert_rerank", None), Ok(Some(Task::Rerank)));
    assert_eq!(task("qwen3", None), Ok(None));
    assert_eq!(task("qwen3", Some(Task::Embed)), Ok(Some(Task::Embed)));
    assert_eq!(task("qwen3_embed_last", Some(Task::Generate)), Ok(None));
    for (name, asked, why) in [
        ("bert_embed_mean", Task::Generate, "cannot generate"),
        ("bert_embed_mean", Task::Rerank, "cannot rerank"),
        ("bert_rerank", Task::Embed, "rerank"),
        ("llama_gqa", Task::Rerank, "cannot rerank"),
        // Its tokenizer has neither word.
        ("qwen3", Task::Rerank, "'yes' and 'no'"),
    ] {
        let error = task(name, Some(asked)).expect_err(why);
        assert!(error.contains(why), "{name} for {asked:?}: {error}");
    }
}

#[test]
fn modules_are_read() {
    let copy = Copy::of("qwen3_embed_last", "modules");
    let pooler = copy.describe(None).expect("sound").expect("a pooler");
    assert_eq!((pooler.size, pooler.normalises(), pooler.tokens_max), (64, true, Some(512)));
    assert_eq!(pooler.reads.prompts.len(), 2);
    assert!(pooler.reads.prompts[0].1.starts_with("Instruct: "), "{:?}", pooler.reads.prompts);
    assert_eq!(pooler.reads.default_prompt, None);

    let pooling = "1_Pooling/config.json";
    copy.change(pooling, "pooling_mode_cls_token", json!(true));
    let pooler = copy.describe(None).expect("sound").expect("a pooler");
    assert_eq!(pooler.size, 128, "two poolings one after the other");
    copy.change(pooling, "pooling_mode", json!("weightedmean"));
    let pooler = copy.describe(None).expect("sound").expect("a pooler");
    assert_eq!(pooler.pooling, [embed::Pooling::Weighted]);

    let check = |expect: &str| {
        let error = copy.describe(None).expect_err(expect);
        assert!(error.contains(expect), "{error}");
    };
    copy.change(pooling, "pooling_mode", json!("median"));
    check("pooling_mode: median is not supported");
    copy.write(pooling, &json!({"pooling_mode_mean_tokens": false}));
    check("asks for no pooling");
    copy.write(pooling, &json!({"pooling_mode_median": true}));
    check("pooling_mode_median: is not supported");
    copy.write(pooling, &json!({"pooling_mode_mean_tokens": true}));
    copy.change("config_sentence_transformers.json", "default_prompt_name", json!("web"));
    check("web is none of the prompts");
    copy.change("config_sentence_transformers.json", "default_prompt_name", json!("query"));
    let pooler = copy.describe(None).expect("sound").expect("a pooler");
    assert_eq!(pooler.reads.default_prompt.as_deref(), Some("query"));
}

#[test]
fn modules_are_refused_by_name() {
    let copy = Copy::of("qwen3_embed_last", "refused");
    let check = |expect: &str| {
        let error = copy.describe(None).expect_err(expect);
        assert!(error.contains(expect), "{error}");
    };
    let module = |kind: &str, path: &str| {
        let kind = format!("sentence_transformers.models.{kind}");
        json!({"path": path, "type": kind})
    };
    let list =
        |last: Value| json!([module("Transformer", ""), module("Pooling", "1_Pooling"), last]);
    for (modules, expect) in [
        (json!([]), "lists 0 modules"),
        (json!({}), "not a JSON list"),
        (json!([module("Pooling", "1_Pooling")]), "must be a Transformer"),
        (json!([module("Transformer", "0_Transformer")]), "folder's root"),
        (json!([module("Transformer", "")]), "names no Pooling"),
        (list(module("WordWeights", "2")), "WordWeights is not supported"),
        (list(module("Dense", "../2")), "not the name of a folder"),
        (list(module("Dense", "2_Dense")), "is missing; modules.json names it"),
    ] {
        copy.write("modules.json", &modules);
        check(expect);
    }
    copy.write("modules.json", &list(module("Dense", "2_Dense")));
    let dense = json!({"in_features": 64, "out_features": 2, "activation_function": "x.Tanh"});
    copy.write("2_Dense/config.json", &dense);
    check("has neither model.safetensors nor");
    copy.change("2_Dense/config.json", "in_features", json!(32));
    check("in_features: is 32; what comes before has 64");
    copy.change("2_Dense/config.json", "in_features", json!(64));
    copy.change("2_Dense/config.json", "activation_function", json!("x.Mish"));
    check("activation_function: x.Mish is not supported");
}

#[test]
fn a_dense_module_is_computed() {
    let copy = Copy::of("bert_embed_mean", "dense");
    let kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")];
    let modules: Vec<_> =
        kinds.iter().map(|(kind, path)| json!({"path": path, "type": kind})).collect();
    copy.write("modules.json", &Value::Array(modules));
    let config = json!({"in_features": 64, "out_features": 1, "bias": true,
        "activation_function": "torch.nn.modules.linear.Identity"});
    copy.write("2_Dense/config.json", &config);
    // The sum of all elements, and 5.
    let header = json!({
        "linear.weight": {"dtype": "F32", "shape": [1, 64], "data_offsets": [0, 256]},
        "linear.bias": {"dtype": "F32", "shape": [1], "data_offsets": [256, 260]},
    });
    let numbers: Vec<f32> = std::iter::repeat_n(1.0, 64).chain([5.0]).collect();
    copy.tensors("2_Dense/model.safetensors", &header, &numbers);

    let inputs = inputs("bert_embed_mean");
    let found = start(&copy.0, &options(Dtype::Float32, 512)).embed(&borrowed(&inputs));
    let file = common::tensors::Tensors::read(&copy.0.join("reference.safetensors"));
    for (i, found) in found.expect("vectors").iter().enumerate() {
        let wanted = file.floats(&format!("s{i}.pooled")).iter().sum::<f32>() + 5.0;
        assert!((found[0] - wanted).abs() < 1e-3, "{found:?}, wanted {wanted}");
    }
}

/// A decoder with a score in place of its head: the last position's.
#[test]
fn a_decoder_can_score() {
    let copy = Copy::of("qwen3_embed_last", "score");
    copy.change("config.json", "architectures", json!(["Qwen3ForSequenceClassification"]));
    copy.change("config.json", "id2label", json!({"0": "LABEL_0"}));
    // The score's row goes into a shard of its own.
    let (whole, shard) = (copy.0.join("model.safetensors"), copy.0.join("a.safetensors"));
    let bytes = std::fs::read(&whole).expect("weights");
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).expect("a header");
    std::fs::rename(&whole, shard).expect("renamed");
    let names = header.as_object().expect("an object").keys();
    let mut map: serde_json::Map<String, Value> = names
        .filter(|name| *name != "__metadata__")
        .map(|name| (name.clone(), json!("a.safetensors")))
        .collect();
    map.insert("score.weight".to_owned(), json!("b.safetensors"));
    copy.write("model.safetensors.index.json", &json!({"weight_map": map}));
    let row: Vec<f32> = (0..64).map(|n| (n as f32 - 30.0) / 100.0).collect();
    let place = json!({"dtype": "F32", "shape": [1, 64], "data_offsets": [0, 256]});
    copy.tensors("b.safetensors", &json!({"score.weight": place}), &row);

    let inputs = inputs("qwen3_embed_last");
    let found = start(&copy.0, &options(Dtype::Float32, 512)).embed(&borrowed(&inputs));
    let file = common::tensors::Tensors::read(&copy.0.join("reference.safetensors"));
    for (i, found) in found.expect("scores").iter().enumerate() {
        let states = file.floats(&format!("s{i}.last_hidden_state"));
        let last = &states[states.len() - 64..];
        let logit: f32 = last.iter().zip(&row).map(|(x, w)| x * w).sum();
        let wanted = 1.0 / (1.0 + (-logit).exp());
        assert!((found[0] - wanted).abs() < 1e-5, "{found:?}, wanted {wanted}");
    }
}

/// A generator that is asked for "yes" or "no": the share of "yes" in the softmax of both.
#[test]
fn a_generator_can_score() {
    let copy = Copy::of("qwen3", "yes");
    std::fs::remove_file(copy.0.join("tokenizer_config.json")).expect("it was there");
    let vocab = json!({"a": 0, "yes": 7, "no": 11});
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "a"});
    copy.write("tokenizer.json", &json!({"version": "1.0", "added_tokens": [], "model": model}));
    let (files, pooler) = open(&copy.0, Some(Task::Rerank));
    assert!(pooler.reads.pair.is_some() && pooler.task == Task::Rerank);
    let options = options(Dtype::Float32, 64);
    let plan = embed::plan(&files, &pooler, &options, PLENTY).expect("a plan");
    let mut model = embed::start_cpu(&files, pooler, &plan).expect("a start");
    let file = common::tensors::Tensors::read(&copy.0.join("reference.safetensors"));
    for i in 0..4 {
        let ids = file.ids(&format!("p{i}.input_ids"));
        let logits = file.floats(&format!("p{i}.last_logits"));
        let wanted = 1.0 / (1.0 + (logits[11] - logits[7]).exp());
        let found = model.embed(&[Input { ids: &ids, types: &[], skip: 0 }]).expect("a score");
        assert!((found[0][0] - wanted).abs() < 1e-4, "{found:?}, wanted {wanted}");
    }
}

#[test]
fn classes_are_read() {
    let copy = Copy::of("bert_rerank", "classes");
    let check = |expect: &str| {
        let error = copy.describe(None).expect_err(expect);
        assert!(error.contains(expect), "{error}");
    };
    let stages = |copy: &Copy| {
        let pooler = copy.describe(None).expect("sound").expect("a pooler");
        assert_eq!(pooler.size, 1);
        pooler.stages.len()
    };
    assert_eq!(stages(&copy), 2, "pooler and classifier, and no function behind");
    copy.change("config.json", "sentence_transformers", Value::Null);
    assert_eq!(stages(&copy), 3, "a sigmoid where nothing is said");
    let key = "sbert_ce_default_activation_function";
    copy.change("config.json", key, json!("torch.nn.modules.activation.Softmax"));
    check("Softmax is not supported");
    copy.change("config.json", key, Value::Null);
    copy.change("config.json", "id2label", json!({"0": "no", "1": "yes"}));
    check("has 2 classes");
    copy.change("config.json", "id2label", Value::Null);
    check("has 2 classes");
}

/// A fixture without a tokenizer gets one of four words, which the test does not use.
fn encoder(name: &str) -> Copy {
    let copy = Copy::of(&format!("encoders/{name}"), name);
    let vocab = json!({"a": 0, "b": 1, "c": 2, "d": 3});
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "a"});
    copy.write("tokenizer.json", &json!({"version": "1.0", "added_tokens": [], "model": model}));
    copy
}

/// Every family of encoders: the mean of its hidden states, and its classes.
#[test]
fn all_families_are_the_references() {
    let check = |name: &str, tensor: &str, wanted: &dyn Fn(Vec<f32>) -> Vec<f32>| {
        let copy = encoder(name);
        if tensor == "logits" {
            let identity = json!("torch.nn.modules.linear.Identity");
            copy.change("config.json", "sbert_ce_default_activation_function", identity);
        }
        let file = common::tensors::Tensors::read(&copy.0.join("expected.safetensors"));
        let mut model = start(&copy.0, &options(Dtype::Float32, 64));
        for i in 0..2 {
            let ids = file.ids(&format!("s{i}.input_ids"));
            let types = format!("s{i}.token_type_ids");
            let types = if file.has(&types) { file.ids(&types) } else { Vec::new() };
            let input = Input { ids: &ids, types: &types, skip: 0 };
            let found = model.embed(&[input]).expect("a vector").remove(0);
            let off = furthest(&found, &wanted(file.floats(&format!("s{i}.{tensor}"))));
            assert!(off < 2e-5, "{name}, input {i}: off by {off:e}");
        }
    };
    let unit = |vector: Vec<f32>| {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter().map(|x| x / length).collect()
    };
    for name in [
        "bert",
        "roberta",
        "xlm_roberta",
        "distilbert",
        "modernbert",
        "nomic_bert",
        "nomic_bert_native",
    ] {
        check(name, "pooled", &unit);
    }
    for name in [
        "bert_classify",
        "roberta_classify",
        "xlm_roberta_classify",
        "distilbert_classify",
        "modernbert_classify",
        "modernbert_classify_cls",
    ] {
        check(name, "logits", &|logits| logits);
    }
}

/// The plan holds what a call takes: an encoder's longest input in one step.
#[test]
fn the_plan_has_room_for_the_longest_input() {
    for (name, context) in [("bert_embed_mean", 256), ("bert_rerank", 512)] {
        let (files, pooler) = open(&folder(name), None);
        let plan = embed::plan(&files, &pooler, &options(Dtype::Float32, 32), PLENTY);
        let plan = plan.expect("a plan");
        assert_eq!((plan.context, plan.step_tokens_max), (context, context), "{name}");
        let tight = plan.total_bytes() - 1;
        let refused = embed::plan(&files, &pooler, &options(Dtype::Float32, 32), tight);
        assert!(refused.is_err(), "{name} in {tight} bytes");
        let longest = vec![5; context];
        let mut model = embed::start_cpu(&files, pooler, &plan).expect("a start");
        let input = Input { ids: &longest, types: &[], skip: 0 };
        assert_eq!(model.embed(&[input, input]).expect("vectors").len(), 2);
    }
}
