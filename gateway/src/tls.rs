//! The server's side of TLS: certificate and key from PEM files, read again when they change, and
//! what certificates of clients say of them. One provider of cryptography: `ring`, as everywhere
//! in this program. It knows no keys and no people: whom a certificate stands for, the door asks.
//!
//! A file that is wrong when it is read again changes nothing: the log says so, and what was read
//! before goes on. Connections that are open keep what they began with.

mod files;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use files::Contents;

/// How often files are compared with what was read of them.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked.
    #[default]
    Unasked,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// Where the files lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, and those between it and a known authority: PEM.
    pub certificate: PathBuf,
    /// Its key: PEM (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// Authorities of clients: PEM.
    pub client_authorities: Option<PathBuf>,
    /// Certificates of clients that were revoked: lists in PEM, one for each authority that has
    /// issued any.
    pub revoked: Option<PathBuf>,
    /// Whether clients show certificates.
    pub clients: Clients,
}

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct TlsError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

/// What connections begin with.
pub struct Tls {
    files: Files,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// What was read last, good or not: the same is not tried again.
    tried: Contents,
}

/// What the certificate of a connection's client says of it: `uri:` and `dns:` and a name, as its
/// issuer vouches for them. In the extensions of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNames(pub Arc<[String]>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let tried = Contents::read(&files)?;
        let config = Arc::new(config(&files, &tried)?);
        Ok(Self { files, state: Mutex::new(State { config, tried }) })
    }

    /// Reads the files again; whether that changed anything for connections to come.
    ///
    /// # Errors
    /// One of them cannot be used: what was there before goes on. A file that is as wrong as the
    /// last time is no error again.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let found = Contents::read(&self.files)?;
        if self.state().tried == found {
            return Ok(false);
        }
        let made = config(&self.files, &found);
        let mut state = self.state();
        state.tried = found;
        state.config = Arc::new(made?);
        Ok(true)
    }

    /// Reads the files again when they change or at SIGHUP, as long as this is polled.
    pub async fn watch(&self, every: Duration) {
        let mut look = interval(every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("SIGHUP cannot be heard; TLS files are looked at all the same");
            loop {
                look.tick().await;
                self.look();
            }
        };
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = hangup.recv() => {}
            }
            self.look();
        }
    }

    fn look(&self) {
        match self.reload() {
            Ok(true) => tracing::info!("new TLS files are in use"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "TLS files are as before: the new are not good"),
        }
    }

    /// What the next connection begins with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.state().config))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files' names alone.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn config(files: &Files, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let at =
        |file: &std::path::Path, why: String| TlsError { file: file.display().to_string(), why };
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| at(&files.certificate, error.to_string()))?;
    let builder = match (&files.client_authorities, files.clients) {
        (Some(file), Clients::Optional | Clients::Required) => {
            let roots = Arc::new(contents.authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match &files.revoked {
                // Of certificates in between none is asked; a list that is too old says nothing.
                Some(list) => verifier
                    .with_crls(contents.revoked(list)?)
                    .only_check_end_entity_revocation()
                    .enforce_revocation_expiration(),
                None => verifier,
            };
            let verifier = match files.clients {
                Clients::Required => verifier,
                Clients::Optional | Clients::Unasked => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| at(file, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let (chain, key) = contents.own(files)?;
    // It also sees whether the key is the certificate's.
    let made = builder.with_single_cert(chain, key);
    let mut config = made.map_err(|error| at(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if files.clients != Clients::Unasked {
        // A session that is resumed would not be asked whether its certificate was revoked.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The names in a client's certificate that was verified.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> ClientNames {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return ClientNames(Arc::from([]));
    };
    let uris = parsed.valid_uri_names().map(|uri| format!("uri:{uri}"));
    let hosts = parsed.valid_dns_names().map(|host| format!("dns:{}", host.to_ascii_lowercase()));
    ClientNames(uris.chain(hosts).collect())
}
