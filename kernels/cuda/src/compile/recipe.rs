//! What a cubin is made of: the sources, the architecture, the options. A cubin is told from a
//! stale one by the digest of these.
//!
//! The build script compiles this file too, to check cubins that are to be embedded: it uses
//! nothing else of the crate.

use sha2::{Digest as _, Sha256};

/// Architectures that cubins are made for ahead of time: A100, RTX 30, RTX 40 and L4, Hopper,
/// B100 and B200, RTX 50. An `a` opens instructions that only this very architecture has.
pub const ARCHS: &[&str] = &["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120"];

/// Options of every compilation, beside the architecture. `-v` has the assembler report registers
/// and spills.
pub const OPTIONS: &[&str] = &["--std=c++17", "-default-device", "--ptxas-options=-v"];

/// Names the layout of what is digested: a new one makes every older cubin stale.
const LAYOUT: &str = "hearth cubin 1";

/// The headers that a text includes, and those that they include, in the order of `headers`. Only
/// these are given to the compiler, so that none can matter and not be digested.
#[must_use]
pub fn included<'a>(text: &'a str, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut found = vec![false; headers.len()];
    let mut texts = vec![text];
    while let Some(text) = texts.pop() {
        let names = text.lines().filter_map(|line| {
            let rest = line.trim_start().strip_prefix("#include")?.trim_start();
            rest.strip_prefix('"')?.split('"').next()
        });
        for name in names {
            let at = headers.iter().position(|(header, _)| *header == name);
            if let Some(at) = at.filter(|at| !found[*at]) {
                found[at] = true;
                texts.push(headers[at].1);
            }
        }
    }
    headers.iter().zip(found).filter(|(_, found)| *found).map(|(header, _)| *header).collect()
}

/// Digest in hexadecimal of a file with kernels, of the headers that it includes, and of the
/// options.
#[must_use]
pub fn digest(name: &str, text: &str, headers: &[(&str, &str)]) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &str| {
        // Lengths keep two parts from reading as one.
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(LAYOUT);
    OPTIONS.iter().for_each(|option| part(option));
    part(name);
    part(text);
    for (name, text) in included(text, headers) {
        part(name);
        part(text);
    }
    hex(&hash.finalize())
}

/// Digest in hexadecimal of bytes.
#[must_use]
pub fn digest_of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
