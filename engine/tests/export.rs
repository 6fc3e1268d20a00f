//! Models written as GGUF files and opened again: plain types compute what the source computes,
//! quantized ones what their numbers say, and what cannot be written is refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use engine::export::{ExportError, MIXTURES, Mixture, Options, Report, export};
use engine::model::Dtype;
use engine::open;
use kernels::Format;
use serde_json::{Value, json};

mod common;
use common::reference::Reference;
use common::rig::Rig;

/// Rows of q and k are reordered in some families, and with them the order of additions of a
/// score; float32 noise of two correct orders stays below this.
const NOISE: f32 = 2e-4;

/// A folder of its own below the target folder, emptied first.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("export").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn demo() -> PathBuf {
    hearth_tests::fixtures::demo()
}

fn options(name: &str) -> Options {
    let mixture = Mixture::by_name(name).expect("a mixture");
    Options { mixture, threads: 2, force: false }
}

fn write(from: &Path, to: &Path, name: &str) -> Report {
    let mut seen = 0;
    let report = export(from, to, &options(name), &mut |progress| {
        assert_eq!(progress.done, seen, "progress is told in order");
        seen += 1;
    });
    let report = report.unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    assert_eq!(report.after, fs::metadata(to).expect("the target").len());
    assert_eq!(seen, report.spreads.iter().map(|spread| spread.tensors).sum::<usize>());
    let parts = fs::read_dir(to.parent().expect("a folder")).expect("a folder").flatten();
    let parts = parts.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(parts.count(), 0, "no temporary file stays");
    report
}

fn logits(path: &Path, tokens: &[u32]) -> Vec<Vec<f32>> {
    let files = open(path).unwrap_or_else(|error| panic!("{error}"));
    Rig::new(&files, Dtype::Float32).logits(tokens, &[tokens.len()])
}

fn largest(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A fixture in another plain type, or its own, gives the same logits.
fn check_plain(name: &str, to: &str, most: f32) {
    let reference = Reference::folder(name);
    let target = scratch(&format!("{name}-{to}")).join("model.gguf");
    write(&reference.model, &target, to);
    let tokens = &reference.prompts[0].input_ids;
    let (before, after) = (logits(&reference.model, tokens), logits(&target, tokens));
    let moved = largest(&before, &after);
    println!("{name:20} {to}: logits moved by {moved:.1e}");
    assert!(moved <= most, "{name} as {to}: logits moved by {moved}");
    let stored = reference.tensors.floats("p0.last_logits");
    let last = vec![after.last().expect("logits").clone()];
    let far = largest(&last, &[stored]);
    assert!(far < 5e-4, "{name} as {to}: {far} from transformers");
}

#[test]
fn plain_files_compute_what_their_source_does() {
    // Their own types, whose bits go over as they are.
    check_plain("llama_gqa", "bf16", 0.0);
    check_plain("llama_bias", "f16", 0.0);
    check_plain("qwen3", "f32", 0.0);
    for name in ["llama_tied", "mistral_swa", "mixtral"] {
        check_plain(name, "f32", NOISE);
    }
    for name in ["qwen2", "qwen3_moe", "olmo2", "phi3_longrope"] {
        check_plain(name, "f32", 1e-5);
    }
    check_plain("granite", "f32", NOISE);
}

/// Copies a fixture and changes its config.json; a folder without a tokenizer gets one.
fn changed(name: &str, change: impl Fn(&mut Value)) -> PathBuf {
    let (from, to) = (hearth_tests::fixtures::reference(name), scratch(&name.replace('/', "-")));
    for entry in fs::read_dir(from).expect("a fixture").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
    let path = to.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    change(&mut config);
    fs::write(path, config.to_string()).expect("written");
    if !to.join("tokenizer.json").exists() {
        let letters = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
        let vocab = letters.zip((0..).map(Value::from)).collect::<serde_json::Map<_, _>>();
        let steps = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let model = json!({"type": "BPE", "vocab": vocab, "merges": []});
        let json = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": steps,
            "decoder": steps, "model": model,
        });
        fs::write(to.join("tokenizer.json"), json.to_string()).expect("written");
    }
    to
}

fn check_changed(name: &str, most: f32, change: impl Fn(&mut Value)) {
    let source = changed(name, change);
    let target = source.join("model.gguf");
    write(&source, &target, "f32");
    let tokens: Vec<u32> = (0..40).map(|n| n * 7 % 90).collect();
    let moved = largest(&logits(&source, &tokens), &logits(&target, &tokens));
    println!("{name:30} logits moved by {moved:.1e}");
    assert!(moved <= most, "{name}: logits moved by {moved}");
}

/// Gemma's headers cannot say what queries are scaled by, other than the published numbers.
#[test]
fn families_of_other_fixtures() {
    let scalar = |config: &mut Value| config["query_pre_attn_scalar"] = config["head_dim"].clone();
    check_changed("gemma2", 1e-5, scalar);
    check_changed("gemma3_text", 1e-5, scalar);
    check_changed("families/gemma1", 1e-5, |_| ());
    for name in ["starcoder2", "phi4mini"] {
        check_changed(&format!("families/{name}"), 1e-5, |_| ());
    }
    for name in ["llama_linear", "mistral_head_dim"] {
        check_changed(&format!("families/{name}"), NOISE, |_| ());
    }
    // Its headers cannot list the layers that do not turn: every fourth is understood.
    check_changed("families/smollm3", NOISE, |config| {
        let fields = config.as_object_mut().expect("an object");
        fields.retain(|key, _| !key.starts_with("no_rope_layer"));
    });
}

/// The source's own type goes over bit for bit.
#[test]
fn the_own_type_loses_nothing() {
    let target = scratch("own").join("demo.gguf");
    let report = write(&demo(), &target, "bf16");
    assert!(report.spreads.iter().all(|spread| spread.error() <= 0.0), "{:?}", report.spreads);
    let tokens: Vec<u32> = (0..48).map(|n| n * 37 % 2000).collect();
    let moved = largest(&logits(&demo(), &tokens), &logits(&target, &tokens));
    assert!(moved <= NOISE, "logits moved by {moved}");
}

/// A quantized file computes what the numbers that it stands for compute: written again as f32,
/// which widens every block, it gives the same logits. So blocks, names and places are right.
#[test]
fn every_mixture_stands_for_its_numbers() {
    let folder = scratch("mixtures");
    let tokens: Vec<u32> = (0..40).map(|n| n * 53 % 2000).collect();
    let source = logits(&demo(), &tokens);
    let size = source.iter().flatten().map(|logit| logit * logit).sum::<f32>().sqrt();
    let mut formats = Vec::new();
    for mixture in MIXTURES.iter().filter(|mixture| mixture.base.is_quantized()) {
        let quantized = folder.join(format!("{}.gguf", mixture.name));
        let widened = folder.join(format!("{}-f32.gguf", mixture.name));
        let report = write(&demo(), &quantized, mixture.name);
        formats.extend(report.spreads.iter().map(|spread| spread.format));
        let note = write(&quantized, &widened, "f32").notes.join("\n");
        assert!(note.contains("lose quality twice"), "{}: {note}", mixture.name);
        let found = logits(&quantized, &tokens);
        let moved = largest(&found, &logits(&widened, &tokens));
        let pairs = found.iter().flatten().zip(source.iter().flatten());
        let far = pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt() / size;
        let bytes = report.after;
        println!("{:8} {bytes:>9} bytes, logits off by {:.2} %", mixture.name, far * 100.0);
        assert!(moved <= 1e-3, "{}: {moved} from its own numbers", mixture.name);
        assert!(far < 0.7, "{}: logits off by {far}", mixture.name);
        fs::remove_file(&widened).expect("removed");
    }
    for format in kernels::quantize::FORMATS.iter().filter(|format| format.is_quantized()) {
        assert!(formats.contains(format), "no mixture of the demo wrote {}", format.name());
    }
    assert!(formats.contains(&Format::F32), "norms stay plain");
}

#[track_caller]
fn check_refusal(from: &Path, to: &Path, expect: &str) {
    let error = export(from, to, &options("q8_0"), &mut |_| ()).expect_err("a refusal");
    assert!(error.to_string().contains(expect), "{error}");
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let folder = scratch("refusals");
    let target = folder.join("model.gguf");
    check_refusal(&demo(), &folder, "is a folder");
    check_refusal(&folder.join("none"), &target, "none");
    let scaled = Reference::folder("gemma2").model;
    check_refusal(&scaled, &target, "in layer 0 it would say `scale: 0.17677669` where the source");
    check_refusal(&changed("families/llama_yarn", |_| ()), &target, "yarn");
    check_refusal(&Reference::folder("gpt_oss").model, &target, "gpt");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0, "nothing is left behind");

    write(&demo(), &target, "q4_0");
    check_refusal(&demo(), &target, "is there already");
    check_refusal(&target, &target, "is the source itself");
    let force = Options { force: true, ..options("q8_0") };
    export(&demo(), &target, &force, &mut |_| ()).expect("replaced");
    assert_eq!(open(&target).expect("opens").format, Format::Q8_0);

    let nowhere = folder.join("none/model.gguf");
    let error = export(&demo(), &nowhere, &options("q8_0"), &mut |_| ()).expect_err("no folder");
    assert!(matches!(error, ExportError::Write(..)), "{error}");
}

/// A number that is none is named with its tensor.
#[test]
fn numbers_that_are_none_are_refused() {
    let folder = scratch("infinite");
    for entry in fs::read_dir(demo()).expect("the demo").flatten() {
        if entry.path().is_file() {
            let bytes = fs::read(entry.path()).expect("a file");
            fs::write(folder.join(entry.file_name()), bytes).expect("copied");
        }
    }
    let weights = folder.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let end = bytes.len();
    // The last tensor's last number, as an infinite bf16.
    bytes[end - 2..].copy_from_slice(&0x7f80_u16.to_le_bytes());
    fs::write(&weights, bytes).expect("written");
    let target = folder.join("model.gguf");
    check_refusal(&folder, &target, "has inf in row");
    assert!(!target.exists());
}
