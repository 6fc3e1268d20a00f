//! Posting to an address that the operator named. No redirect is followed, nothing that comes back
//! is repeated in an error, and no proxy is used that was not asked for.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url};

use super::Failed;
use super::target::without_user;
use crate::outbound::{self, Options, Proxies};

/// Longest wait for the end of an answer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// An address.
pub(super) struct Address {
    client: Client,
    url: Url,
    /// From the user in the URL: a password alone is a bearer token.
    authorization: Option<HeaderValue>,
}

impl Address {
    pub(super) fn new(url: Url, proxies: &Proxies) -> Result<Self, String> {
        let authorization = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(token)) => Some(format!("Bearer {}", decoded(token)?)),
            (user, password) => {
                let pair = format!("{}:{}", decoded(user)?, decoded(password.unwrap_or(""))?);
                Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
        };
        let authorization = authorization.map(|text| {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| "the password in it holds what no header may".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Self {
            client: client(proxies)?,
            url: without_user(url),
            authorization: authorization.transpose()?,
        })
    }

    /// Posts a body and returns the answer's, if its status says that all is well.
    pub(super) async fn post(
        &self,
        kind: &'static str,
        mut headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Bytes, Failed> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        send(&self.client, Method::POST, self.url.clone(), headers, body).await
    }
}

/// The client for all of them.
pub(super) fn client(proxies: &Proxies) -> Result<Client, String> {
    let proxies = proxies.clone();
    let options = Options { connect: TIME_MAX, total: TIME_MAX, authorities: Vec::new(), proxies };
    outbound::client(options).map_err(outbound::why)
}

/// Sends a request; any status but 2xx is a failure.
pub(super) async fn send(
    client: &Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Bytes, Failed> {
    let request = client.request(method, url).headers(headers).body(body);
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status().as_u16();
    if !(200..300).contains(&status) {
        let why = match status {
            300..400 => format!("the answer is {status}, and redirects are not followed"),
            _ => format!("the answer is {status}"),
        };
        return Err(Failed { why, too_large: status == 413 });
    }
    let mut body = Vec::new();
    let mut chunks = answer.bytes_stream();
    while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failed::new("the answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

fn failed(error: reqwest::Error) -> Failed {
    Failed::new(outbound::why(error))
}

/// A part of a URL as it was meant.
pub(super) fn decoded(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')];
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).map_err(|_| "a % in it means nothing")?;
        out.extend(decoded);
    }
    String::from_utf8(out).map_err(|_| "it holds what is not UTF-8".to_owned())
}
