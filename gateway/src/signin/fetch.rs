//! How identity providers are reached: HTTPS only (plain HTTP on this machine), no redirects, a
//! megabyte and five seconds at most. What lies there is judged elsewhere.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use govern::identity::jwt::{Fetch, Fetching};
use openidconnect::{HttpRequest, HttpResponse};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

const BYTES_MAX: usize = 1 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0} is neither https nor on this machine")]
    Insecure(String),
    #[error("{0}")]
    Network(#[from] reqwest::Error),
    #[error("the answer is longer than {BYTES_MAX} bytes")]
    TooLong,
    #[error("the answer has status {0}")]
    Status(u16),
}

/// Whether what is sent there can be read by nobody on the way.
pub(super) fn is_private(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(|host| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }),
        _ => false,
    }
}

/// The client for all of them.
#[derive(Debug, Clone)]
pub(super) struct Http(Client);

impl Http {
    /// A client that follows nobody.
    pub(super) fn new() -> reqwest::Result<Self> {
        let client = Client::builder()
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .timeout(TIME_MAX);
        client.build().map(Self)
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn call(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let request = reqwest::Request::try_from(request)?;
        if !is_private(request.url()) {
            return Err(FetchError::Insecure(request.url().to_string()));
        }
        let answer = self.0.execute(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.try_next().await? {
            if body.len() + chunk.len() > BYTES_MAX {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = HttpResponse::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }

    /// Gets what lies at an address, if it answers with 200.
    pub(super) async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let mut request = HttpRequest::new(Vec::new());
        // An address that cannot be one is refused by `call`, as it names nothing secure.
        *request.uri_mut() = url.parse().unwrap_or_default();
        let answer = self.call(request).await?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            other => Err(FetchError::Status(other)),
        }
    }
}

impl Fetch for Http {
    fn get<'a>(&'a self, url: &'a str) -> Fetching<'a> {
        Box::pin(async move { Self::get(self, url).await.map_err(|error| error.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_reads_on_the_way() {
        for (url, expect) in [
            ("https://login.example.org/keys", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://[::1]:8080/keys", true),
            ("http://localhost/keys", true),
            ("http://login.example.org/keys", false),
            ("http://127.0.0.1.example.org/keys", false),
            ("http://localhost.example.org/keys", false),
            ("http://169.254.169.254/latest", false),
            ("file:///etc/passwd", false),
            ("ftp://127.0.0.1/", false),
        ] {
            assert_eq!(is_private(&url.parse().expect("a URL")), expect, "{url}");
        }
    }
}
