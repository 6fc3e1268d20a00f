//! Writes a model as a GGUF file: quantized, or in another plain type.
//!
//! The source is a folder or a GGUF file, opened as for serving; the target is written tensor by
//! tensor under a temporary name, opened again and compared with the source, and only then given
//! its name. Memory holds one tensor at a time. Knows files, not terminals: progress goes to a
//! callback.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::Format;

use crate::model::ModelFiles;
use crate::weights::LoadError;
use crate::weights::gguf::Gguf;

mod check;
mod encode;
mod header;
mod mixture;
mod rope;
mod source;
mod writer;

pub use encode::Spread;
pub use mixture::{MIXTURES, Mixture};

use source::Source;
use writer::Target;

/// What to write, and how.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which tensors get which format.
    pub mixture: &'static Mixture,
    /// Threads that encode.
    pub threads: usize,
    /// Replace a target that is there.
    pub force: bool,
}

/// One tensor, before it is encoded.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// How many are done.
    pub done: usize,
    /// How many there are.
    pub count: usize,
    /// Its name in the target.
    pub name: &'a str,
    /// The format that it gets.
    pub format: Format,
    /// Bytes that it takes there.
    pub bytes: u64,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Report {
    /// Bytes of the source's tensors.
    pub before: u64,
    /// Bytes of the target.
    pub after: u64,
    /// Elements of all tensors.
    pub elements: u64,
    /// By format, the largest share first.
    pub spreads: Vec<Spread>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The source cannot be read, or cannot be written in this form.
    #[error(transparent)]
    Source(#[from] LoadError),
    /// The target must not be written.
    #[error("{file}: {1}", file = .0.display())]
    Target(PathBuf, String),
    /// The target cannot be written: the disk is full, or no place for it.
    #[error("{file}: {1}", file = .0.display())]
    Write(PathBuf, std::io::Error),
}

/// Writes the model at `from` to the GGUF file `to`.
///
/// # Errors
/// See [`ExportError`]; whatever it is, no half-written target stays.
pub fn export(
    from: &Path,
    to: &Path,
    options: &Options,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Report, ExportError> {
    check_target(from, to, options.force)?;
    let files = crate::open(from)?;
    let source = if from.is_dir() {
        Source::folder(&files, options.mixture)?
    } else {
        Source::gguf(Gguf::open(from)?, options.mixture)?
    };
    let mut target = Target::create(to, &source)?;
    let spreads = write(&source, &mut target, options.threads, progress)?;
    let after = target.finish()?;
    check::same(&files, target.path(), source.form())?;
    let elements = source.tensors().iter().map(source::Planned::elements).sum();
    let (before, notes) = (files.weight_bytes, notes(&files, &source));
    target.keep()?;
    Ok(Report { before, after, elements, spreads, notes })
}

fn write(
    source: &Source<'_>,
    target: &mut Target,
    threads: usize,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Vec<Spread>, ExportError> {
    let mut spreads: Vec<Spread> = Vec::new();
    let tensors = source.tensors();
    for (done, tensor) in tensors.iter().enumerate() {
        let (name, format, bytes) = (tensor.name.as_str(), tensor.format, tensor.bytes());
        progress(&Progress { done, count: tensors.len(), name, format, bytes });
        let mut spread = Spread::new(format);
        target.begin()?;
        for piece in 0..tensor.pieces() {
            let piece = source.piece(tensor, piece)?;
            let bytes = encode::rows(&piece, format, threads, &mut spread);
            let bytes = bytes.map_err(|problem| {
                LoadError::new(source.path(), format!("tensor {name} {problem}"))
            })?;
            target.append(&bytes)?;
        }
        spread.tensors = 1;
        match spreads.iter_mut().find(|known| known.format == format) {
            Some(known) => known.add(&spread),
            None => spreads.push(spread),
        }
    }
    spreads.sort_by_key(|spread| std::cmp::Reverse(spread.bytes));
    Ok(spreads)
}

fn notes(files: &ModelFiles, source: &Source<'_>) -> Vec<String> {
    let mut notes = files.notes.clone();
    notes.extend(source.notes().iter().cloned());
    notes
}

/// Refuses a target that is the source, or that is there already.
fn check_target(from: &Path, to: &Path, force: bool) -> Result<(), ExportError> {
    let refuse = |problem: &str| Err(ExportError::Target(to.to_path_buf(), problem.to_owned()));
    if to.file_name().is_none() || to.is_dir() {
        return refuse("is a folder; give the name of a file, such as model.gguf");
    }
    if let (Ok(from), Ok(to)) = (fs::canonicalize(from), fs::canonicalize(to))
        && from == to
    {
        return refuse("is the source itself");
    }
    if to.exists() && !force {
        return refuse("is there already; --force replaces it");
    }
    Ok(())
}
