//! Every container against its own definition: matrices packed by the libraries that define the
//! containers, with the f32 weights that they stand for (`containers` of the fixtures).

use std::path::PathBuf;

use kernels::reference::dequant;
use serde_json::Value;

use super::*;
use crate::weights::{Pick, Slab, TensorView};

fn folder() -> PathBuf {
    hearth_tests::fixtures::reference("containers")
}

/// A fixture: its tensors under their full names, and what describes them.
struct Case {
    tensors: Tensors,
    container: Result<Container, LoadError>,
    name: String,
    /// `[out, in]`, perhaps of a stack.
    shape: Vec<usize>,
}

impl Case {
    fn open(name: &str) -> Self {
        let path = folder().join(format!("{name}.json"));
        let about: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let config = serde_json::json!({ "quantization_config": about["quantization_config"] });
        let config = Fields::parse(&path, config.to_string().as_bytes()).unwrap();
        let sizes = about["shape"].as_array().unwrap().iter();
        let prefix = about["prefix"].as_str().unwrap();
        // A stack's name is what its tensors' names begin with.
        let weight = if prefix.ends_with('.') { "weight" } else { "" };
        Self {
            tensors: Tensors::open_file(folder().join(format!("{name}.safetensors"))).unwrap(),
            container: Container::read(&config, None),
            name: format!("{prefix}{weight}"),
            shape: sizes.map(|size| size.as_u64().unwrap() as usize).collect(),
        }
    }

    fn want(&self, slab: Option<Slab>) -> Want<'_> {
        let [.., rows, cols] = self.shape[..] else { panic!("a matrix") };
        Want { name: &self.name, rows, cols, slab, transposed: false, vector: false }
    }

    /// The rows of `pick`, as the kernels take them.
    fn view(&self, slab: Option<Slab>, pick: Pick, rows: usize) -> TensorView<'_> {
        let container = self.container.as_ref().unwrap_or_else(|error| panic!("{error}"));
        let want = self.want(slab);
        let found = container.open(&self.tensors, &want);
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert!(found.quantized);
        let runs = pick.runs(rows).unwrap();
        found.opened.view(&runs, want.cols).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What the container's library makes of it.
    fn expected(&self) -> Vec<f32> {
        blocks::numbers(&self.tensors.need("expected").unwrap()).unwrap()
    }
}

/// The values of a view in their own order.
fn values(view: &TensorView<'_>) -> Vec<f32> {
    let mut out = vec![0.0; view.rows * view.cols];
    let row_bytes = view.format.row_bytes(view.cols);
    let mut row = vec![0.0; view.cols];
    for (bytes, out) in view.bytes.chunks_exact(row_bytes).zip(out.chunks_exact_mut(view.cols)) {
        dequant::row(view.format, bytes, &mut row);
        match &view.order {
            None => out.copy_from_slice(&row),
            Some(order) => {
                for (value, &at) in row.iter().zip(order) {
                    out[at as usize] = *value;
                }
            }
        }
    }
    out
}

/// Distance of two numbers in steps between neighbouring f32.
fn ulps(left: f32, right: f32) -> u32 {
    let place = |x: f32| {
        let bits = x.to_bits() as i32;
        if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
    };
    place(left).abs_diff(place(right))
}

fn check(name: &str, found: &[f32], expected: &[f32], ulps_max: u32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let off = ulps(found, expected);
        assert!(off <= ulps_max, "{name}, element {at}: {found:e}, expected {expected:e}");
    }
}

/// All of them but those that are refused.
fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".json").map(str::to_owned)
    });
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("nvfp4")).collect();
    names.sort();
    assert!(names.len() > 40, "{}", names.len());
    names
}

#[test]
fn values_are_the_librarys() {
    for name in names() {
        let case = Case::open(&name);
        let expected = case.expected();
        let rows = case.shape[case.shape.len() - 2];
        let each = rows * case.shape[case.shape.len() - 1];
        let stack = expected.len() / each;
        // The scale is divided by 127 first here, which is one more rounding.
        let ulps_max = if name == "bnb_int8" { 2 } else { 1 };
        for (index, expected) in expected.chunks_exact(each).enumerate() {
            let slab = (case.shape.len() == 3).then_some(Slab { of: stack, index });
            check(&name, &values(&case.view(slab, Pick::All, rows)), expected, ulps_max);
        }
    }
}

/// Fused tensors: any rows of any container, with their own scales.
#[test]
fn rows_can_be_picked() {
    for name in names() {
        let case = Case::open(&name);
        let expected = case.expected();
        let [.., rows, cols] = case.shape[..] else { panic!("a matrix") };
        let slab =
            (case.shape.len() == 3).then_some(Slab { of: expected.len() / rows / cols, index: 0 });
        let row = |at: usize| &expected[at * cols..][..cols];
        let whole = rows / 2 * 2;
        for (pick, wanted) in [
            (Pick::Run { first: 1, of: rows }, (1..rows).collect::<Vec<_>>()),
            (Pick::EveryOther { first: 1 }, (1..whole).step_by(2).collect()),
            (
                Pick::OfEach { count: 2, stride: rows / 2, first: rows / 2 - 1 },
                vec![rows / 2 - 1, rows / 2 * 2 - 1],
            ),
        ] {
            let expected: Vec<f32> = wanted.iter().flat_map(|&at| row(at)).copied().collect();
            let found = values(&case.view(slab, pick, wanted.len()));
            check(&format!("{name} {pick:?}"), &found, &expected, 2);
        }
    }
}

#[test]
fn what_has_no_exact_format_is_refused_by_name() {
    for (name, wanted) in [
        ("nvfp4_ct", "format: nvfp4-pack-quantized is not supported"),
        ("nvfp4_modelopt", "quant_algo: NVFP4 is not supported"),
    ] {
        let problem = Case::open(name).container.err().expect("refused").problem;
        assert!(problem.contains(wanted), "{problem}");
    }
}
