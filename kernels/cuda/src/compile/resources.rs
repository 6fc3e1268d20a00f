//! What the assembler reports of each kernel: registers, spills, shared memory.
//!
//! From the log of `--ptxas-options=-v`, whose lines are not documented: what is not understood is
//! skipped, and a kernel without its "Used" line is left out, so that tests see it missing.

/// What one kernel takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Its name in the file.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of local memory of a thread: arrays that did not fit registers.
    pub stack_bytes: u32,
    /// Bytes stored to local memory for want of registers.
    pub spill_store_bytes: u32,
    /// Bytes loaded back.
    pub spill_load_bytes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
}

/// Reads a log.
#[must_use]
pub(super) fn parse(log: &str) -> Vec<Resources> {
    let mut all = Vec::new();
    let mut current: Option<Resources> = None;
    for line in log.lines() {
        if let Some(rest) = after(line, "Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            current = Some(Resources { kernel, ..Resources::default() });
        } else if let Some(entry) = &mut current {
            if line.contains("stack frame") {
                for part in line.split(',') {
                    let place = match part {
                        p if p.contains("stack frame") => &mut entry.stack_bytes,
                        p if p.contains("spill stores") => &mut entry.spill_store_bytes,
                        p if p.contains("spill loads") => &mut entry.spill_load_bytes,
                        _ => continue,
                    };
                    *place = number_before(part, " bytes ");
                }
            } else if let Some(rest) = after(line, "Used ") {
                for part in rest.split(',') {
                    if part.contains("registers") {
                        entry.registers = number_before(part, " registers");
                    } else if part.contains("bytes smem") {
                        entry.shared_bytes = number_before(part, " bytes ");
                    }
                }
                all.extend(current.take());
            }
        }
    }
    all
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, rest)| rest)
}

/// The number that ends right before a mark.
fn number_before(part: &str, mark: &str) -> u32 {
    let word = part.split_once(mark).and_then(|(before, _)| before.split_whitespace().next_back());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_two_kernels() {
        let log = "\
norm.cu(3): warning #177-D: variable \"x\" was declared but never referenced
ptxas info    : 0 bytes gmem, 24 bytes cmem[4]
ptxas info    : Compiling entry function 'row_norm' for 'sm_90a'
ptxas info    : Function properties for row_norm
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1152 bytes smem, 568 bytes cmem[0]
ptxas info    : Compile time = 12.345 ms
ptxas info    : Function properties for helper
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Compiling entry function 'wide' for 'sm_90a'
ptxas info    : Function properties for wide
ptxas         .     16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, 16 bytes cumulative stack size, 376 bytes cmem[0]
";
        let norm = Resources {
            kernel: "row_norm".into(),
            registers: 40,
            shared_bytes: 1152,
            ..Resources::default()
        };
        let wide = Resources {
            kernel: "wide".into(),
            registers: 255,
            stack_bytes: 16,
            spill_store_bytes: 12,
            spill_load_bytes: 20,
            shared_bytes: 0,
        };
        assert_eq!(parse(log), [norm, wide]);
        assert_eq!(parse(""), []);
    }
}
