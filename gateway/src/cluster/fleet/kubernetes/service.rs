//! How an operator names a service of Kubernetes whose endpoints are nodes: as its name in the DNS
//! of the cluster is written, so that `cluster.dns` and `cluster.kubernetes` take the same text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::cluster::endpoint::Endpoint;

/// Longest name of a service, a namespace or a port (RFC 1123).
const LABEL_BYTES_MAX: usize = 63;

/// `http://SERVICE:PORT`, `http://SERVICE.NAMESPACE:PORT` or with `https://`; behind the namespace
/// may stand `.svc` and the cluster's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesService {
    /// Its nodes speak TLS.
    pub tls: bool,
    /// As it was written, without the port: the name that its nodes' certificates are to show.
    pub host: String,
    /// Its name.
    pub name: String,
    /// Where it is; `None`: where this pod is.
    pub namespace: Option<String>,
    /// Which of its endpoints' ports.
    pub port: ServicePort,
}

/// A port of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePort {
    /// This one.
    Number(u16),
    /// The one that the service calls so.
    Name(String),
}

impl KubernetesService {
    /// One of its endpoints, as a node.
    pub(super) fn endpoint(&self, address: IpAddr, port: u16) -> Endpoint {
        let (host, name) = (address.to_string(), self.tls.then(|| self.host.clone()));
        Endpoint { tls: self.tls, host, port, name }
    }
}

/// Whether Kubernetes would take it for a name. It becomes a part of a path.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl FromStr for ServicePort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse::<u16>().ok().filter(|port| *port > 0);
            return number.map(Self::Number).ok_or(());
        }
        is_label(text).then(|| Self::Name(text.to_owned())).ok_or(())
    }
}

impl FromStr for KubernetesService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` is not of the form http://SERVICE.NAMESPACE:PORT (or https://): {why}"
            )
        };
        let (tls, rest) = match text.trim().split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port = port.parse::<ServicePort>().map_err(|()| {
            wrong("its port is neither a number from 1 to 65535 nor a name of a-z, 0-9 and -")
        })?;
        let mut labels = host.split('.');
        let (name, namespace) = (labels.next().unwrap_or_default(), labels.next());
        if !is_label(name) || !namespace.is_none_or(is_label) {
            return Err(wrong("services and namespaces have names of a-z, 0-9 and -"));
        }
        if labels.next().is_some_and(|svc| svc != "svc") || !labels.all(is_label) {
            return Err(wrong("behind the namespace stands .svc, or nothing"));
        }
        let (name, namespace) = (name.to_owned(), namespace.map(str::to_owned));
        Ok(Self { tls, host: host.to_owned(), name, namespace, port })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for KubernetesService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let number = ServicePort::Number;
        let named = |name: &str| ServicePort::Name(name.to_owned());
        for (text, tls, name, namespace, port) in [
            ("http://nodes:8100", false, "nodes", None, number(8100)),
            ("http://nodes.models:cluster", false, "nodes", Some("models"), named("cluster")),
            ("https://n-1.models.svc:443", true, "n-1", Some("models"), number(443)),
            ("http://a.b.svc.cluster.local:h2-c", false, "a", Some("b"), named("h2-c")),
        ] {
            let service: KubernetesService = text.parse().expect(text);
            assert_eq!(service.to_string(), text);
            assert_eq!((service.tls, service.name.as_str()), (tls, name), "{text}");
            assert_eq!((service.namespace.as_deref(), service.port), (namespace, port), "{text}");
        }
    }

    #[test]
    fn what_names_no_service_is_refused_with_a_reason() {
        let long = format!("http://{}:80", "a".repeat(64));
        for (text, why) in [
            ("nodes.models:8100", "neither http://"),
            ("ftp://nodes:1", "neither http://"),
            ("http://nodes", "port is missing"),
            ("http://nodes:", "its port"),
            ("http://nodes:0", "its port"),
            ("http://nodes:65536", "its port"),
            ("http://nodes:+80", "its port"),
            ("http://nodes:Cluster", "its port"),
            ("http://nodes:-c", "its port"),
            ("http://:80", "names of"),
            ("http://Nodes:80", "names of"),
            ("http://nodes.:80", "names of"),
            ("http://nodes/x:80", "names of"),
            ("http://user@nodes:80", "names of"),
            ("http://[::1]:80", "names of"),
            ("http://10.0.0.5:8100", "behind the namespace"),
            ("http://nodes.models.pod:80", "behind the namespace"),
            ("http://nodes.models.svc.:80", "behind the namespace"),
            (&long, "names of"),
        ] {
            let told = text.parse::<KubernetesService>().expect_err(text);
            assert!(told.contains(why) && told.contains(text), "{told}");
        }
    }

    #[test]
    fn an_endpoint_shows_the_services_name() {
        let service: KubernetesService = "https://nodes.models.svc:8100".parse().expect("one");
        let node = service.endpoint("fd00::7".parse().expect("an address"), 8100);
        assert_eq!(node.to_string(), "https://[fd00::7]:8100");
        assert_eq!(node.name.as_deref(), Some("nodes.models.svc"));
    }
}
