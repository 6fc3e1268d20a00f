//! How identity providers are reached: HTTPS only (plain HTTP on this machine), no redirects, a
//! megabyte and five seconds at most. What lies there is judged elsewhere.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use govern::identity::jwt::{Fetch, Fetching};
use openidconnect::{HttpRequest, HttpResponse};
use reqwest::Client;

use crate::outbound::{self, Options, Proxies, is_private};

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

/// The client for all of them.
#[derive(Debug, Clone)]
pub(super) struct Http(Client);

impl Http {
    /// A client that follows nobody.
    pub(super) fn new() -> reqwest::Result<Self> {
        let options = Options {
            connect: TIME_MAX,
            total: TIME_MAX,
            authorities: Vec::new(),
            proxies: Proxies::Environment,
        };
        outbound::client(options).map(Self)
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
