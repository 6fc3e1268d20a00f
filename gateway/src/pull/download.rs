//! Downloads one file: asks for the rest of what is there, hashes while writing, tries again when
//! the line breaks, and renames only what was checked.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use indicatif::ProgressBar;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::cache::{Repo, disk};
use super::{PullError, RemoteFile};
use crate::config::Secret;

/// Attempts without a single new byte before the download is given up.
const ATTEMPTS: u32 = 5;
/// First wait between attempts; it doubles.
const WAIT: Duration = Duration::from_millis(500);

pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) url: String,
    pub(super) token: Option<&'a Secret>,
    pub(super) file: &'a RemoteFile,
    pub(super) repo: &'a Repo,
    pub(super) bar: &'a ProgressBar,
}

impl Download<'_> {
    pub(super) async fn run(self) -> Result<(), PullError> {
        let _lock = self.repo.lock(self.file)?;
        if self.repo.has(self.file) {
            return Ok(());
        }
        let path = self.repo.incomplete(self.file);
        let (mut attempt, mut wait) = (0, WAIT);
        loop {
            let before = self.repo.partial(self.file);
            match self.attempt(&path).await {
                Ok(()) => break,
                Err(PullError::Network(why)) => {
                    if self.repo.partial(self.file) > before {
                        (attempt, wait) = (0, WAIT);
                    }
                    attempt += 1;
                    if attempt == ATTEMPTS {
                        return Err(PullError::Network(why));
                    }
                    tracing::warn!(file = %self.file.name, "{why}; trying again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => return Err(error),
            }
        }
        let blob = self.repo.blob(self.file);
        fs::rename(&path, &blob).map_err(disk(&blob))
    }

    /// One request for what is missing, to the end or to the break of the line.
    async fn attempt(&self, path: &Path) -> Result<(), PullError> {
        let mut start = path.metadata().map_or(0, |meta| meta.len());
        if start > self.file.size {
            fs::remove_file(path).map_err(disk(path))?;
            start = 0;
        }
        let mut hash = Sha256::new();
        if start > 0 {
            hash_file(path, &mut hash)?;
        }
        if start < self.file.size || start == 0 {
            let answer = self.ask(start).await?;
            let whole = answer.status() == StatusCode::OK;
            let mut out = OpenOptions::new().create(true).append(true).open(path);
            if whole && start > 0 {
                // The server does not do ranges: all comes again.
                hash = Sha256::new();
                out = File::create(path);
            }
            let out = out.map_err(disk(path))?;
            let known = if whole { 0 } else { start };
            self.receive(answer, out, known, path, &mut hash).await?;
        }
        self.check(path, hash)
    }

    async fn ask(&self, start: u64) -> Result<Response, PullError> {
        let mut request = self.client.get(&self.url);
        if let Some(token) = self.token {
            request = request.bearer_auth(token.reveal());
        }
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let answer = request.send().await.map_err(|error| PullError::Network(text_of(&error)))?;
        let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::PARTIAL_CONTENT
                if range.is_some_and(|range| range.starts_with(&format!("bytes {start}-"))) =>
            {
                Ok(answer)
            }
            code => Err(PullError::Network(format!("{} answered HTTP {code}", self.url))),
        }
    }

    async fn receive(
        &self,
        answer: Response,
        mut out: File,
        mut known: u64,
        path: &Path,
        hash: &mut Sha256,
    ) -> Result<(), PullError> {
        let mut chunks = answer.bytes_stream();
        loop {
            let chunk = chunks.try_next().await;
            let Some(chunk) = chunk.map_err(|error| PullError::Network(text_of(&error)))? else {
                break;
            };
            known += chunk.len() as u64;
            if known > self.file.size {
                break;
            }
            out.write_all(&chunk).map_err(disk(path))?;
            hash.update(&chunk);
            self.bar.inc(chunk.len() as u64);
        }
        out.sync_all().map_err(disk(path))?;
        match known.cmp(&self.file.size) {
            std::cmp::Ordering::Less => {
                Err(PullError::Network(format!("{} ended early", self.url)))
            }
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.damaged(path, "size"),
        }
    }

    fn check(&self, path: &Path, hash: Sha256) -> Result<(), PullError> {
        let found = hex::encode(hash.finalize());
        match &self.file.sha256 {
            Some(wanted) if *wanted != found => self.damaged(path, "SHA-256"),
            _ => Ok(()),
        }
    }

    fn damaged(&self, path: &Path, what: &'static str) -> Result<(), PullError> {
        fs::remove_file(path).map_err(disk(path))?;
        Err(PullError::Damaged { file: self.file.name.clone(), what })
    }
}

/// Hashes what an earlier run left, so that the whole file's hash can be checked at the end.
fn hash_file(path: &Path, hash: &mut Sha256) -> Result<(), PullError> {
    let mut file = File::open(path).map_err(disk(path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(disk(path))? {
            0 => return Ok(()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// An HTTP error with its causes, which the library prints only when asked one by one.
pub(super) fn text_of(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
