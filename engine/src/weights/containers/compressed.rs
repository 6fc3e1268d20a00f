//! The layouts of the compressed-tensors library (`pack-quantized`, `int-quantized`,
//! `float-quantized`, `naive-quantized`).
//!
//! ```text
//! weight_packed      I32 [out, in * bits / 32]   unsigned codes along a row, lowest bits first
//! weight             I8 or F8_E4M3 [out, in]     instead, where nothing is packed
//! weight_scale       [1], [out, 1], [out, groups] or blocks
//! weight_zero_point  absent: symmetric; I8 as weight_scale, or packed along the rows
//! weight_shape       I64 [2]                     out, in
//! weight_g_idx       I32 [in]                    the group of each input (act-order)
//! W = scale * (code - zero), where a packed code's zero is 2^(bits - 1) more
//! ```
//!
//! Activations may be meant to be rounded too; they are not (see `fp8`).

use kernels::Format;

use super::super::matrix::Matrix;
use super::super::shards::{Tensor, Tensors};
use super::super::{LoadError, shape_text};
use super::columns::Columns;
use super::grid::Grid;
use super::pattern::Pattern;
use super::{Found, Want, blocks, bytes_of, codes_of, fp8, group_within, shown};
use crate::config::Fields;

const NAME: &str = "compressed-tensors";
/// Layouts that are read.
const LAYOUTS: [&str; 4] =
    ["pack-quantized", "int-quantized", "float-quantized", "naive-quantized"];
/// Published files have one to three groups.
const GROUPS_MAX: usize = 256;
const GROUP_MAX: usize = 1 << 20;

/// What config.json says.
pub(crate) struct Settings {
    groups: Vec<Scheme>,
    ignore: Vec<Pattern>,
    /// Activations are meant to be rounded too.
    pub(super) rounds_inputs: bool,
}

/// How the weights of some modules are quantized.
struct Scheme {
    targets: Vec<Pattern>,
    /// All linear layers.
    linear: bool,
    bits: usize,
    float: bool,
    symmetric: bool,
    /// Rows and columns that share a scale, where it is not a tensor or a row.
    block: Option<[usize; 2]>,
}

impl Settings {
    pub(super) fn read(fields: &Fields) -> Result<Self, LoadError> {
        let layout = fields.word("format")?.unwrap_or("dense");
        check_layout(fields, layout)?;
        if let Some(sparse) = fields.object("sparsity_config")?
            && let Some(layout) = sparse.word("format")?.filter(|&layout| layout != "dense")
        {
            let problem = format!("{} is not supported; sparse weights are not", shown(layout));
            return Err(sparse.wrong("format", &problem));
        }
        if let Some(transforms) = fields.object("transform_config")?
            && let Some(groups) = transforms.object("config_groups")?
            && groups.keys().next().is_some()
        {
            return Err(fields.wrong("transform_config", "rotated weights are not supported"));
        }
        let (mut groups, mut rounds_inputs) = (Vec::new(), false);
        if let Some(list) = fields.object("config_groups")? {
            for key in list.keys().take(GROUPS_MAX) {
                if let Some(group) = list.object(key)? {
                    rounds_inputs |= group.get("input_activations").is_some();
                    groups.push(Scheme::read(&group)?);
                }
            }
        }
        if groups.is_empty() {
            return Err(fields.wrong("config_groups", "names no group of modules"));
        }
        let ignore = fields.words("ignore")?.unwrap_or_default();
        let ignore = ignore.iter().map(|text| Pattern::read(fields, "ignore", text));
        let ignore = ignore.collect::<Result<_, _>>()?;
        Ok(Self { groups, ignore, rounds_inputs })
    }

    /// What applies to a module that is stored quantized.
    fn of(&self, module: &str, tensor: &Tensor<'_>) -> Result<&Scheme, LoadError> {
        if self.ignore.iter().any(|pattern| pattern.matches(module)) {
            return Err(tensor.wrong("is quantized, but config.json's `ignore` names it"));
        }
        let named = |scheme: &&Scheme| scheme.targets.iter().any(|target| target.matches(module));
        let found = self.groups.iter().find(named);
        found.or_else(|| self.groups.iter().find(|scheme| scheme.linear)).ok_or_else(|| {
            tensor.wrong("is quantized, but no group of config.json's `config_groups` targets it")
        })
    }
}

fn check_layout(fields: &Fields, layout: &str) -> Result<(), LoadError> {
    // Files with several layouts name each group's own.
    if LAYOUTS.contains(&layout) || layout == "mixed-precision" {
        return Ok(());
    }
    let known = LAYOUTS.join(", ");
    let problem = format!("{} is not supported; {known} are", shown(layout));
    Err(fields.wrong("format", &problem))
}

impl Scheme {
    fn read(group: &Fields) -> Result<Self, LoadError> {
        if let Some(layout) = group.word("format")? {
            check_layout(group, layout)?;
        }
        let Some(weights) = group.object("weights")? else {
            return Err(group.wrong("weights", "is missing; only weights are quantized here"));
        };
        let texts = group.words("targets")?.unwrap_or_default();
        let linear = texts.contains(&"Linear");
        let targets = texts.iter().map(|text| Pattern::read(group, "targets", text));
        let float = match weights.word("type")? {
            None | Some("int") => false,
            Some("float") => true,
            Some(other) => {
                let problem = format!("{} is neither int nor float", shown(other));
                return Err(weights.wrong("type", &problem));
            }
        };
        let strategy = weights.word("strategy")?.unwrap_or("tensor");
        let group_size = weights.number("group_size", -1.0, GROUP_MAX as f64)?;
        let block = match (strategy, group_size) {
            ("tensor" | "channel", _) | ("group", Some(-1.0)) => None,
            ("group", Some(size)) if size >= 1.0 && size.fract() == 0.0 => Some([1, size as usize]),
            ("group", _) => return Err(weights.wrong("group_size", "is missing")),
            ("block", _) => {
                let block = weights.get("block_structure").and_then(fp8::block_of);
                Some(block.ok_or_else(|| {
                    weights.wrong("block_structure", "wanted a list of two numbers of elements")
                })?)
            }
            (other, _) => {
                let problem = format!(
                    "{} is not supported; tensor, channel, group and block are",
                    shown(other)
                );
                return Err(weights.wrong("strategy", &problem));
            }
        };
        Ok(Self {
            targets: targets.collect::<Result<_, _>>()?,
            linear,
            bits: weights.need("num_bits", 64)?,
            float,
            symmetric: weights.flag("symmetric")?.unwrap_or(true),
            block,
        })
    }
}

/// Opens a matrix, if it is stored so.
pub(super) fn open<'a>(
    settings: &Settings,
    tensors: &'a Tensors,
    want: &Want<'_>,
) -> Result<Option<Found<'a>>, LoadError> {
    let module = want.module();
    let find = |name: &str| tensors.find(&format!("{module}.{name}"));
    let plain = find("weight").filter(|weight| ["I8", "F8_E4M3"].contains(&weight.dtype.name));
    let Some(codes) = find("weight_packed").or(plain) else { return Ok(None) };
    let scheme = settings.of(module, &codes)?;
    let scale = tensors.need(&format!("{module}.weight_scale"))?;
    let zero = find("weight_zero_point");
    if codes.dtype.name == "F8_E4M3" {
        if !scheme.float || scheme.bits != 8 {
            return Err(codes.wrong(scheme.contradicts("8-bit floats")));
        }
        let mut found = fp8::scaled(codes, scale, scheme.block.unwrap_or([1, want.cols]), want)?;
        // Some writers store the zero points of symmetric weights.
        if let Some(zero) = zero {
            all_zero(&zero)?;
            found.used.push(zero.name);
        }
        return Ok(Some(found));
    }
    want.single(NAME, &codes)?;
    let packed = codes.name.ends_with("weight_packed");
    let bits = if packed { scheme.bits } else { 8 };
    if scheme.float || ![2, 3, 4, 8].contains(&bits) || (!packed && scheme.bits > 8) {
        let what = if packed { "packed integers of 2, 3, 4 or 8 bits" } else { "8-bit integers" };
        return Err(codes.wrong(scheme.contradicts(what)));
    }
    integers(&Parts { tensors, module, codes, scale, zero, bits, packed }, scheme, want).map(Some)
}

impl Scheme {
    fn contradicts(&self, found: &str) -> String {
        let kind = if self.float { "floats" } else { "integers" };
        format!("is stored as {found}; config.json says {} bits, {kind}", self.bits)
    }
}

/// The tensors of a matrix of integers.
struct Parts<'a, 'n> {
    tensors: &'a Tensors,
    module: &'n str,
    codes: Tensor<'a>,
    scale: Tensor<'a>,
    zero: Option<Tensor<'a>>,
    bits: usize,
    packed: bool,
}

fn integers<'a>(
    parts: &Parts<'a, '_>,
    scheme: &Scheme,
    want: &Want<'_>,
) -> Result<Found<'a>, LoadError> {
    let &Parts { tensors, module, codes, scale, zero, bits, packed } = parts;
    let &Want { rows, cols, .. } = want;
    let mut used = vec![codes, scale];
    if packed {
        if !(cols * bits).is_multiple_of(32) {
            return Err(codes.wrong(format!("is for rows of {cols} codes, no whole words")));
        }
        codes.expect(&["I32"], &[rows, cols * bits / 32])?;
        let shape = tensors.need(&format!("{module}.weight_shape"))?;
        check_shape(&shape, rows, cols)?;
        used.push(shape);
    } else {
        codes.expect(&["I8"], &[rows, cols])?;
    }
    let scale = Grid::new(scale, rows, cols, scheme.block)?;
    let zero = zero.map(|zero| Zeros::new(zero, bits, rows, &scale)).transpose()?;
    match &zero {
        Some(zero) => used.push(zero.tensor),
        None if !scheme.symmetric => {
            return Err(tensors.missing(&format!("{module}.weight_zero_point")));
        }
        None => {}
    }
    let g_idx = tensors.find(&format!("{module}.weight_g_idx"));
    if let Some(g_idx) = &g_idx {
        g_idx.expect(&["I32"], &[cols])?;
        used.push(*g_idx);
    }
    let group = group_within(&scale.tensor(), scale.wide(), cols)?;
    let Some(format) = codes_of(bits, group) else {
        return Err(codes.wrong(scheme.contradicts("integers of another width")));
    };
    let (block, bytes) = (group.len(), bytes_of(&used));
    let columns = Columns::plain(cols, scale.wide(), block);
    let matrix =
        Integers { codes, scale, zero, g_idx, bits, packed, block, format, cols, columns, bytes };
    Ok(Found::coded(matrix, &used))
}

fn all_zero(zero: &Tensor<'_>) -> Result<(), LoadError> {
    if zero.bytes.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    Err(zero.wrong("holds zero points of 8-bit floats, which are not supported"))
}

/// `weight_shape` has to say what the packed codes are taken for.
fn check_shape(shape: &Tensor<'_>, rows: usize, cols: usize) -> Result<(), LoadError> {
    let size = match shape.dtype.name {
        "I64" => 8,
        _ => 4,
    };
    shape.expect(&["I64", "I32"], &[2])?;
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
    let stated: Vec<u64> = shape.bytes.chunks_exact(size).map(number).collect();
    let wanted = [rows as u64, cols as u64];
    if stated == wanted {
        return Ok(());
    }
    let (wanted, stated) = (shape_text(&wanted), shape_text(&stated));
    Err(shape.wrong(format!("says {stated}; config.json asks for {wanted}")))
}

/// Zero points: I8 beside the scales, or packed along the rows.
struct Zeros<'a> {
    tensor: Tensor<'a>,
    bits: usize,
    packed: bool,
    across: usize,
}

impl<'a> Zeros<'a> {
    fn new(
        tensor: Tensor<'a>,
        bits: usize,
        rows: usize,
        scale: &Grid<'_>,
    ) -> Result<Self, LoadError> {
        let packed = tensor.dtype.name == "I32";
        let dims = scale.tensor().dims;
        let across = dims.get(1).map_or(1, |&across| across as usize);
        if packed {
            tensor.expect(&["I32"], &[(rows * bits).div_ceil(32), across])?;
        } else if tensor.dtype.name != "I8" || tensor.dims != dims {
            let (found, wanted) = (shape_text(tensor.dims), shape_text(dims));
            let kind = tensor.dtype.name;
            return Err(tensor.wrong(format!(
                "is {found} of type {kind}; its scales ask for {wanted} of type I8"
            )));
        }
        Ok(Self { tensor, bits, packed, across })
    }

    /// What is taken from an unsigned code.
    fn at(&self, index: usize) -> u16 {
        if !self.packed {
            let zero = i32::from(self.tensor.bytes[index] as i8);
            return (zero + (1 << (self.bits - 1))) as u16;
        }
        let (row, col) = (index / self.across, index % self.across);
        blocks::field(&self.tensor, col, self.across, self.bits, row) as u16
    }
}

struct Integers<'a> {
    codes: Tensor<'a>,
    scale: Grid<'a>,
    zero: Option<Zeros<'a>>,
    g_idx: Option<Tensor<'a>>,
    bits: usize,
    packed: bool,
    /// Elements of a block that is written.
    block: usize,
    format: Format,
    cols: usize,
    columns: Columns,
    bytes: u64,
}

impl Integers<'_> {
    /// The unsigned code of a stored element.
    fn code(&self, row: usize, col: usize) -> u32 {
        if !self.packed {
            return u32::from(self.codes.bytes[row * self.cols + col] ^ 0x80);
        }
        blocks::field(&self.codes, row * self.cols * self.bits / 32, 1, self.bits, col)
    }
}

impl Matrix for Integers<'_> {
    fn format(&self) -> Format {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        self.scale.prepare()?;
        // All -1 is how writers say that there is no order.
        let unset = |g_idx: &&Tensor<'_>| !g_idx.bytes.iter().all(|&byte| byte == 0xff);
        if let Some(g_idx) = self.g_idx.as_ref().filter(unset) {
            let groups = self.cols.div_ceil(self.scale.wide());
            self.columns = Columns::of_index(g_idx, self.cols, groups, self.block)?;
        }
        Ok(self.columns.order.clone())
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let row_bytes = self.format.row_bytes(self.cols);
        let size = self.format.block_bytes();
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
            for (at, out) in out.chunks_exact_mut(size).enumerate() {
                let col = self.columns.groups[at] as usize * self.scale.wide();
                let half = 1 << (self.bits - 1);
                let zero =
                    self.zero.as_ref().map_or(half, |zero| zero.at(self.scale.index(row, col)));
                blocks::head(out, self.scale.at(row, col), zero);
                for element in 0..self.block {
                    let col = self.columns.stored(at * self.block + element);
                    blocks::put(&mut out[blocks::HEAD..], self.bits, element, self.code(row, col));
                }
            }
        }
    }
}
