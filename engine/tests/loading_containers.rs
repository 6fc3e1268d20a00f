//! Quantized containers and split files through the door that everybody uses: whole folders
//! open, and what does not fit together is refused with the file, the tensor and the reason.

mod loading_kit;

use std::fs;

use engine::LoadError;
use engine::open::{Wordless, open_weights};
use engine::spec::{LayerPart as P, Role};
use kernels::{Format, Group};
use loading_kit::{Folder, Gguf, Meta, Tensor, error_of, fixture, read_safetensors, safetensors};
use serde_json::{Value, json};

/// Opens a fixture with its config.json and its tensors changed.
fn changed(
    name: &str,
    change: impl FnOnce(&mut Value, &mut Vec<Tensor>),
) -> (Folder, Result<Wordless, LoadError>) {
    let folder = Folder::new();
    let mut config = serde_json::from_slice(&fs::read(fixture(name).join("config.json")).unwrap());
    let mut tensors = read_safetensors(&fixture(name).join("model.safetensors"));
    change(config.as_mut().unwrap(), &mut tensors);
    folder.write("config.json", config.unwrap().to_string());
    folder.write("model.safetensors", safetensors(&tensors));
    let model = open_weights(&folder.0);
    (folder, model)
}

fn at<'t>(tensors: &'t mut [Tensor], ending: &str) -> &'t mut Tensor {
    tensors.iter_mut().find(|tensor| tensor.0.ends_with(ending)).expect("it is there")
}

#[test]
fn published_layouts_open() {
    use Group::{G32, G128};
    for (name, format) in [
        ("llama_gptq_w4g128", Format::U4(G128)),
        ("llama_awq_w4g128", Format::U4(G128)),
        ("llama_fp8_block", Format::F8E4M3(G128)),
        ("llama_ct_int4", Format::U4(G128)),
        ("llama_gqa", Format::Bf16),
    ] {
        let model = open_weights(&fixture(name)).unwrap_or_else(|error| panic!("{error}"));
        let hidden = model.spec.hidden;
        let view =
            model.weights.tensor(Role::Layer(1, P::Gate), model.spec.layers[1].mlp.width(), hidden);
        let view = view.unwrap();
        assert_eq!(view.format, format, "{name}");
        assert_eq!(view.bytes.len(), view.rows * format.row_bytes(hidden), "{name}");
    }
    // 8-bit floats without a container: as they are.
    let (_folder, model) = changed("llama_gqa", |_, tensors| {
        for (ending, dtype) in
            [("0.mlp.up_proj.weight", "F8_E4M3"), ("0.mlp.gate_proj.weight", "F8_E5M2")]
        {
            let tensor = at(tensors, ending);
            tensor.1 = dtype.to_owned();
            tensor.3.truncate(160 * 64);
        }
    });
    let model = model.unwrap_or_else(|error| panic!("{error}"));
    for (part, format) in [(P::Up, Format::F8E4M3(G32)), (P::Gate, Format::F16)] {
        assert_eq!(model.weights.tensor(Role::Layer(0, part), 160, 64).unwrap().format, format);
    }
}

#[test]
fn what_has_no_effect_is_noted() {
    let number = |name: &str| (name.to_owned(), "F32".to_owned(), vec![], vec![0, 0, 128, 63]);
    let (_folder, model) = changed("llama_fp8_block", |_, tensors| {
        tensors.push(number("model.layers.0.self_attn.q_proj.input_scale"));
        tensors.push(number("model.layers.0.self_attn.k_scale"));
        tensors.push(number("vision_tower.patch.weight"));
    });
    let notes = model.unwrap_or_else(|error| panic!("{error}")).notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
    for part in ["input scales have no effect", "8-bit KV cache", "text only"] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    }
    // A bias that adds nothing is what converters write; one that adds something is refused.
    for (byte, wanted) in [(0, None), (1, Some("q_proj.bias has no place"))] {
        let (_folder, model) = changed("llama_gptq_w4g128", |_, tensors| {
            let name = "model.layers.0.self_attn.q_proj.bias".to_owned();
            tensors.push((name, "F16".to_owned(), vec![256], vec![byte; 512]));
        });
        let found = model.err().map(|error| error.to_string());
        assert_eq!(found.is_some(), wanted.is_some(), "{found:?}");
        assert!(wanted.is_none_or(|wanted| found.unwrap().contains(wanted)));
    }
}

#[test]
fn names_below_a_wrapper_are_found() {
    for (base, head) in [
        ("language_model.model.", "language_model.lm_head."),
        ("model.language_model.", "lm_head."),
    ] {
        let (_folder, model) = changed("llama_gqa", |_, tensors| {
            for tensor in tensors {
                let rest = tensor.0.strip_prefix("model.").map(|rest| format!("{base}{rest}"));
                let of_head = || tensor.0.replacen("lm_head.", head, 1);
                tensor.0 = rest.unwrap_or_else(of_head);
            }
        });
        assert!(model.is_ok(), "{base}: {}", model.err().unwrap());
    }
}

type Change = fn(&mut Value, &mut Vec<Tensor>);

/// A fixture, a change, and what the refusal says.
fn check_refusals(cases: &[(&str, Change, &str)]) {
    for (name, change, wanted) in cases {
        let (folder, model) = changed(name, change);
        let found = match model {
            Err(error) => error,
            // What only its data shows is found when it is read.
            Ok(model) => {
                let mut all = model.spec.tensors().into_iter();
                let error = all
                    .find_map(|need| model.weights.tensor(need.role, need.rows, need.cols).err());
                error.unwrap_or_else(|| panic!("{name} opened; wanted {wanted}"))
            }
        };
        assert!(found.problem.contains(wanted), "{name}: {found}; wanted {wanted}");
        assert!(found.file.starts_with(&folder.0), "{found}");
    }
}

#[test]
fn gptq_parts_that_do_not_fit_are_refused() {
    check_refusals(&[
        ("llama_gptq_w4g128", |c, _| c["quantization_config"]["bits"] = json!(5), "bits: 5 is not"),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["bits"] = json!(8),
            "q_proj.qweight is 32 x 256; config.json asks for 64 x 256",
        ),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["group_size"] = json!(64),
            "q_proj.qzeros is 2 x 32; config.json asks for 4 x 32",
        ),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["group_size"] = json!(48),
            "multiples of 32",
        ),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["checkpoint_format"] = json!("marlin"),
            "marlin is not supported; gptq and gptq_v2 are",
        ),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["dynamic"] = json!({"-:.*down": {}}),
            "`dynamic` leaves it out",
        ),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["dynamic"] = json!({"-:(": {}}),
            "is not a regular expression",
        ),
        (
            "llama_gptq_w4g128",
            |_, t| t.retain(|tensor| !tensor.0.ends_with("1.mlp.down_proj.scales")),
            "1.mlp.down_proj.scales is missing",
        ),
        (
            "llama_gptq_w4g128",
            |_, t| at(t, "0.mlp.up_proj.scales").1 = "I16".to_owned(),
            "0.mlp.up_proj.scales has elements of type I16, wanted F16 or BF16 or F32",
        ),
        (
            "llama_gptq_w4g128",
            |c, _| c["quantization_config"]["quant_method"] = json!("quip"),
            "quantization method quip is not supported",
        ),
    ]);
}

#[test]
fn awq_and_fp8_parts_that_do_not_fit_are_refused() {
    check_refusals(&[
        (
            "llama_gqa",
            |c, _| c["quantization_config"] = json!({"quant_method": "mxfp4"}),
            "none of",
        ),
        (
            "llama_awq_w4g128",
            |c, _| c["quantization_config"]["version"] = json!("gemv"),
            "version: layouts other than gemm",
        ),
        (
            "llama_fp8_block",
            |c, _| c["quantization_config"]["weight_block_size"] = json!([64, 64]),
            "q_proj.weight_scale_inv is 2 x 2; a matrix of 256 x 256 has one scale, 256 x 1 or \
             4 x 4",
        ),
        (
            "llama_fp8_block",
            |_, t| t.retain(|tensor| !tensor.0.ends_with("0.mlp.up_proj.weight_scale_inv")),
            "0.mlp.up_proj.weight_scale is missing",
        ),
        (
            "llama_fp8_block",
            |c, _| c["quantization_config"] = Value::Null,
            "weight_scale_inv has no place",
        ),
    ]);
}

#[test]
fn compressed_parts_that_do_not_fit_are_refused() {
    check_refusals(&[
        (
            "llama_ct_int4",
            |c, _| c["quantization_config"]["ignore"] = json!(["re:.*up_proj"]),
            "up_proj.weight_packed is quantized, but config.json's `ignore` names it",
        ),
        (
            "llama_ct_int4",
            |c, _| c["quantization_config"]["config_groups"]["group_0"]["targets"] = json!(["x"]),
            "no group of config.json's `config_groups` targets it",
        ),
        (
            "llama_ct_int4",
            |c, _| c["quantization_config"]["sparsity_config"] = json!({"format": "sparse-24"}),
            "sparse weights are not",
        ),
        (
            "llama_ct_int4",
            |_, t| at(t, "0.mlp.up_proj.weight_shape").3[0] ^= 1,
            "0.mlp.up_proj.weight_shape says",
        ),
        (
            "llama_ct_int4",
            |c, _| c["quantization_config"]["format"] = json!("nvfp4-pack-quantized"),
            "format: nvfp4-pack-quantized is not supported",
        ),
    ]);
}

#[test]
fn damaged_data_is_found_when_it_is_read() {
    for (name, ending, bytes, wanted) in [
        ("llama_gptq_w4g128", "0.mlp.up_proj.g_idx", [9, 0, 0, 0], "puts column 0 into group 9"),
        ("llama_gptq_w4g128", "0.mlp.up_proj.g_idx", [255; 4], "into group -1; there are 2"),
        ("llama_gptq_w4g128", "0.mlp.up_proj.g_idx", [1, 0, 0, 0], "no multiple of 128"),
        ("llama_gptq_w4g128", "0.mlp.up_proj.scales", [0, 0x7e, 0, 0], "holds NaN at 0"),
        ("llama_awq_w4g128", "0.mlp.up_proj.scales", [0, 0x7c, 0, 0], "holds inf at 0"),
        ("llama_fp8_block", "0.mlp.up_proj.weight_scale_inv", [0, 0, 192, 127], "holds NaN at 0"),
    ] {
        let (_folder, model) =
            changed(name, |_, tensors| at(tensors, ending).3[..4].copy_from_slice(&bytes));
        let model = model.unwrap_or_else(|error| panic!("{error}"));
        let error = model.weights.tensor(Role::Layer(0, P::Up), 512, 256).unwrap_err();
        assert!(error.problem.contains(wanted) && error.problem.contains(ending), "{error}");
    }
}

#[test]
fn other_files_of_a_folder() {
    let folder = Folder::copy_of("llama_gqa", &["config.json", "model.safetensors"]);
    let (from, to) = (folder.0.join("model.safetensors"), folder.0.join("weights.safetensors"));
    fs::rename(from, &to).unwrap();
    assert!(open_weights(&folder.0).is_ok(), "one file of another name");
    fs::copy(&to, folder.0.join("more.safetensors")).unwrap();
    assert!(error_of(open_weights(&folder.0)).contains("has 2 safetensors files and no"));
    fs::remove_file(folder.0.join("more.safetensors")).unwrap();
    fs::rename(&to, folder.0.join("consolidated.safetensors")).unwrap();
    assert!(error_of(open_weights(&folder.0)).contains("name tensors in their author's own way"));
    // An old GPTQ folder describes its container in a file of its own.
    let name = "llama_gptq_w4g128";
    let (folder, model) = changed(name, |config, _| config["quantization_config"] = Value::Null);
    assert!(model.is_err());
    folder.write("quantize_config.json", json!({"bits": 4, "group_size": 128}).to_string());
    assert!(open_weights(&folder.0).is_ok());
}

/// The tiny model in two parts.
fn split(change: impl FnOnce(&mut [Gguf; 2])) -> Folder {
    let folder = Folder::new();
    let mut first = Gguf::tiny("llama");
    let tensors = first.tensors.split_off(5);
    let mut parts = [first.clone(), Gguf { keys: Vec::new(), tensors, ..first }];
    for (number, part) in parts.iter_mut().enumerate() {
        part.set("split.no", Meta::U32(number as u32));
        part.set("split.count", Meta::U32(2));
        part.set("split.tensors.count", Meta::U32(11));
    }
    change(&mut parts);
    for (number, part) in parts.iter().enumerate() {
        folder.write(&format!("m-0000{}-of-00002.gguf", number + 1), part.bytes().0);
    }
    folder
}

#[test]
fn split_gguf_files() {
    let whole = Folder::new();
    let whole = open_weights(&whole.write("m.gguf", Gguf::tiny("llama").bytes().0)).unwrap();
    let folder = split(|_| ());
    for name in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] {
        let model = open_weights(&folder.0.join(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(model.spec, whole.spec);
        for need in whole.spec.tensors() {
            let [left, right] = [&model, &whole]
                .map(|model| model.weights.tensor(need.role, need.rows, need.cols).unwrap());
            assert_eq!(left.bytes, right.bytes, "{need:?}");
        }
    }
    let error = |folder: &Folder| error_of(open_weights(&folder.0.join("m-00001-of-00002.gguf")));
    let folder = split(|parts| parts[1].set("split.no", Meta::U32(0)));
    assert!(error(&folder).contains("m-00002-of-00002.gguf: is not part 2 of 2"));
    let folder = split(|parts| parts[0].set("split.tensors.count", Meta::U32(12)));
    assert!(error(&folder).contains("says 12, but all parts have 11 tensors"));
    let folder = split(|parts| {
        let twice = parts[0].tensors[0].clone();
        parts[1].tensors.push(twice);
    });
    assert!(error(&folder).contains("tensor token_embd.weight stands in two parts"));
    let folder = split(|_| ());
    fs::remove_file(folder.0.join("m-00002-of-00002.gguf")).unwrap();
    assert!(error(&folder).contains("m-00002-of-00002.gguf: cannot be opened"));
    let other = folder.0.join("renamed.gguf");
    fs::rename(folder.0.join("m-00001-of-00002.gguf"), &other).unwrap();
    assert!(error_of(open_weights(&other)).contains("its name does not end in -00001-of-00002"));
}
