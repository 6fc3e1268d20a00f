//! One HTTP/2 connection to a node or a gateway. Everything that goes there shares it: when it is
//! dropped, all of that ends at once.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::header::AUTHORIZATION;
use hyper::rt::Executor;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::protocol::{VERSION, VERSION_HEADER};

/// Longest wait for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// What one stream may send before it is read, and all of them together.
const WINDOWS: (u32, u32) = (1 << 20, 16 << 20);

/// What connections are made with.
#[derive(Clone)]
pub struct Dialer {
    /// Made at the first need where nothing is said of it: most clusters have none.
    tls: Arc<OnceLock<Result<Arc<ClientConfig>, String>>>,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// The connection was not there: nobody has read a word of it.
    #[error("{0}")]
    Unsent(String),
    /// It went out, and the connection broke before the answer's head.
    #[error("{0}")]
    Cut(String),
}

impl From<Unanswered> for String {
    fn from(why: Unanswered) -> Self {
        why.to_string()
    }
}

/// A body that goes up: what is there at once, and what comes later.
pub(super) struct Upload {
    first: Option<Bytes>,
    rest: Option<mpsc::Receiver<Bytes>>,
}

/// A connection. Whoever drops it ends all that goes over it.
pub(super) struct Link {
    sender: http2::SendRequest<Upload>,
    tasks: Tasks,
    authority: String,
    token: Option<String>,
}

/// A way over a connection that somebody else holds.
#[derive(Clone)]
pub(super) struct Way {
    sender: http2::SendRequest<Upload>,
    authority: String,
    token: Option<String>,
}

impl Dialer {
    /// Shows `token`; with TLS believes the authorities in `ca`, or whom the system believes, and
    /// shows a certificate of its own.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(
        token: Option<&str>,
        ca: Option<&Path>,
        own: Option<(&Path, &Path)>,
    ) -> Result<Self, String> {
        let made = OnceLock::new();
        if ca.is_some() || own.is_some() {
            let _ = made.set(Ok(config(ca, own)?));
        }
        Ok(Self { tls: Arc::new(made), token: token.map(str::to_owned) })
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers there, or not as it should.
    pub(super) async fn connect(&self, endpoint: &Endpoint) -> Result<Link, String> {
        let connecting = async {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            // Tokens are small writes that must not wait for each other.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            if !endpoint.tls {
                return self.link(stream, endpoint).await;
            }
            let name = endpoint.name.as_ref().unwrap_or(&endpoint.host).clone();
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let tls = self.tls.get_or_init(|| config(None, None)).clone()?;
            let connector = TlsConnector::from(tls);
            let stream = connector.connect(name, stream).await;
            self.link(stream.map_err(|error| error.to_string())?, endpoint).await
        };
        match timeout(CONNECT, connecting).await {
            Ok(made) => made,
            Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
        }
    }

    async fn link<S>(&self, stream: S, endpoint: &Endpoint) -> Result<Link, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let tasks = Tasks::default();
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tasks.execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection within the cluster broke off");
            }
        });
        let (authority, token) = (endpoint.authority(), self.token.clone());
        Ok(Link { sender, tasks, authority, token })
    }
}

/// What runs for a connection. The library's own handles keep one open while anything goes over
/// it; here it ends when it is told to.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let handle = tokio::spawn(task).abort_handle();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|task| !task.is_finished());
        }
        all.push(handle);
    }
}

impl Link {
    pub(super) fn way(&self) -> Way {
        let (sender, authority) = (self.sender.clone(), self.authority.clone());
        Way { sender, authority, token: self.token.clone() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let all = self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().for_each(AbortHandle::abort);
    }
}

impl Way {
    /// Asks for something.
    pub(super) async fn get(&mut self, path: &str) -> Result<Response<Incoming>, Unanswered> {
        self.send(Method::GET, path, Upload { first: None, rest: None }).await
    }

    /// Says something.
    pub(super) async fn post(
        &mut self,
        path: &str,
        body: Vec<u8>,
        rest: Option<mpsc::Receiver<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.send(Method::POST, path, Upload { first: Some(body.into()), rest }).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Upload,
    ) -> Result<Response<Incoming>, Unanswered> {
        let url = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(url);
        request = request.header(VERSION_HEADER, VERSION);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let unsent = |error: &dyn std::fmt::Display| Unanswered::Unsent(error.to_string());
        let request = request.body(body).map_err(|error| unsent(&error))?;
        self.sender.ready().await.map_err(|error| unsent(&error))?;
        self.sender.try_send_request(request).await.map_err(|error| match error.message() {
            Some(_) => unsent(error.error()),
            None => Unanswered::Cut(error.error().to_string()),
        })
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        rest.poll_recv(cx).map(|more| more.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }
}

fn config(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let at = |path: &Path, why: String| format!("{}: {why}", path.display());
    let builder = match ca {
        None => builder.with_platform_verifier().map_err(|error| error.to_string())?,
        Some(path) => builder.with_root_certificates(roots(path).map_err(|why| at(path, why))?),
    };
    let mut tls = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| at(certificate, error.to_string()))?;
            let secret = PrivateKeyDer::from_pem_file(key);
            let secret = secret.map_err(|error| at(key, error.to_string()))?;
            let made = builder.with_client_auth_cert(chain, secret);
            made.map_err(|error| at(certificate, error.to_string()))?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in all {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(roots)
}
