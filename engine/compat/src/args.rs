//! The command line, from text to checked options. What is wrong with it is said before anything
//! is loaded. Knows no HTTP and no model.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Serves one model on mistralrs (CPU) behind OpenAI's chat API.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// A folder in Hugging Face layout, a .gguf file, or a hub name (owner/model, uses the network)
    model: String,
    /// Where to listen; other than loopback needs --api-key-env
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The model's name for clients; without it the last part of MODEL
    #[arg(long)]
    name: Option<String>,
    /// The environment variable that holds the API key
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// Requests worked on at once; more are answered with 429
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    max_concurrent: u16,
    /// What weights and sums are kept in; f32 is exact and takes 4 bytes a weight
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Seconds that a request may take, from its first byte to its last
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    request_timeout_s: u64,
}

/// Number formats that the CPU path of mistralrs computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    F32,
    Bf16,
    F16,
}

/// Where the model comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Folder(PathBuf),
    Gguf(PathBuf),
    Hub(String),
}

/// The command line, checked.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) source: Source,
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) key: Option<String>,
    pub(crate) concurrent: usize,
    pub(crate) dtype: Dtype,
    pub(crate) time_max: Duration,
}

impl Args {
    /// # Errors
    /// MODEL is nothing that can be loaded, the key's variable is empty, or an address that others
    /// can reach comes without a key.
    pub(crate) fn check(self) -> Result<Options, String> {
        let source = source(&self.model)?;
        let key = self.api_key_env.as_deref().map(key_in).transpose()?;
        if key.is_none() && !self.listen.ip().is_loopback() {
            return Err(format!(
                "{} can be reached from other machines: name a key with --api-key-env, or listen \
                 on 127.0.0.1",
                self.listen
            ));
        }
        if matches!(source, Source::Gguf(_)) && self.dtype != Dtype::F32 {
            return Err("--dtype is for folders: a GGUF file says what its weights are".to_owned());
        }
        let path = Path::new(self.model.trim_end_matches('/'));
        let own = path.file_stem().filter(|_| matches!(source, Source::Gguf(_)));
        let own = own.or(path.file_name()).map(|name| name.to_string_lossy().into_owned());
        Ok(Options {
            name: self.name.or(own).unwrap_or_else(|| "model".to_owned()),
            source,
            listen: self.listen,
            key,
            concurrent: self.max_concurrent.into(),
            dtype: self.dtype,
            time_max: Duration::from_secs(self.request_timeout_s),
        })
    }
}

fn key_in(variable: &str) -> Result<String, String> {
    let value = env::var_os(variable).and_then(|value| value.into_string().ok());
    let value = value.filter(|value| !value.is_empty());
    value.ok_or_else(|| format!("the environment variable {variable} holds no API key"))
}

/// What is on disk is taken from there; only a name of the form owner/model goes to the hub.
fn source(model: &str) -> Result<Source, String> {
    let path = PathBuf::from(model);
    if path.is_dir() {
        return Ok(Source::Folder(path));
    }
    let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    if path.is_file() && is_gguf {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem.rsplit('-').nth(1) == Some("of") {
            return Err(format!("{model}: GGUF files in several pieces are not read here"));
        }
        return Ok(Source::Gguf(path));
    }
    if path.is_file() {
        return Err(format!("{model}: neither a folder nor a .gguf file"));
    }
    let fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match model.split_once('/') {
        Some((owner, rest)) if fits(owner) && fits(rest) && !is_gguf => {
            Ok(Source::Hub(model.to_owned()))
        }
        _ => Err(format!("{model}: no such folder or file, and no hub name (owner/model)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Result<(Source, &str), &str>) {
        let args = Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        match (args.and_then(Args::check), expect) {
            (Ok(options), Ok((source, name))) => {
                assert_eq!((&options.source, options.name.as_str()), (&source, name), "{line}");
            }
            (Err(message), Err(part)) => assert!(message.contains(part), "{line}: {message}"),
            (got, _) => panic!("{line}: {got:?}"),
        }
    }

    #[test]
    fn models_names_and_addresses() {
        let here = || Source::Folder(PathBuf::from("src"));
        let hub = || Source::Hub("owner/model-1.5".to_owned());
        check("x src", Ok((here(), "src")));
        check("x src --name other", Ok((here(), "other")));
        check("x owner/model-1.5", Ok((hub(), "model-1.5")));
        check("x owner/model-1.5 --listen [::1]:0", Ok((hub(), "model-1.5")));
        check("x Cargo.toml", Err("neither a folder nor a .gguf file"));
        check("x /no/such/folder", Err("no such folder"));
        check("x ./none", Err("no such folder"));
        check("x none/model.gguf", Err("no such folder or file"));
        check("x src --listen 0.0.0.0:8081", Err("--api-key-env"));
        check("x src --listen 0.0.0.0:1 --api-key-env NO_SUCH_VARIABLE", Err("holds no API key"));
        check("x src --max-concurrent 0", Err("0 is not in 1..=256"));
        check("x", Err("required"));
    }
}
