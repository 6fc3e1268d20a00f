//! Where a node or a gateway answers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// It speaks TLS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The name that its certificate is to show, where that is not the host.
    pub name: Option<String>,
}

impl Endpoint {
    /// The same at an address that its name was found to have.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        // Without TLS nobody asks for a name: found in two ways, it is one endpoint.
        let name = self.tls.then(|| self.name.clone().unwrap_or_else(|| self.host.clone()));
        Self { host: address.to_string(), name, ..self.clone() }
    }

    /// Host and port, as they stand in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Nobody between here and there can listen: it is this machine, or it speaks TLS.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.tls || self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form http://HOST:PORT or https://HOST:PORT");
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let host = match inner {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if !host.is_empty() && host.chars().all(named) => host.to_owned(),
            None => return Err(wrong()),
        };
        Ok(Self { tls, host, port, name: None })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for text in ["http://10.0.0.5:8100", "https://node-1.lan:443", "http://[::1]:8100"] {
            assert_eq!(text.parse::<Endpoint>().expect("an endpoint").to_string(), text);
        }
        let bad = [
            "10.0.0.5:8100",
            "http://a",
            "http://a:0",
            "ftp://a:1",
            "http://a/b:1",
            "http://:1",
            "http://a:99999",
            "http://u@a:1",
            "http://[::g]:1",
        ];
        for text in bad {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        let found: Endpoint = "https://nodes.lan:8100".parse().expect("an endpoint");
        let at = found.at("fd00::1".parse().expect("an address"));
        assert_eq!(
            (at.to_string().as_str(), at.name.as_deref()),
            ("https://[fd00::1]:8100", Some("nodes.lan"))
        );
    }

    #[test]
    fn who_may_listen() {
        for (text, expect) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost:1", true),
            ("https://10.0.0.1:1", true),
            ("http://10.0.0.1:1", false),
        ] {
            assert_eq!(
                text.parse::<Endpoint>().expect("an endpoint").is_private(),
                expect,
                "{text}"
            );
        }
    }
}
