//! What was queued lately: a device reports a fault long after the call that caused it, and names
//! no kernel. The last few are kept for the text of the fault.

use std::fmt::Write as _;

use crate::gpu::{KernelName, ProductShape};

/// Entries kept: about one layer of a model.
const KEPT: usize = 16;

/// One thing that was queued.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Entry {
    Upload(usize),
    Download(usize),
    Copy(usize),
    Fill(usize),
    Launch(KernelName),
    Product(ProductShape),
    /// Of so many things.
    Graph(usize),
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upload(bytes) => write!(f, "upload of {bytes} bytes"),
            Self::Download(bytes) => write!(f, "download of {bytes} bytes"),
            Self::Copy(bytes) => write!(f, "copy of {bytes} bytes"),
            Self::Fill(bytes) => write!(f, "fill of {bytes} bytes"),
            Self::Launch(kernel) => write!(f, "{}:{}", kernel.file, kernel.name),
            Self::Product(s) => write!(f, "product {}x{}x{}", s.rows, s.outputs, s.inputs),
            Self::Graph(count) => write!(f, "graph of {count}"),
        }
    }
}

/// The last few entries.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    entries: [Option<Entry>; KEPT],
    next: usize,
}

impl Trail {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries[self.next % KEPT] = Some(entry);
        self.next += 1;
    }

    /// Oldest first; equal neighbours once, counted.
    pub(crate) fn text(&self) -> String {
        let ordered = (self.next..self.next + KEPT).filter_map(|i| self.entries[i % KEPT]);
        let mut runs: Vec<(Entry, usize)> = Vec::new();
        for entry in ordered {
            match runs.last_mut() {
                Some((last, count)) if *last == entry => *count += 1,
                _ => runs.push((entry, 1)),
            }
        }
        let mut text = String::new();
        for (entry, count) in runs {
            let comma = if text.is_empty() { "" } else { ", " };
            let times = if count > 1 { format!(" x{count}") } else { String::new() };
            let _ = write!(text, "{comma}{entry}{times}");
        }
        if text.is_empty() { "nothing".into() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_in_order() {
        let mut trail = Trail::default();
        assert_eq!(trail.text(), "nothing");
        for bytes in 0..20 {
            trail.push(Entry::Copy(bytes));
        }
        let text = trail.text();
        assert!(text.starts_with("copy of 4 bytes, copy of 5 bytes"), "{text}");
        assert!(text.ends_with("copy of 19 bytes"), "{text}");
    }

    #[test]
    fn counts_equal_neighbours() {
        let mut trail = Trail::default();
        let norm = KernelName { file: "norm.cu", name: "row_norm" };
        for entry in [Entry::Graph(9), Entry::Launch(norm), Entry::Launch(norm), Entry::Fill(4)] {
            trail.push(entry);
        }
        assert_eq!(trail.text(), "graph of 9, norm.cu:row_norm x2, fill of 4 bytes");
    }
}
