//! API keys: whoever shows one of them may in. Keys are kept as digests of one length, and all
//! of them are compared each time, so that no time tells how much of a guess was right.
//!
//! Without keys the server listens on loopback only, but a web page in a browser on the same
//! machine can reach that too, by a form or by a name that it points at 127.0.0.1. So then the
//! names that a browser sends along must be this machine's own.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use govern::identity::same;
use sha2::{Digest, Sha256};
use wire::ErrorKind;

use super::error::Failure;

/// The accepted keys; none: everyone may in.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// These keys.
    #[must_use]
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(|key| Sha256::digest(key).into()).collect())
    }

    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the shown key, from 1; 0 where none is needed.
    ///
    /// # Errors
    /// A key is needed, and the one shown is missing or wrong; or none is needed, and the request
    /// comes from a web page of another site.
    pub fn check(&self, headers: &HeaderMap) -> Result<u64, Failure> {
        if self.0.is_empty() {
            return from_this_machine(headers).map(|()| 0);
        }
        let Some(shown) = shown(headers) else {
            return Err(refused(
                "No API key was sent. Send 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
            ));
        };
        let digest: [u8; 32] = Sha256::digest(shown).into();
        let mut found = 0;
        for (number, key) in (1..).zip(&self.0) {
            // Both arms are the same work: which key it was is no secret, how much of it is.
            found |= if same(key, &digest) { number } else { 0 };
        }
        if found == 0 { Err(refused("The API key is not known here.")) } else { Ok(found) }
    }
}

/// `Host` and `Origin`, where they are sent, must name this machine.
fn from_this_machine(headers: &HeaderMap) -> Result<(), Failure> {
    let ours = |value: &[u8]| {
        let value = std::str::from_utf8(value).unwrap_or_default();
        let authority = value.split_once("://").map_or(value, |(_, rest)| rest);
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    for name in [HOST, ORIGIN] {
        if let Some(value) = headers.get(&name)
            && !ours(value.as_bytes())
        {
            let message = format!(
                "Without an API key this server answers to this machine only, and the header \
                 '{name}' names another. Connect to localhost, or start the server with a key."
            );
            return Err(Failure::new(ErrorKind::Forbidden, "foreign_host", message));
        }
    }
    Ok(())
}

/// OpenAI's header first, then Anthropic's, then Google's.
pub(super) fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    let named = ["x-api-key", "x-goog-api-key"].into_iter().find_map(|name| headers.get(name));
    bearer.or_else(|| named.map(|value| value.as_bytes().trim_ascii()))
}

fn refused(message: &str) -> Failure {
    Failure::new(ErrorKind::Unauthorized, "invalid_api_key", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let keys = Keys::new(["first-key", "second-key"]);
        let check = |name: &'static str, value: &str, expect: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header value"));
            assert_eq!(keys.check(&headers).ok(), expect, "{name}: {value}");
        };
        check("authorization", "Bearer first-key", Some(1));
        check("authorization", "bearer  second-key ", Some(2));
        check("x-api-key", "second-key", Some(2));
        check("x-api-key", "second-ke", None);
        check("x-goog-api-key", "second-key", Some(2));
        check("x-goog-api-key", "key", None);
        check("authorization", "Basic first-key", None);
        check("authorization", "Bearer ", None);
        check("x-other", "first-key", None);
        assert_eq!(Keys::default().check(&HeaderMap::new()).ok(), Some(0));
    }

    #[test]
    fn without_keys_web_pages_of_other_sites_stay_out() {
        let check = |host: &'static str, origin: Option<&'static str>, expect: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a header value"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("a header value"));
            }
            let keyless = Keys::default().check(&headers).is_ok();
            assert_eq!(keyless, expect, "host {host}, origin {origin:?}");
            headers.insert(AUTHORIZATION, "Bearer key".parse().expect("a header value"));
            assert!(Keys::new(["key"]).check(&headers).is_ok(), "a key is enough anywhere");
        };
        check("127.0.0.1:8080", None, true);
        check("localhost", None, true);
        check("LocalHost:8080", Some("http://localhost:3000"), true);
        check("[::1]:8080", Some("http://127.0.0.1"), true);
        check("127.0.0.1:8080", Some("https://example.org"), false);
        check("127.0.0.1:8080", Some("null"), false);
        check("rebound.example.org:8080", None, false);
        check("127.0.0.1.example.org", None, false);
        check("192.168.0.7", None, false);
    }
}
