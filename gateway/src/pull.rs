//! Fetches a model from a hub into the cache that Python's `huggingface_hub` uses too, so that
//! neither tool downloads what the other has.
//!
//! One request asks the hub for the commit and its files with sizes and hashes; then each missing
//! file is downloaded into `blobs/<hash>.incomplete`, checked, renamed, and linked from
//! `snapshots/<commit>`. An interrupted download goes on where it stopped.

mod cache;
mod download;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use crate::config::Secret;
use crate::config::source::is_name;
use crate::config::values::show_size;
pub use cache::free_bytes;

use cache::Repo;

/// Files fetched side by side: one stream seldom fills a fast line.
const PARALLEL: usize = 4;
/// A hub's list of files is some hundred kilobytes for the largest repositories.
const LIST_BYTES_MAX: usize = 32 << 20;

/// Why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The hub does not show it to us.
    #[error(
        "{endpoint}/{repo} (revision {revision}) is not there or not open to you (HTTP {code}). \
         Check the name; for a gated or private model accept its terms on that page and set \
         HF_TOKEN"
    )]
    NotFound {
        /// The hub.
        endpoint: String,
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
        /// 401, 403 or 404.
        code: u16,
    },
    /// Told not to use the network, and the cache does not hold it.
    #[error(
        "{0} is not in the cache, and HF_HUB_OFFLINE is set; fetch it where there is a network"
    )]
    Offline(String),
    /// The hub answered something unexpected, or nothing.
    #[error("{0}. Try again: what was fetched so far is kept")]
    Network(String),
    /// What was downloaded is not what the hub announced.
    #[error("{file}: the download does not have the announced {what}; it was removed, try again")]
    Damaged {
        /// The file.
        file: String,
        /// Size or SHA-256.
        what: &'static str,
    },
    /// The disk is full or not writable.
    #[error("{}: {problem}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system says and what to do.
        problem: String,
    },
    /// The repository holds nothing that can be served, or too much to guess.
    #[error("{0}")]
    Choose(String),
}

/// A hub and the local cache of its files.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<Secret>,
    offline: bool,
}

/// A file of a revision, as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RemoteFile {
    name: String,
    size: u64,
    /// Name of its blob: SHA-256 for large files, git's hash for small ones.
    blob: String,
    /// For large files.
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE`, with the meanings that they have for Python's tools.
    #[must_use]
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| read(name).filter(|value| !value.is_empty());
        let home = PathBuf::from(read("HOME").unwrap_or_else(|| ".".to_owned()));
        let xdg = read("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
        let hf_home = read("HF_HOME").map_or_else(|| xdg.join("huggingface"), PathBuf::from);
        let cache = read("HF_HUB_CACHE").map_or_else(|| hf_home.join("hub"), PathBuf::from);
        let stored = || std::fs::read_to_string(hf_home.join("token")).ok();
        let token = read("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned());
        let endpoint = read("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let truth = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token: token.filter(|token| !token.is_empty()).map(Secret::new),
            offline: read("HF_HUB_OFFLINE").is_some_and(truth),
        }
    }

    /// The cache's directory.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The snapshot in the cache, when it is complete enough to be served.
    #[must_use]
    pub fn cached(&self, repo: &str, revision: &str) -> Option<PathBuf> {
        let snapshot = Repo::new(&self.cache, repo).snapshot_of(revision)?;
        cache::can_be_served(&snapshot).then_some(snapshot)
    }

    /// Fetches what is missing of a revision and returns its snapshot's directory. `include`
    /// holds patterns with `*`; without any, everything that serving needs is taken.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(
        &self,
        repo: &str,
        revision: &str,
        include: &[String],
    ) -> Result<PathBuf, PullError> {
        if self.offline {
            let name = format!("{repo}@{revision}");
            return self.cached(repo, revision).ok_or(PullError::Offline(name));
        }
        let client = client()?;
        let listing = self.list(&client, repo, revision).await?;
        let files = select(repo, listing.siblings, include)?;
        let local = Repo::new(&self.cache, repo);
        local.prepare(&listing.sha)?;

        let missing: Vec<_> = files.iter().filter(|file| !local.has(file)).collect();
        let to_come: u64 = missing.iter().map(|file| file.size - local.partial(file)).sum();
        cache::check_space(&self.cache, to_come)?;
        let bar = bar(to_come);
        futures_util::stream::iter(missing)
            .map(|file| {
                let url = self.url(repo, &listing.sha, &file.name);
                let token = self.token.as_ref();
                download::Download { client: &client, url, token, file, repo: &local, bar: &bar }
                    .run()
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await?;
        bar.finish_and_clear();
        for file in &files {
            local.link(&listing.sha, file)?;
        }
        // Last, so that a reference never names a snapshot with holes.
        local.set_reference(revision, &listing.sha)?;
        Ok(local.snapshot(&listing.sha))
    }

    fn url(&self, repo: &str, commit: &str, file: &str) -> String {
        format!("{}/{repo}/resolve/{commit}/{file}", self.endpoint)
    }

    async fn list(
        &self,
        client: &Client,
        repo: &str,
        revision: &str,
    ) -> Result<Listing, PullError> {
        let url = format!("{}/api/models/{repo}/revision/{revision}?blobs=true", self.endpoint);
        let mut request = client.get(&url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let network = |error: reqwest::Error| PullError::Network(download::text_of(&error));
        let answer = request.send().await.map_err(network)?;
        match answer.status() {
            StatusCode::OK => {}
            code @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                return Err(PullError::NotFound {
                    endpoint: self.endpoint.clone(),
                    repo: repo.to_owned(),
                    revision: revision.to_owned(),
                    code: code.as_u16(),
                });
            }
            code => return Err(PullError::Network(format!("{url} answered HTTP {code}"))),
        }
        let mut body = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(network)? {
            if body.len() + chunk.len() > LIST_BYTES_MAX {
                return Err(PullError::Network(format!("{url} answered without an end")));
            }
            body.extend_from_slice(&chunk);
        }
        let listing: Listing = serde_json::from_slice(&body)
            .map_err(|error| PullError::Network(format!("{url} answered no file list: {error}")))?;
        // The commit becomes a directory's name.
        if !is_name(&listing.sha) {
            return Err(PullError::Network(format!("{url} named an impossible commit")));
        }
        Ok(listing)
    }
}

fn client() -> Result<Client, PullError> {
    Client::builder()
        .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(Duration::from_secs(60))
        .build()
        .map_err(|error| PullError::Network(format!("no HTTP client: {error}")))
}

/// A bar on a terminal, nothing elsewhere.
fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = "{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// The files to fetch: those of the top directory that serving needs, or that `include` names.
fn select(
    repo: &str,
    siblings: Vec<Sibling>,
    include: &[String],
) -> Result<Vec<RemoteFile>, PullError> {
    let mut files = Vec::new();
    for sibling in siblings {
        let name = sibling.rfilename;
        let weights = name.ends_with(".safetensors") || name.ends_with(".gguf");
        let included = include.iter().any(|pattern| matches(pattern, &name));
        let wanted = if weights && !include.is_empty() { included } else { is_needed(&name) };
        // The name becomes a path under the snapshot: nothing may lead out of it.
        if !(wanted || included) || !name.split('/').all(is_name) {
            continue;
        }
        let sha256 = sibling.lfs.as_ref().map(|lfs| lfs.sha256.clone());
        let size = sibling.lfs.as_ref().map(|lfs| lfs.size).or(sibling.size);
        let blob = sha256.clone().or(sibling.blob_id).filter(|blob| is_name(blob));
        let (Some(size), Some(blob)) = (size, blob) else {
            let text = format!("the hub lists {name} of {repo} without size and hash");
            return Err(PullError::Network(text));
        };
        files.push(RemoteFile { name, size, blob, sha256 });
    }
    check_choice(repo, &files)?;
    // Some authors ship the same weights twice, sharded and in one piece.
    if files.iter().any(|file| file.name == "model.safetensors.index.json") {
        files.retain(|file| !file.name.starts_with("consolidated"));
    }
    Ok(files)
}

fn is_needed(name: &str) -> bool {
    let ends = [".safetensors", ".gguf", ".json", ".jinja"];
    let plain = ["tokenizer.model", "merges.txt", "vocab.txt"];
    !name.contains('/') && (ends.iter().any(|end| name.ends_with(end)) || plain.contains(&name))
}

fn check_choice(repo: &str, files: &[RemoteFile]) -> Result<(), PullError> {
    let of = |end: &str| files.iter().filter(|file| file.name.ends_with(end)).collect::<Vec<_>>();
    let (gguf, safetensors) = (of(".gguf"), of(".safetensors"));
    let whole = |file: &&&RemoteFile| !file.name.contains("-of-");
    if gguf.is_empty() && safetensors.is_empty() {
        return Err(PullError::Choose(format!(
            "{repo} holds no .safetensors and no .gguf file (that --include matches); \
             Hearth serves only those"
        )));
    }
    if gguf.iter().filter(whole).count() > 1 || (!gguf.is_empty() && !safetensors.is_empty()) {
        let list: Vec<_> = gguf
            .iter()
            .chain(&safetensors)
            .map(|file| format!("  {}  {}", file.name, show_size(file.size)))
            .collect();
        return Err(PullError::Choose(format!(
            "{repo} holds several sets of weights; choose with --include, for example \
             `hearth pull {repo} --include '*Q4_K_M*'`:\n{}",
            list.join("\n")
        )));
    }
    Ok(())
}

/// Whether `name` matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, others)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
    for part in middle.split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*Q4_K_M*", "m-Q4_K_M.gguf", true),
            ("*Q4_K_M*", "m-Q4_K_S.gguf", false),
            ("*.gguf", "m.gguf", true),
            ("m*.gguf", "n.gguf", false),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
