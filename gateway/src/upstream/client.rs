//! Connections to providers: pooled, HTTP/1.1 or HTTP/2 as the other side can, TLS by rustls.
//!
//! A name is looked up here, for each new connection, and an address of an internal network is
//! refused unless the operator allows it: a name that a stranger controls must not turn this
//! server into a way into the house. Nothing follows a redirect. A connection has its time,
//! everything that belongs to it included: the name, a proxy, TLS.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::timeout;
use tower_service::Service;

use super::line::{AnswerBody, Lines};

/// Idle connections are given up after this: sooner than most servers give up theirs.
pub(super) const IDLE: Duration = Duration::from_secs(50);

/// Idle connections kept to one provider.
pub(super) const IDLE_MAX: usize = 256;

/// What a client is made with.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Longest wait for a connection.
    pub(super) connect: Duration,
    /// Addresses of internal networks may be connected to.
    pub(super) internal: bool,
    /// What requests go through.
    pub(super) proxy: Option<Proxy>,
    /// The only authorities that count, in PEM; `None`: those that the system believes.
    pub(super) ca: Option<Vec<u8>>,
}

/// A proxy that makes tunnels.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    address: Uri,
    /// What it is shown.
    authorization: Option<HeaderValue>,
}

/// A provider's connections.
pub(super) struct Client {
    inner: Inner,
}

type Body = Full<Bytes>;
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

enum Inner {
    /// Without TLS, and with it.
    Direct(Lines, legacy::Client<Timed<HttpsConnector<HttpConnector<Guard>>>, Body>),
    Proxied(legacy::Client<Timed<HttpsConnector<Tunnel<HttpConnector>>>, Body>),
}

/// Why there is no head of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// It was not reached: nothing has begun there.
    #[error("it cannot be reached: {0}")]
    Unreached(String),
    /// It did not answer in time.
    #[error("it has not begun to answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The connection broke before it answered.
    #[error("the connection broke before it answered: {0}")]
    Broke(String),
}

impl Client {
    /// A client. No connection is made before it is asked for.
    ///
    /// # Errors
    /// The authorities or TLS cannot be used.
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let tls = tls(options.ca.as_deref())?;
        let pooled = || {
            let mut builder = legacy::Client::builder(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_MAX)
                .http2_adaptive_window(true)
                .http2_keep_alive_interval(Duration::from_secs(20))
                .http2_keep_alive_timeout(Duration::from_secs(20));
            builder
        };
        let https = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let inner = match &options.proxy {
            None => {
                let guard = Guard { internal: options.internal };
                let http = prepare(HttpConnector::new_with_resolver(guard), options.connect);
                let lines = Lines::new(Timed { inner: http.clone(), most: options.connect });
                let inner = https().enable_all_versions().wrap_connector(http);
                Inner::Direct(lines, pooled().build(Timed { inner, most: options.connect }))
            }
            Some(proxy) => {
                // The proxy resolves names and is the operator's own choice.
                let http = prepare(HttpConnector::new(), options.connect);
                let tunnel = Tunnel::new(proxy.address.clone(), http);
                let tunnel = match &proxy.authorization {
                    Some(value) => tunnel.with_auth(value.clone()),
                    None => tunnel,
                };
                let inner = https().enable_all_versions().wrap_connector(tunnel);
                Inner::Proxied(pooled().build(Timed { inner, most: options.connect }))
            }
        };
        Ok(Self { inner })
    }

    /// Sends a request; ready when the head of the answer is there.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        first_byte: Duration,
    ) -> Result<Response<AnswerBody>, NoAnswer> {
        let plain = request.uri().scheme() == Some(&Scheme::HTTP);
        let answer = match &self.inner {
            Inner::Direct(lines, _) if plain => {
                let answer = timeout(first_byte, lines.send(request)).await;
                return answer.unwrap_or(Err(NoAnswer::Late(first_byte)));
            }
            Inner::Direct(_, client) => client.request(request.map(Body::new)),
            Inner::Proxied(client) => client.request(request.map(Body::new)),
        };
        match timeout(first_byte, answer).await {
            Ok(Ok(response)) => Ok(response.map(AnswerBody::of_task)),
            Ok(Err(error)) if error.is_connect() => Err(NoAnswer::Unreached(causes(&error))),
            Ok(Err(error)) => Err(NoAnswer::Broke(causes(&error))),
            Err(_) => Err(NoAnswer::Late(first_byte)),
        }
    }
}

impl Proxy {
    /// A proxy as an operator writes it: `http://NAME:PASSWORD@HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong, without the text: a password may be in it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "proxy is not of the form http://HOST:PORT".to_owned();
        let url: Url = text.trim().parse().map_err(|_| wrong())?;
        let host = url.host_str().filter(|_| url.scheme() == "http" && url.path() == "/");
        let host = host.ok_or_else(wrong)?;
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        let address = format!("http://{host}:{port}/").parse().map_err(|_| wrong())?;
        let authorization = if url.username().is_empty() {
            None
        } else {
            let user = plain(url.username()).ok_or_else(wrong)?;
            let pair = [&user, &b":"[..], &plain(url.password().unwrap_or("")).ok_or_else(wrong)?];
            let value = format!("Basic {}", STANDARD.encode(pair.concat()));
            Some(HeaderValue::from_str(&value).map_err(|_| wrong())?)
        };
        Ok(Self { address, authorization })
    }
}

/// What stands behind percent signs.
fn plain(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        out.extend(hex::decode(code).ok()?);
        out.extend(rest.as_bytes());
    }
    Some(out)
}

/// Connections that are made in time, or not at all.
#[derive(Clone)]
pub(super) struct Timed<C> {
    inner: C,
    most: Duration,
}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let most = self.most;
        let connecting = self.inner.call(to);
        Box::pin(async move {
            match timeout(most, connecting).await {
                Ok(made) => made.map_err(Into::into),
                Err(_) => Err(format!("no connection within {} ms", most.as_millis()).into()),
            }
        })
    }
}

fn prepare<R>(mut http: HttpConnector<R>, connect: Duration) -> HttpConnector<R> {
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect));
    http.set_keepalive(Some(Duration::from_secs(60)));
    http
}

fn tls(ca: Option<&[u8]>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(pem) = ca else {
        let builder = builder.with_platform_verifier();
        return Ok(builder.map_err(|error| error.to_string())?.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Reads a file of authorities.
///
/// # Errors
/// It cannot be read.
pub(super) fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// An error with what lies behind it: the outermost words alone say nothing.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Looks names up, and refuses addresses of internal networks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    internal: bool,
}

impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let internal = self.internal;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            sift(name.as_str(), internal, found)
        })
    }
}

/// Those of a name's addresses that may be spoken to. A connection is made to one of these and
/// looks no name up again, so what the name stands for later changes nothing.
fn sift(
    name: &str,
    internal: bool,
    found: impl Iterator<Item = SocketAddr>,
) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let (bad, good): (Vec<_>, Vec<_>) =
        found.partition(|address| !internal && is_internal(address.ip()));
    if good.is_empty() && !bad.is_empty() {
        let why = format!("{name} is an address of an internal network");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(good.into_iter())
}

/// Whether an address belongs to this machine or to a network that the internet does not reach.
pub(super) fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => internal_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => internal_v4(v4),
            None => {
                let first = v6.segments()[0];
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || first & 0xfe00 == 0xfc00
                    || first & 0xff80 == 0xfe80
                    // Translators of this network's own, wherever they lead to.
                    || v6.segments()[..3] == [0x64, 0xff9b, 1]
            }
        },
    }
}

/// The old address inside a new one: mapped, compatible, or behind a translator.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let [x, y] = high.to_be_bytes();
    let [z, w] = low.to_be_bytes();
    let v4 = Ipv4Addr::new(x, y, z, w);
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => Some(v4),
        [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4),
        [0, 0, 0, 0, 0, 0] if high != 0 => Some(v4),
        [0x2002, ..] => {
            let ([x, y], [z, w]) = (b.to_be_bytes(), c.to_be_bytes());
            Some(Ipv4Addr::new(x, y, z, w))
        }
        _ => None,
    }
}

fn internal_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_multicast()
        || a == 0
        || a >= 240
        // Carriers' own, and benchmarks'.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
}

/// Connections without TLS.
#[cfg(test)]
pub(super) fn direct(internal: bool) -> Lines {
    let most = Duration::from_secs(5);
    let http = prepare(HttpConnector::new_with_resolver(Guard { internal }), most);
    Lines::new(Timed { inner: http, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that leads outside once and inside the next time, or to both at once.
    #[test]
    fn a_name_that_changes_leads_nowhere_inside() {
        let at = |address: &str| SocketAddr::new(address.parse().expect("an address"), 443);
        let (outside, inside) = (at("192.0.2.1"), at("169.254.169.254"));
        let sifted = |internal, found: &[SocketAddr]| {
            sift("far.example", internal, found.iter().copied()).map(Vec::from_iter)
        };
        assert_eq!(sifted(false, &[outside]).expect("outside"), [outside]);
        let refused = sifted(false, &[inside, at("::1")]).expect_err("inside");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(sifted(false, &[inside, outside]).expect("one of both"), [outside]);
        assert_eq!(sifted(true, &[inside]).expect("allowed"), [inside]);
    }

    #[test]
    fn internal_addresses() {
        let inside = "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 \
                      198.18.0.1 224.0.0.1 255.255.255.255 240.0.0.1 192.0.0.8 ::1 :: fe80::1 \
                      fd00::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b:1::808:808 \
                      ::ffff:0:a00:1 fec0::1 2002:a00:1:: ::127.0.0.1";
        let outside = "1.1.1.1 8.8.8.8 100.128.0.1 172.32.0.1 192.0.2.1 2606:4700::1111 \
                       ::ffff:8.8.8.8 64:ff9b::808:808";
        for (list, expect) in [(inside, true), (outside, false)] {
            for text in list.split_whitespace() {
                assert_eq!(is_internal(text.parse().expect("an address")), expect, "{text}");
            }
        }
    }

    #[test]
    fn proxies() {
        let proxy = Proxy::parse("http://proxy.lan:3128").expect("a proxy");
        assert_eq!(proxy.address, "http://proxy.lan:3128/");
        assert_eq!(proxy.authorization, None);
        let proxy = Proxy::parse("http://us%20er:p%40ss@[::1]").expect("a proxy");
        assert_eq!(proxy.address, "http://[::1]:80/");
        // `us er:p@ss`
        assert_eq!(proxy.authorization.expect("a password"), "Basic dXMgZXI6cEBzcw==");
        let bad = ["proxy.lan:3128", "https://p:3128", "socks5://p", "http://p/x", "http://u:%f@p"];
        for text in bad {
            assert!(!Proxy::parse(text).expect_err(text).contains("3128"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_connected_to() {
        let name: Name = "localhost".parse().expect("a name");
        let refused = Guard { internal: false }.call(name.clone()).await;
        assert_eq!(refused.expect_err("refused").kind(), io::ErrorKind::PermissionDenied);
        assert!(Guard { internal: true }.call(name).await.expect("found").next().is_some());
    }
}
