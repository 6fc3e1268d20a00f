//! `hearth quantize` in the engine's words: which mixtures there are, writing one, what came of it.

use std::path::Path;

use engine::export::{self, ExportError, MIXTURES, Mixture, Options, Report};

use crate::config::values::show_size;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The source is damaged, or cannot be written in this form.
    #[error("{0}")]
    Source(String),
    /// The target must not be written.
    #[error("{0}")]
    Target(String),
    /// The target cannot be written.
    #[error("{0}; nothing was left behind")]
    Write(String),
}

impl From<ExportError> for QuantizeError {
    fn from(error: ExportError) -> Self {
        let text = error.to_string();
        match error {
            ExportError::Source(_) => Self::Source(text),
            ExportError::Target(..) => Self::Target(text),
            ExportError::Write(..) => Self::Write(text),
        }
    }
}

/// Names of all mixtures, as `--to` takes them.
#[must_use]
pub fn mixtures() -> Vec<&'static str> {
    MIXTURES.iter().map(|mixture| mixture.name).collect()
}

/// Writes the model at `from` to `to`, with a line for each tensor, and returns the summary.
///
/// # Errors
/// See [`QuantizeError`].
///
/// # Panics
/// `mixture` is not one of [`mixtures`].
pub fn quantize(
    (from, to): (&Path, &Path),
    mixture: &str,
    threads: usize,
    force: bool,
    line: &mut dyn FnMut(&str),
) -> Result<String, QuantizeError> {
    let mixture = Mixture::by_name(mixture).expect("one of the names that were offered");
    let options = Options { mixture, threads, force };
    let report = export::export(from, to, &options, &mut |progress| {
        let (done, count) = (progress.done + 1, progress.count);
        let size = show_size(progress.bytes);
        let (name, format) = (progress.name, progress.format.name());
        line(&format!("[{done:>4}/{count}] {name:<32} {format:<8} {size}\n"));
    })?;
    Ok(summary(to, &report))
}

fn summary(to: &Path, report: &Report) -> String {
    let Report { before, after, elements, .. } = *report;
    let share = after as f64 / before.max(1) as f64 * 100.0;
    let bits = after as f64 * 8.0 / elements.max(1) as f64;
    let mut out = format!(
        "{}\nbefore   {}\nafter    {} ({share:.1} %, {bits:.2} bits per weight)\n\n",
        to.display(),
        show_size(before),
        show_size(after),
    );
    out.push_str("format    tensors       weights          size  mean error\n");
    for spread in &report.spreads {
        let (format, size) = (spread.format.name(), show_size(spread.bytes));
        let (tensors, elements) = (spread.tensors, spread.elements);
        let error = match spread.error() {
            error if error > 0.0 => format!("{:.3} %", error * 100.0),
            _ => "none".to_owned(),
        };
        out.push_str(&format!("{format:<8} {tensors:>8} {elements:>13} {size:>13}  {error:>10}\n"));
    }
    for note in &report.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}
