//! llama.cpp on the same file, in the same minutes. Its tools print wall times only, so CPU time
//! is taken as the difference between a long and a short run of the same command: loading and
//! warm-up cancel out.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::record::children_cpu_seconds;

/// A folder with llama-bench and llama-batched-bench (`benches/peers/llama_cpp.sh` builds it).
pub struct LlamaCpp<'a> {
    /// The folder.
    pub bin: &'a Path,
    /// The model file.
    pub model: &'a Path,
}

impl LlamaCpp<'_> {
    fn cpu(&self, program: &str, args: &[String]) -> anyhow::Result<f64> {
        let before = children_cpu_seconds();
        let status = Command::new(self.bin.join(program))
            .arg("-m")
            .arg(self.model)
            .args(["-t", "1"])
            .args(args)
            .env("LD_LIBRARY_PATH", self.bin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("{program} does not start"))?;
        ensure!(status.success(), "{program} failed");
        Ok(children_cpu_seconds() - before)
    }

    /// Tokens per CPU-second of `prompt` and `made` tokens at batch 1 (one of them is 0).
    ///
    /// # Errors
    /// The peer does not run.
    pub fn single(&self, prompt: usize, made: usize) -> anyhow::Result<f64> {
        let run = |repeats: usize| {
            let args =
                ["-p", &prompt.to_string(), "-n", &made.to_string(), "-r", &repeats.to_string()]
                    .map(str::to_owned);
            self.cpu("llama-bench", &args)
        };
        let (short, long) = (run(1)?, run(4)?);
        Ok(3.0 * (prompt + made) as f64 / (long - short))
    }

    /// Tokens made per CPU-second by `streams` requests at once, prompts included in the time.
    ///
    /// # Errors
    /// The peer does not run.
    pub fn streams(&self, streams: usize, prompt: usize, made: usize) -> anyhow::Result<f64> {
        let run = |repeats: usize| {
            let list = vec![streams.to_string(); repeats].join(",");
            let context = streams * (prompt + made) * 2;
            let args = [
                "-npp",
                &prompt.to_string(),
                "-ntg",
                &made.to_string(),
                "-npl",
                &list,
                "-c",
                &context.to_string(),
            ]
            .map(str::to_owned);
            self.cpu("llama-batched-bench", &args)
        };
        let (short, long) = (run(1)?, run(3)?);
        Ok(2.0 * (streams * made) as f64 / (long - short))
    }
}
