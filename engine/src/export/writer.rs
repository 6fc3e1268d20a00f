//! A GGUF file being written, version 3, little endian: keys, then the list of tensors, then their
//! data in the same order.
//!
//! Source: the GGUF specification (ggml, `docs/gguf.md`). Everything goes to a temporary name
//! beside the target, which disappears unless the file is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kernels::Format;

use super::ExportError;
use super::source::Source;

/// Where data may begin.
pub(super) const ALIGNMENT: u64 = 32;

/// A value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Count(u32),
    Number(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f32>),
    Whole(Vec<i32>),
    Flags(Vec<bool>),
    /// The number of its type and its bytes, as another file has them.
    Raw(Vec<u8>),
}

impl Value {
    fn put(&self, out: &mut Vec<u8>) {
        const LIST: u32 = 9;
        let kind = |kind: u32, out: &mut Vec<u8>| out.extend(kind.to_le_bytes());
        let list = |of: u32, len: usize, out: &mut Vec<u8>| {
            kind(LIST, out);
            kind(of, out);
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::Count(number) => {
                kind(4, out);
                out.extend(number.to_le_bytes());
            }
            Self::Number(number) => {
                kind(6, out);
                out.extend(number.to_le_bytes());
            }
            Self::Flag(flag) => {
                kind(7, out);
                out.push(u8::from(*flag));
            }
            Self::Text(string) => {
                kind(8, out);
                text(string, out);
            }
            Self::Texts(all) => {
                list(8, all.len(), out);
                all.iter().for_each(|string| text(string, out));
            }
            Self::Numbers(all) => {
                list(6, all.len(), out);
                all.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Self::Whole(all) => {
                list(5, all.len(), out);
                all.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Self::Flags(all) => {
                list(7, all.len(), out);
                out.extend(all.iter().map(|flag| u8::from(*flag)));
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A tensor type's number in ggml.
fn number(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q5_0 => 6,
        Format::Q5_1 => 7,
        Format::Q8_0 => 8,
        Format::Q2K => 10,
        Format::Q3K => 11,
        Format::Q4K => 12,
        Format::Q5K => 13,
        Format::Q6K => 14,
        Format::Iq4Nl => 20,
        Format::Iq4Xs => 23,
        Format::Bf16 => 30,
        other => unreachable!("{other:?} is in no mixture"),
    }
}

fn header(source: &Source<'_>) -> Vec<u8> {
    let (keys, tensors) = (source.keys(), source.tensors());
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(key, &mut out);
        value.put(&mut out);
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&tensor.name, &mut out);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        // Innermost first.
        tensor.dims.iter().rev().for_each(|dim| out.extend(dim.to_le_bytes()));
        out.extend(number(tensor.format).to_le_bytes());
        out.extend(u64::to_le_bytes(offset));
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    out
}

/// The file under its temporary name.
pub(super) struct Target {
    to: PathBuf,
    part: PathBuf,
    /// `None` once it is complete.
    out: Option<BufWriter<File>>,
    at: u64,
    kept: bool,
}

impl Target {
    /// Creates the temporary file and writes the header.
    pub(super) fn create(to: &Path, source: &Source<'_>) -> Result<Self, ExportError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = to.with_file_name(name);
        let failed = |error| ExportError::Write(part.clone(), error);
        let file = OpenOptions::new().write(true).create_new(true).open(&part).map_err(failed)?;
        let out = Some(BufWriter::with_capacity(1 << 20, file));
        let mut target = Self { to: to.to_path_buf(), part, out, at: 0, kept: false };
        target.append(&header(source))?;
        Ok(target)
    }

    pub(super) fn path(&self) -> &Path {
        &self.part
    }

    /// Goes to where the next tensor begins.
    pub(super) fn begin(&mut self) -> Result<(), ExportError> {
        let gap = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.append(&[0; ALIGNMENT as usize][..gap as usize])
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.at += bytes.len() as u64;
        let out = self.out.as_mut().ok_or_else(|| io::Error::other("is complete already"));
        let written = out.and_then(|out| out.write_all(bytes));
        written.map_err(|error| ExportError::Write(self.part.clone(), error))
    }

    /// Completes the file on the disk; returns its size.
    pub(super) fn finish(&mut self) -> Result<u64, ExportError> {
        // Some readers want the last tensor padded like the others.
        self.begin()?;
        let failed = |error| ExportError::Write(self.part.clone(), error);
        if let Some(out) = self.out.take() {
            let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
        }
        Ok(self.at)
    }

    /// Gives the file its name.
    pub(super) fn keep(mut self) -> Result<(), ExportError> {
        let failed = |error| ExportError::Write(self.to.clone(), error);
        fs::rename(&self.part, &self.to).map_err(failed)?;
        self.kept = true;
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The name is safe once its folder is; a file system that cannot say so is no failure.
        if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.part);
        }
    }
}
