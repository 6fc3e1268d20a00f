//! Records as objects of JSON lines in a bucket. An object is named by its chain and by the numbers
//! of its first and last record, so the same object put twice is there once.

use std::time::Duration;

use govern::Millis;
use govern::audit::Record;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};

use super::http::{client, send};
use super::settings::S3Key;
use super::target::Bucket;
use super::{Failed, export::lines};
use crate::outbound::Proxies;
use crate::sigv4::{self, Credentials, Request};

/// Objects begin at multiples of this, so that nobody has millions of small ones.
pub(super) const OBJECT_RECORDS: i64 = 1000;

/// How long records wait for an object's others.
pub(super) const LINGER: Duration = Duration::from_secs(60);

const KIND: &str = "application/x-ndjson";

/// A bucket.
pub(super) struct S3 {
    client: Client,
    bucket: Bucket,
    key: S3Key,
}

impl S3 {
    pub(super) fn new(bucket: Bucket, key: S3Key, proxies: &Proxies) -> Result<Self, String> {
        Ok(Self { client: client(proxies)?, bucket, key })
    }

    /// Puts an object. All records are of one chain and follow each other.
    pub(super) async fn send(&self, records: &[Record], now: Millis) -> Result<(), Failed> {
        let [Some(first), Some(last)] = [records.first(), records.last()] else { return Ok(()) };
        let (url, host) = self.url(&name(&self.bucket.prefix, first, last))?;
        let body = lines(records);
        let hash = sigv4::hash(&body);
        let mut headers =
            vec![("content-type", KIND), ("host", &host), ("x-amz-content-sha256", &hash)];
        let request = Request {
            region: &self.bucket.region,
            service: "s3",
            method: "PUT",
            path: url.path(),
            query: &[],
            headers: &headers,
            body: &hash,
        };
        let credentials = Credentials {
            access_key: &self.key.access_key,
            secret_key: self.key.secret_key.reveal(),
            session_token: self.key.session_token.as_ref().map(crate::config::Secret::reveal),
        };
        let signed = sigv4::sign(&credentials, &request, now);
        headers.retain(|(name, _)| *name != "host");
        let own = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let mut all = HeaderMap::new();
        for (name, value) in own.chain(signed) {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| Failed::new("the key for S3 holds what no header may"))?;
            value.set_sensitive(true);
            all.insert(HeaderName::from_static(name), value);
        }
        send(&self.client, Method::PUT, url, all, body).await.map(drop)
    }

    /// Where an object lies, and the host as it is signed.
    fn url(&self, name: &str) -> Result<(Url, String), Failed> {
        let Bucket { name: bucket, endpoint, region, .. } = &self.bucket;
        let name = sigv4::encode(name, true);
        let text = match endpoint {
            Some(endpoint) => {
                format!("{}/{bucket}/{name}", endpoint.as_str().trim_end_matches('/'))
            }
            // A dot in a bucket's name fits no certificate for *.s3.
            None if bucket.contains('.') => {
                format!("https://s3.{region}.amazonaws.com/{bucket}/{name}")
            }
            None => format!("https://{bucket}.s3.{region}.amazonaws.com/{name}"),
        };
        let url: Url = text.parse().map_err(|_| Failed::new("the endpoint is no URL"))?;
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok((url, host))
    }
}

/// `PREFIX/CHAIN/0000001000-0000001999.jsonl`
fn name(prefix: &str, first: &Record, last: &Record) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    // A gateway's name holds no slash; a record that somebody forged may.
    let chain = first.chain.replace('/', "_");
    format!("{prefix}{slash}{chain}/{:010}-{:010}.jsonl", first.number, last.number)
}
