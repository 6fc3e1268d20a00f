//! Where the audit may go, as an operator writes it. Errors name what is wrong and not the text: an
//! address may hold a password.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;
use ring::digest::{SHA256, digest};

use crate::outbound;

/// A place outside.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A syslog server.
    Syslog {
        /// How messages travel.
        transport: Transport,
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A file on this machine.
    File(PathBuf),
    /// A collector that takes JSON lines.
    Lines(Url),
    /// An OpenTelemetry collector, by its base address.
    Otlp(Url),
    /// A bucket.
    S3(Bucket),
}

/// How syslog messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each (RFC 5426). What gets lost on the way is not seen.
    Udp,
    /// One connection, each message behind its length in bytes (RFC 6587, octet counting).
    Tcp,
    /// The same within TLS (RFC 5425).
    Tls,
}

/// A bucket, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all objects' names begin with, without slashes around it.
    pub prefix: String,
    /// Where it is served from; `None`: Amazon.
    pub endpoint: Option<Url>,
    /// `us-east-1`
    pub region: String,
}

/// All ways to write one.
const FORMS: &str = "write syslog:udp://HOST:PORT, syslog:tcp://..., syslog:tls://..., \
                     file:/PATH, https://HOST/PATH, otlp:https://HOST:PORT or \
                     s3://BUCKET/PREFIX?region=NAME";

/// Reads a target.
///
/// # Errors
/// It is none; in words that do not repeat it.
pub fn parse(text: &str) -> Result<Target, String> {
    let wrong = || format!("this is no place for the audit; {FORMS}");
    let (scheme, rest) = text.trim().split_once(':').ok_or_else(wrong)?;
    match scheme {
        "syslog" => syslog(rest),
        "file" => {
            let path = if rest.starts_with("///") { &rest[2..] } else { rest };
            if !Path::new(path).is_absolute() || path.ends_with('/') {
                return Err(
                    "file: wants the whole path of a file: file:/var/log/audit.jsonl".to_owned()
                );
            }
            Ok(Target::File(PathBuf::from(path)))
        }
        "http" | "https" => http(text.trim()).map(Target::Lines),
        "otlp" => http(rest).map(Target::Otlp),
        "s3" => s3(text.trim()).map(Target::S3),
        _ => Err(wrong()),
    }
}

fn syslog(text: &str) -> Result<Target, String> {
    let wrong = "syslog: wants udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT";
    let url: Url = text.parse().map_err(|_| wrong)?;
    let (transport, usual) = match url.scheme() {
        "udp" => (Transport::Udp, 514),
        "tcp" => (Transport::Tcp, 514),
        "tls" => (Transport::Tls, 6514),
        _ => return Err(wrong.to_owned()),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(wrong)?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
        return Err(wrong.to_owned());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target::Syslog { transport, host, port: url.port().unwrap_or(usual) })
}

/// An address over HTTP. What it shows to come in must not be read on the way.
///
/// # Errors
/// It is none; in words that do not repeat it.
pub(crate) fn http(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "this is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("this is neither http:// nor https://".to_owned());
    }
    let shows = !url.username().is_empty() || url.password().is_some();
    if shows && !outbound::is_private(&url) {
        return Err("a password may go over https only, or within this machine".to_owned());
    }
    Ok(url)
}

/// Whether a text is a proxy's address.
///
/// # Errors
/// It is none; in words that do not repeat it.
pub(crate) fn proxy(text: &str) -> Result<(), String> {
    let url: Url = text.parse().map_err(|_| "this is not a URL")?;
    let known = matches!(url.scheme(), "http" | "https");
    if known { Ok(()) } else { Err("this is neither http:// nor https://".to_owned()) }
}

fn s3(text: &str) -> Result<Bucket, String> {
    let wrong = "s3: wants s3://BUCKET/PREFIX?region=NAME, and endpoint=URL for others than Amazon";
    let url: Url = text.parse().map_err(|_| wrong)?;
    let name = url.host_str().unwrap_or_default().to_owned();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&name.len()) || !name.bytes().all(plain) || !url.username().is_empty() {
        return Err(wrong.to_owned());
    }
    let prefix = url.path().trim_matches('/').to_owned();
    if prefix.split('/').any(|part| part == "." || part == "..") || prefix.contains('%') {
        return Err("s3: a prefix is made of plain letters".to_owned());
    }
    let (mut endpoint, mut region) = (None, None);
    for (key, value) in url.query_pairs() {
        match &*key {
            "endpoint" => endpoint = Some(http(&value).map_err(|why| format!("endpoint: {why}"))?),
            "region" if !value.is_empty() && value.bytes().all(plain) => {
                region = Some(value.into_owned());
            }
            _ => return Err(wrong.to_owned()),
        }
    }
    let region = region.or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
    Ok(Bucket { name, prefix, endpoint, region: region.ok_or(wrong)? })
}

impl Target {
    /// Its name in the database, in metrics and logs: kind and host, and some letters that tell it
    /// from others there. Who may come in is not in it, so a new password is not a new place.
    #[must_use]
    pub fn name(&self) -> String {
        let (kind, host) = match self {
            Self::Syslog { host, .. } => ("syslog", host.as_str()),
            Self::File(path) => {
                ("file", path.file_name().and_then(|name| name.to_str()).unwrap_or(""))
            }
            Self::Lines(url) => ("lines", url.host_str().unwrap_or_default()),
            Self::Otlp(url) => ("otlp", url.host_str().unwrap_or_default()),
            Self::S3(bucket) => ("s3", bucket.name.as_str()),
        };
        let host: String = host.chars().take(64).collect();
        format!("{kind}:{host}:{}", short_hash(&self.whole()))
    }

    /// All of it but who may come in.
    fn whole(&self) -> String {
        match self {
            Self::Syslog { transport, host, port } => format!("{transport:?} {host} {port}"),
            Self::File(path) => path.display().to_string(),
            Self::Lines(url) | Self::Otlp(url) => without_user(url.clone()).to_string(),
            Self::S3(Bucket { name, prefix, endpoint, region }) => {
                let endpoint = endpoint.as_ref().map(Url::as_str).unwrap_or_default();
                format!("{name} {prefix} {endpoint} {region}")
            }
        }
    }

    /// What an operator should think about.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let clear = match self {
            Self::Lines(url) | Self::Otlp(url) => !outbound::is_private(url),
            Self::S3(bucket) => {
                bucket.endpoint.as_ref().is_some_and(|url| !outbound::is_private(url))
            }
            Self::Syslog { .. } | Self::File(_) => false,
        };
        clear.then(|| format!("{} is sent in clear over the network", self.name()))
    }
}

/// Names only: an address may hold what nobody is to see.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A URL without the user in it.
pub(super) fn without_user(mut url: Url) -> Url {
    // Only URLs without a host refuse, and these have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Some letters that tell a text from others, and do not tell it.
pub(super) fn short_hash(text: &str) -> String {
    hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let syslog = |transport, host: &str, port| {
            Ok(Target::Syslog { transport, host: host.to_owned(), port })
        };
        let check = |text: &str, expect: Result<Target, ()>| {
            assert_eq!(parse(text).map_err(|_| ()), expect, "{text}");
        };
        check("syslog:udp://log.example", syslog(Transport::Udp, "log.example", 514));
        check("syslog:tcp://[::1]:5140", syslog(Transport::Tcp, "::1", 5140));
        check("syslog:tls://10.0.0.1", syslog(Transport::Tls, "10.0.0.1", 6514));
        check("file:/var/a.jsonl", Ok(Target::File("/var/a.jsonl".into())));
        check("file:///var/a.jsonl", Ok(Target::File("/var/a.jsonl".into())));
        let url = |text: &str| text.parse::<Url>().expect("a URL");
        check("https://a.example/x", Ok(Target::Lines(url("https://a.example/x"))));
        check("http://10.0.0.1/x", Ok(Target::Lines(url("http://10.0.0.1/x"))));
        check("otlp:http://10.0.0.1:4318", Ok(Target::Otlp(url("http://10.0.0.1:4318"))));
        let bucket = Bucket {
            name: "logs".to_owned(),
            prefix: "a/b".to_owned(),
            endpoint: None,
            region: "eu-west-1".to_owned(),
        };
        check("s3://logs/a/b/?region=eu-west-1", Ok(Target::S3(bucket.clone())));
        let endpoint = Some(url("http://127.0.0.1:9000"));
        let own = Bucket { endpoint, region: "us-east-1".to_owned(), ..bucket };
        check("s3://logs/a/b?endpoint=http://127.0.0.1:9000", Ok(Target::S3(own)));
        for wrong in [
            "",
            "audit",
            "syslog:",
            "syslog:log.example",
            "syslog:http://a",
            "syslog:udp://a/b",
            "syslog:tcp://u@a",
            "file:",
            "file:a",
            "file:/a/",
            "ftp://a/b",
            "otlp:ftp://a",
            "otlp:a",
            "http://u:p@10.0.0.1/x",
            "otlp:http://:token@10.0.0.1",
            "s3://",
            "s3://logs/a",
            "s3://LOGS/a?region=x",
            "s3://logs/../x%2e?region=a",
            "s3://logs/a?region=x&acl=public",
            "s3://logs/a?endpoint=ftp://a",
        ] {
            let said = parse(wrong).expect_err(wrong);
            assert!(wrong.len() < 8 || !said.contains(wrong), "{said}");
        }
    }

    #[test]
    fn names_tell_places_apart_and_no_secrets() {
        let name = |text: &str| parse(text).expect(text).name();
        let of = name("https://me:first@a.example/x?key=top");
        assert_eq!(of, name("https://you:second@a.example/x?key=top"));
        assert_ne!(of, name("https://me:first@a.example/y"));
        assert!(of.starts_with("lines:a.example:"), "{of}");
        let shown = format!("{:?}", parse("https://me:first@a.example/x?key=top"));
        assert!(!shown.contains("first") && !shown.contains("top"), "{shown}");
    }
}
