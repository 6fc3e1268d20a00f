//! The tensors of a GGUF model, by role.

use std::collections::BTreeSet;

use kernels::Format;

use super::gguf::Gguf;
use super::matrix::{Opened, Stored};
use super::{LoadError, Look, Source, TensorView, Weights, names, shown};
use crate::families::{Described, Names};
use crate::spec::{MlpSpec, ModelSpec, Role};

/// A GGUF model under the roles that a family gives its tensors.
pub(crate) struct GgufWeights {
    file: Gguf,
    source: Names,
    spec: ModelSpec,
}

impl GgufWeights {
    /// Gives the tensors of a file the roles that its family describes.
    pub(crate) fn new(file: Gguf, described: &Described) -> Self {
        Self { file, source: described.gguf_source, spec: described.spec.clone() }
    }

    /// The keys.
    pub(crate) fn file(&self) -> &Gguf {
        &self.file
    }

    /// Where a role lies, as the family or most files name it.
    fn source_of(&self, role: Role) -> Source {
        let experts = |layer: usize| match self.spec.layers.get(layer).map(|layer| &layer.mlp) {
            Some(MlpSpec::Experts(experts)) => experts.count,
            _ => 0,
        };
        let usual = || match role {
            Role::Expert(layer, ..) => names::gguf(role, experts(layer)),
            _ => names::gguf(role, 0),
        };
        (self.source)(&self.spec, role).unwrap_or_else(usual)
    }

    fn open(
        &self,
        role: Role,
        rows: usize,
        cols: usize,
    ) -> Result<(Source, Stored<'_>), LoadError> {
        let source = self.source_of(role);
        // A vector's elements are what fused tensors and stacks are divided into.
        let (rows, cols) = if role.is_vector() { (cols, 1) } else { (rows, cols) };
        let rows = source.rows_of(rows);
        let transposed = source.transposed && !role.is_vector();
        let wanted = match (role.is_vector(), transposed) {
            (true, _) => vec![rows],
            (false, false) => vec![rows, cols],
            (false, true) => vec![cols, rows],
        };
        let stack = source.slab.map(|slab| slab.of);
        let wanted: Vec<u64> = stack.into_iter().chain(wanted).map(|dim| dim as u64).collect();
        let mut stored = self.file.stored(&source.name, &wanted)?;
        if let Some(slab) = source.slab {
            let each = stored.bytes.len() / slab.of.max(1);
            let place = slab.index * each..(slab.index + 1) * each;
            stored.bytes = stored.bytes.get(place).unwrap_or_default();
        }
        if transposed && stored.format.is_quantized() {
            let format = stored.format.name();
            let problem = format!("in {format} is stored [in, out], which is not supported");
            return Err(self.wrong(&source.name, &problem));
        }
        (stored.rows, stored.cols, stored.transposed) = (rows, cols, transposed);
        Ok((source, stored))
    }

    fn wrong(&self, name: &str, problem: &str) -> LoadError {
        LoadError::new(self.file.file(), format!("tensor {} {problem}", shown(name)))
    }

    /// Refuses tensors that no part of the model uses: computing without them would be silently
    /// wrong. Returns what to tell the operator.
    pub(crate) fn check_unused(&self, described: &Described) -> Result<Vec<String>, LoadError> {
        let used: BTreeSet<String> =
            self.spec.tensors().iter().map(|need| self.source_of(need.role).name).collect();
        let mut spare = Vec::new();
        for name in self.file.names().filter(|&name| !used.contains(name)) {
            // Rotary tables were read with the header, or follow from it.
            if name.starts_with("rope_f") || name.ends_with("attn_rot_embd.weight") {
                continue;
            }
            if !(described.spare)(&self.spec, name) {
                let family = self.spec.family;
                return Err(self.wrong(name, &format!("has no place in a {family} model")));
            }
            spare.push(name);
        }
        Ok(super::spare_note(&spare).into_iter().collect())
    }
}

impl Weights for GgufWeights {
    fn look(&self, role: Role, rows: usize, cols: usize) -> Result<Look, LoadError> {
        let (source, stored) = self.open(role, rows, cols)?;
        let picked = if role.is_vector() { cols } else { rows };
        Ok(Opened::Stored(stored).look(picked, source.rows_of(picked)))
    }

    fn tensor(&self, role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let (source, stored) = self.open(role, rows, cols)?;
        let (picked, each) = if role.is_vector() { (cols, 1) } else { (rows, cols) };
        let runs = source.pick.runs(picked).map_err(|e| self.wrong(&source.name, &e))?;
        self.file.reading(&source.name, stored.bytes);
        Ok(TensorView { rows, cols, ..Opened::Stored(stored).view(&runs, each)? })
    }

    fn not_plain(&self, role: Role, format: Format) -> LoadError {
        let name = self.source_of(role).name;
        self.wrong(&name, &format!("is a vector in {}, wanted plain numbers", format.name()))
    }
}
