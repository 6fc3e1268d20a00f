//! The cookies of signing in. Scripts cannot read them, other sites' forms do not send them, and
//! over HTTPS their name binds them to this very host and to HTTPS (`__Host-`).

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The session's token.
    Session,
    /// What was sent to an identity provider, sealed.
    Flow,
    /// Somebody whose password was right and whose code is awaited, sealed.
    Second,
}

/// How this server's cookies are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cookies {
    /// Whether people come over HTTPS.
    pub(super) secure: bool,
}

impl Cookies {
    /// The name. Browsers refuse `__Host-` over plain HTTP.
    pub(super) fn name(self, kind: Kind) -> &'static str {
        match (kind, self.secure) {
            (Kind::Session, true) => "__Host-hearth",
            (Kind::Session, false) => "hearth",
            (Kind::Flow, true) => "__Host-hearth-flow",
            (Kind::Flow, false) => "hearth-flow",
            (Kind::Second, true) => "__Host-hearth-second",
            (Kind::Second, false) => "hearth-second",
        }
    }

    /// What a browser sent.
    pub(super) fn read(self, headers: &HeaderMap, kind: Kind) -> Option<&str> {
        let name = self.name(kind);
        let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = all.flat_map(|value| value.split(';'));
        pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
    }

    /// Has a browser keep a value for some seconds.
    pub(super) fn set(self, headers: &mut HeaderMap, kind: Kind, value: &str, seconds: i64) {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = self.name(kind);
        let text =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        // Tokens and sealed secrets are letters, digits, `-`, `_` and `.`.
        let value = HeaderValue::from_str(&text).expect("plain letters");
        headers.append(SET_COOKIE, value);
    }

    /// Has a browser forget it.
    pub(super) fn clear(self, headers: &mut HeaderMap, kind: Kind) {
        self.set(headers, kind, "", 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_read_by_their_whole_name() {
        let cookies = Cookies { secure: true };
        let check = |sent: &[&'static str], expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(COOKIE, HeaderValue::from_static(value));
            }
            assert_eq!(cookies.read(&headers, Kind::Session), expect, "{sent:?}");
        };
        check(&["__Host-hearth=a1"], Some("a1"));
        check(&["x=1; __Host-hearth=a1; y=2"], Some("a1"));
        check(&["x=1", "__Host-hearth=a1"], Some("a1"));
        check(&["__Host-hearth-flow=f"], None);
        check(&["hearth=a1"], None);
        check(&["__host-hearth=a1"], None);
        check(&["y=__Host-hearth=a1"], None);
        check(&[], None);
    }

    #[test]
    fn attributes() {
        for (secure, expect) in [
            (true, "__Host-hearth=t; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"),
            (false, "hearth=t; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"),
        ] {
            let mut headers = HeaderMap::new();
            Cookies { secure }.set(&mut headers, Kind::Session, "t", 60);
            assert_eq!(headers[SET_COOKIE], expect);
        }
    }
}
