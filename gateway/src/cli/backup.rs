//! `hearth backup FILE`: everything that the database holds, as one file, while the server runs.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use govern::backup::{BackupError, Rows, backup};
use govern::governor::Clock;
use govern::store::StoreError;

use super::exit::{self, Failure, Outcome};
use crate::config::{Config, Flags, resolve};
use crate::governing;

/// Flags of `hearth backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file has keys as hashes and secrets as they are sealed; names, usage and audit are in clear. \
The server may go on: the copy is of one moment.")]
pub struct Args {
    /// The file to write, which replaces one that is there; `-`: standard output
    #[arg(value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Which database.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The server's folder [default: store.data and store.url of the configuration]
    #[arg(long, value_name = "DIR", conflicts_with = "store_url")]
    data: Option<PathBuf>,
    /// A database: postgres://USER@HOST/NAME or a file of SQLite, or env:NAME where that holds a
    /// password
    #[arg(long, value_name = "URL")]
    store_url: Option<String>,
    /// Configuration file [default: hearth.toml here, when there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// The database's address, and the folder that it lies in where it is one of ours.
    pub(super) fn find(&self) -> Result<(String, Option<PathBuf>), Failure> {
        if let Some(url) = &self.store_url {
            return Ok((address(url)?, None));
        }
        if let Some(data) = &self.data {
            return Ok((governing::database(data), Some(data.clone())));
        }
        let flags = Flags::of_file(self.config.clone());
        let config = Config::load(&flags, std::env::vars())?.config;
        match (&config.store_url, &config.data) {
            (Some(url), _) => Ok((url.reveal().to_owned(), None)),
            (None, Some(data)) => Ok((governing::database(data), Some(data.clone()))),
            (None, None) => {
                Err(exit::usage("which database? Name it with --data, --store-url or HEARTH_DATA"))
            }
        }
    }
}

/// A database's address, which may stand elsewhere.
pub(super) fn address(text: &str) -> Result<String, Failure> {
    let found = resolve(text, &|name| std::env::var(name).ok()).map_err(exit::usage)?;
    let Some((_, found)) = found else { return Ok(text.to_owned()) };
    if let Some(warning) = found.warning {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "hearth: {warning}");
    }
    Ok(found.value.expose().clone())
}

/// Writes the file and says what is in it.
///
/// # Errors
/// The database cannot be read, or the file cannot be written.
pub fn run(args: &Args) -> Outcome {
    let begun = Instant::now();
    let (url, _) = args.place.find()?;
    let now = Clock::System.now();
    let runtime = super::runtime(1)?;
    if args.to == Path::new("-") {
        let rows = runtime.block_on(backup(&url, now, std::io::stdout().lock()))?;
        // Standard output has the product; a closed standard error stops nothing.
        let _ = std::io::stderr().write_all(summary("backed up", &rows, begun).as_bytes());
        return Ok(());
    }
    let file = Draft::begin(&args.to)?;
    let rows = runtime.block_on(backup(&url, now, BufWriter::new(&file.file)))?;
    file.finish()?;
    exit::print(&summary("backed up", &rows, begun))
}

/// A file under a name of its own until it is whole.
struct Draft<'a> {
    file: File,
    path: PathBuf,
    to: &'a Path,
}

impl<'a> Draft<'a> {
    fn begin(to: &'a Path) -> Result<Self, Failure> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = open.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { file, path, to })
    }

    /// Gives it its name. After this it survives a power failure.
    fn finish(self) -> Outcome {
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let done = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, self.to))
            .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
        done.map_err(|error| cannot_write(self.to, &error))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // Where it has its name, nothing is left here.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    exit::cannot_write(format!("{}: {error}", path.display()))
}

/// One line: rows by table, and how long it took.
pub(super) fn summary(what: &str, rows: &Rows, begun: Instant) -> String {
    let all: Vec<_> = rows.iter().map(|(table, count)| format!("{table} {count}")).collect();
    let seconds = begun.elapsed().as_secs_f64();
    format!("{what} {} rows in {seconds:.1} s: {}\n", rows.values().sum::<u64>(), all.join(", "))
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let text = error.to_string();
        match error {
            BackupError::Store(StoreError::Address(_)) | BackupError::Missing(_) => {
                exit::usage(text)
            }
            BackupError::NotEmpty(_) => {
                exit::usage(format!("{text}; --replace puts the copy in its place"))
            }
            BackupError::Store(StoreError::InUse(_)) | BackupError::InUse(_) => {
                exit::environment(text)
            }
            BackupError::Store(_) => exit::unavailable(text),
            BackupError::Read(_) => exit::usage(text),
            BackupError::Write(_) => exit::cannot_write(text),
            BackupError::NotABackup
            | BackupError::Newer(_)
            | BackupError::Damaged { .. }
            | BackupError::Twice(_)
            | BackupError::Schema(_) => exit::data(text),
        }
    }
}
