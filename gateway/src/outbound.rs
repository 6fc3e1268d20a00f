//! What goes out of this process to other services over HTTP: the client for it, and where a secret
//! may go at all. What is asked there, and how much of an answer is read, is the asker's business.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Proxy, Url};

/// What a client waits for, and whom it believes.
pub(crate) struct Options {
    /// Longest wait for a connection.
    pub(crate) connect: Duration,
    /// Longest wait for the last byte of an answer.
    pub(crate) total: Duration,
    /// The only authorities whose certificates count; empty: those that everybody believes.
    pub(crate) authorities: Vec<Certificate>,
    /// Who passes it on.
    pub(crate) proxies: Proxies,
}

/// Who passes on what goes out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proxies {
    /// Nobody.
    #[default]
    None,
    /// Whom the environment names: `HTTPS_PROXY` and its like.
    Environment,
    /// This one.
    One(crate::config::Secret),
}

/// A client that follows nobody: a redirect would take what was sent to a place that nobody named.
///
/// # Errors
/// TLS cannot be set up.
pub(crate) fn client(options: Options) -> reqwest::Result<Client> {
    let Options { connect, total, authorities, proxies } = options;
    let client = Client::builder()
        .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(connect)
        .timeout(total);
    let client = match proxies {
        Proxies::None => client.no_proxy(),
        Proxies::Environment => client,
        Proxies::One(url) => client.no_proxy().proxy(Proxy::all(url.reveal())?),
    };
    if authorities.is_empty() { client } else { client.tls_certs_only(authorities) }.build()
}

/// Why a request failed, down to the cause, and without its address: that may hold a secret.
pub(crate) fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Whether what is sent there can be read by nobody on the way.
pub(crate) fn is_private(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(|host| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }),
        _ => false,
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
