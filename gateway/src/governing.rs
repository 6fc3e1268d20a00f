//! Opens the governor that the configuration asks for.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use govern::governor::{Clock, FirstKey, OpenError};
use govern::limit::shared;
use govern::{Governor, Settings, Sharing};

use crate::config::Config;
use crate::signin::{self, SignIn};

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GoverningError {
    /// The folder cannot be made.
    #[error("the folder {0} cannot be made: {1}")]
    Folder(String, std::io::Error),
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The master key, in words.
    #[error("{0}")]
    Keyring(String),
}

/// The governor, where the configuration names a folder for it; and the first start's key.
///
/// # Errors
/// The folder, the master key, the database or the journal cannot be opened.
pub(crate) async fn open(
    config: &Config,
) -> Result<Option<(Governor, Option<FirstKey>)>, GoverningError> {
    let Some(data) = &config.data else { return Ok(None) };
    make(data).map_err(|error| GoverningError::Folder(data.display().to_string(), error))?;
    let rates = config.redis.as_ref().map(|url| shared::Settings::new(url.reveal()));
    let rates = rates.transpose().map_err(OpenError::Rates)?;
    let settings = Settings {
        url: config
            .store_url
            .as_ref()
            .map_or_else(|| database(data), |url| url.reveal().to_owned()),
        journal: data.join("journal"),
        gateway: config.gateway.clone().unwrap_or_else(machine_name),
        clock: Clock::System,
        fsync: config.fsync,
        sharing: Sharing { rates, lost: config.gateway_lost, ..Sharing::default() },
    };
    let keyring = signin::file::keyring(config.signin.as_deref(), data);
    let keyring = keyring.map_err(GoverningError::Keyring)?;
    let (governor, first) = Governor::open(&settings).await?;
    governor.record_with(keyring);
    Ok(Some((governor, first)))
}

/// Makes the folder where there is none. What lies in it is nobody else's business.
pub(crate) fn make(data: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data)
}

/// Where the database lies in a folder for it.
pub(crate) fn database(data: &Path) -> String {
    data.join("hearth.db").display().to_string()
}

/// How people and services sign in, where the configuration says so.
///
/// # Errors
/// In words: the file cannot be read, or makes no sense.
pub(crate) fn signin(config: &Config, governor: &Governor) -> Result<Option<SignIn>, String> {
    let (Some(file), Some(data)) = (&config.signin, &config.data) else { return Ok(None) };
    let settings = signin::file::read(file, data)?;
    let signin = SignIn::new(governor.clone(), settings);
    signin.map(Some).map_err(|error| format!("{}: {error}", file.display()))
}

/// The machine's name, as far as it is plain.
fn machine_name() -> String {
    let read = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = read.trim().chars().filter(plain).take(64).collect();
    if name.is_empty() { "gateway".to_owned() } else { name }
}
