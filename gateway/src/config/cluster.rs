//! Options of the cluster: which nodes a gateway speaks to, and to whom a node names itself.

use std::path::PathBuf;

use reqwest::Url;

use super::options::{Opt, one};
use super::{Config, Role, Secret, values};
use crate::cluster::{Endpoint, Kubernetes, KubernetesService};
use crate::outbound::is_private;
use crate::tls::Clients;

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// Nodes that are listed.
    pub nodes: Vec<Endpoint>,
    /// Names whose addresses are nodes.
    pub names: Vec<Endpoint>,
    /// Services whose endpoints are nodes.
    pub kubernetes: Kubernetes,
    /// Models that nodes will serve.
    pub models: Vec<String>,
    /// What gateways and nodes show each other.
    pub token: Option<Secret>,
    /// Authorities of nodes and gateways.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to them.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Gateways that this node names itself to.
    pub join: Vec<Endpoint>,
    /// Where this node answers them.
    pub advertise: Option<Endpoint>,
}

impl Cluster {
    /// This gateway speaks to nodes, or lets them name themselves.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.speaks() || self.token.is_some()
    }

    /// It is told where nodes are.
    fn speaks(&self) -> bool {
        let Self { nodes, names, kubernetes, .. } = self;
        !nodes.is_empty() || !names.is_empty() || !kubernetes.services.is_empty()
    }

    /// Every pod has variables that say where the API server of its cluster is.
    pub(super) fn find_api(&mut self, env: impl Fn(&str) -> Option<String>) {
        if self.kubernetes.services.is_empty() || self.kubernetes.api.is_some() {
            return;
        }
        let found = [env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")];
        if let [Some(host), Some(port)] = found {
            let shown = if host.contains(':') { format!("[{host}]") } else { host };
            self.kubernetes.api = api(&format!("https://{shown}:{port}")).unwrap_or_default();
        }
    }

    /// The certificate and its key, where there is one.
    #[must_use]
    pub fn own(&self) -> Option<(PathBuf, PathBuf)> {
        self.certificate.clone().zip(self.key.clone())
    }
}

/// What must hold between these options; an error names the option.
pub(super) fn check(config: &Config, role: Role) -> Result<(), (&'static str, &'static str)> {
    let Cluster { models, token, certificate, key, join, advertise, .. } = &config.cluster;
    let speaks = config.cluster.speaks();
    if certificate.is_some() != key.is_some() {
        return Err(("cluster.cert", "cluster.cert and cluster.key go together"));
    }
    match role {
        Role::Gateway => {
            if !join.is_empty() || advertise.is_some() {
                return Err(("cluster.join", "only a node names itself: `hearth node`"));
            }
            let Kubernetes { services, api, .. } = &config.cluster.kubernetes;
            if !services.is_empty() && api.is_none() {
                return Err((
                    "cluster.kubernetes_api",
                    "this is no pod of Kubernetes (KUBERNETES_SERVICE_HOST and \
                     KUBERNETES_SERVICE_PORT name no API server): say where it is",
                ));
            }
            if speaks && token.is_none() && certificate.is_none() {
                return Err((
                    "cluster.token",
                    "nodes ask for it: set HEARTH_CLUSTER_TOKEN to the same secret here and there \
                     (or cluster.cert, where they ask for certificates)",
                ));
            }
            if !models.is_empty() && !config.cluster.is_used() {
                return Err(("cluster.models", "cluster.nodes or cluster.token is missing"));
            }
        }
        Role::Node => {
            if speaks || !models.is_empty() {
                let why = "a node has no nodes of its own: that is the gateway's part";
                return Err(("cluster.nodes", why));
            }
            let certified = config.tls.clients == Clients::Required;
            if token.is_none() && !certified && !config.listen.ip().is_loopback() {
                return Err((
                    "server.listen",
                    "without a token only this machine may connect. Set HEARTH_CLUSTER_TOKEN to a \
                     secret that gateways show, or ask them for certificates \
                     (server.tls_client), or listen on 127.0.0.1",
                ));
            }
            if !join.is_empty() && token.is_none() && certificate.is_none() {
                return Err(("cluster.token", "gateways ask for it where a node names itself"));
            }
        }
    }
    Ok(())
}

/// Warnings: prompts and answers that cross a network for all to read.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let Cluster { nodes, names, kubernetes, .. } = &config.cluster;
    let listed = nodes.iter().chain(names).filter(|endpoint| !endpoint.is_private());
    let services = kubernetes.services.iter().filter(|service| !service.tls);
    let mut open = listed.map(ToString::to_string).chain(services.map(ToString::to_string));
    let text = |nodes: String| {
        format!(
            "the token, prompts and answers cross the network unencrypted: {nodes} is plain \
             HTTP. Give nodes a certificate (server.tls_cert) and write https://, or see to it \
             that nobody else is in that network"
        )
    };
    open.next().map(text).into_iter().collect()
}

fn endpoints(texts: &[&str]) -> Result<Vec<Endpoint>, String> {
    texts.iter().map(|text| text.trim().parse()).collect()
}

/// Where a service account's token may be shown. An error does not repeat the text: a password may
/// be in it.
fn api(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = |url: &Url| {
        let bare = url.username().is_empty() && url.password().is_none();
        bare && url.query().is_none() && url.fragment().is_none() && is_private(url)
    };
    let url = text.parse::<Url>().ok().filter(plain);
    url.map(Some).ok_or_else(|| {
        "this is not of the form https://HOST:PORT (http:// only within this machine)".to_owned()
    })
}

pub(super) const NODES: Opt = Opt {
    key: "cluster.nodes",
    env: "HEARTH_CLUSTER_NODES",
    flag: "cluster-node",
    value: "URL",
    default: "",
    list: true,
    doc: "Nodes that make tokens for this gateway: `http://HOST:PORT` of each `hearth node` \
          (docs/cluster.md). Their models are offered beside those of this process.",
    set: |c, t| {
        c.cluster.nodes = endpoints(t)?;
        Ok(())
    },
};

pub(super) const DNS: Opt = Opt {
    key: "cluster.dns",
    env: "HEARTH_CLUSTER_DNS",
    flag: "cluster-dns",
    value: "URL",
    default: "",
    list: true,
    doc: "Names whose addresses are nodes, all of them, looked up every few seconds: \
          `http://NAME:PORT`.",
    set: |c, t| {
        c.cluster.names = endpoints(t)?;
        Ok(())
    },
};

pub(super) const KUBERNETES: Opt = Opt {
    key: "cluster.kubernetes",
    env: "HEARTH_CLUSTER_KUBERNETES",
    flag: "cluster-kubernetes",
    value: "URL",
    default: "",
    list: true,
    doc: "Services of Kubernetes whose endpoints are nodes, all of them: \
          `http://SERVICE.NAMESPACE:PORT`, the port by its number or its name, the namespace where \
          it is another than this pod's. The API server tells of each change (docs/cluster.md).",
    set: |c, t| {
        let services = t.iter().map(|text| text.parse::<KubernetesService>());
        c.cluster.kubernetes.services = services.collect::<Result<_, _>>()?;
        Ok(())
    },
};

pub(super) const KUBERNETES_API: Opt = Opt {
    key: "cluster.kubernetes_api",
    env: "HEARTH_CLUSTER_KUBERNETES_API",
    flag: "cluster-kubernetes-api",
    value: "URL",
    default: "",
    list: false,
    doc: "The API server that is asked for them: `https://HOST:PORT`, or `http://` within this \
          machine, such as `kubectl proxy`. Empty: that of the cluster whose pod this is.",
    set: |c, t| one(&mut c.cluster.kubernetes.api, t, api),
};

pub(super) const KUBERNETES_ACCOUNT: Opt = Opt {
    key: "cluster.kubernetes_account",
    env: "HEARTH_CLUSTER_KUBERNETES_ACCOUNT",
    flag: "cluster-kubernetes-account",
    value: "DIR",
    default: "/var/run/secrets/kubernetes.io/serviceaccount",
    list: false,
    doc: "Folder of the account that asks: `token`, `ca.crt` (without it: whom the system \
          believes) and `namespace`, where Kubernetes puts them into pods.",
    set: |c, t| {
        one(&mut c.cluster.kubernetes.account, t, |text| match text {
            "" => Err("this takes a folder".to_owned()),
            text => Ok(PathBuf::from(text)),
        })
    },
};

pub(super) const TOKEN: Opt = Opt {
    key: "cluster.token",
    env: "HEARTH_CLUSTER_TOKEN",
    flag: "cluster-token",
    value: "TOKEN",
    default: "",
    list: false,
    doc: "What gateways and nodes show each other, the same for all of them. With it nodes may \
          also name themselves to this gateway. Other users of the machine see flags: prefer the \
          variable or the file.",
    set: |c, t| {
        one(&mut c.cluster.token, t, |text| match text {
            "" => Ok(None),
            text => values::secret(text).map(Some),
        })
    },
};

pub(super) const MODELS: Opt = Opt {
    key: "cluster.models",
    env: "HEARTH_CLUSTER_MODELS",
    flag: "cluster-model",
    value: "NAME",
    default: "",
    list: true,
    doc: "Names of models that nodes will serve, so that pools may name them before any node is \
          there. Others are offered too.",
    set: |c, t| {
        c.cluster.models = t.iter().map(|text| text.trim().to_owned()).collect();
        Ok(())
    },
};

pub(super) const CA: Opt = Opt {
    key: "cluster.ca",
    env: "HEARTH_CLUSTER_CA",
    flag: "cluster-ca",
    value: "FILE",
    default: "",
    list: false,
    doc: "The only authorities that count for the certificates of nodes and gateways, in PEM. \
          Empty: those that the system believes.",
    set: |c, t| one(&mut c.cluster.ca, t, values::file_or_none),
};

pub(super) const CERTIFICATE: Opt = Opt {
    key: "cluster.cert",
    env: "HEARTH_CLUSTER_CERT",
    flag: "cluster-cert",
    value: "FILE",
    default: "",
    list: false,
    doc: "Certificate that is shown to nodes and gateways that ask for one, in PEM.",
    set: |c, t| one(&mut c.cluster.certificate, t, values::file_or_none),
};

pub(super) const KEY: Opt = Opt {
    key: "cluster.key",
    env: "HEARTH_CLUSTER_KEY",
    flag: "cluster-key",
    value: "FILE",
    default: "",
    list: false,
    doc: "That certificate's private key, in PEM.",
    set: |c, t| one(&mut c.cluster.key, t, values::file_or_none),
};

pub(super) const JOIN: Opt = Opt {
    key: "cluster.join",
    env: "HEARTH_CLUSTER_JOIN",
    flag: "join",
    value: "URL",
    default: "",
    list: true,
    doc: "Gateways that a node names itself to, every second: `http://HOST:PORT`.",
    set: |c, t| {
        c.cluster.join = endpoints(t)?;
        Ok(())
    },
};

pub(super) const ADVERTISE: Opt = Opt {
    key: "cluster.advertise",
    env: "HEARTH_CLUSTER_ADVERTISE",
    flag: "advertise",
    value: "URL",
    default: "",
    list: false,
    doc: "Where those gateways reach the node: `http://HOST:PORT`. Empty: where it listens, or at \
          the address that its word comes from.",
    set: |c, t| {
        one(&mut c.cluster.advertise, t, |text| match text {
            "" => Ok(None),
            text => text.parse().map(Some),
        })
    },
};

#[cfg(test)]
mod tests {
    use super::super::Flags;
    use super::*;

    /// The API server that is asked, or why none is.
    fn api_of(more: &[(&str, &str)]) -> Result<String, String> {
        let always = [
            ("HEARTH_CLUSTER_TOKEN", "a-token-of-some-length"),
            ("HEARTH_CLUSTER_KUBERNETES", "http://nodes:8100,https://other.lab.svc:cluster"),
        ];
        let env = always.iter().chain(more).map(|(name, text)| ((*name).into(), (*text).into()));
        let loaded = Config::load(&Flags::default(), env).map_err(|error| error.to_string())?;
        let Kubernetes { services, api, account } = loaded.config.cluster.kubernetes;
        assert_eq!(services.len(), 2);
        assert!(account.ends_with("kubernetes.io/serviceaccount"));
        let open = |warning: &String| warning.contains("http://nodes:8100 is plain HTTP");
        assert!(loaded.warnings.iter().any(open), "{:?}", loaded.warnings);
        Ok(api.expect("an API server").to_string())
    }

    #[test]
    fn the_api_server_is_that_of_the_pod_or_the_one_that_is_named() {
        let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];
        let named = ("HEARTH_CLUSTER_KUBERNETES_API", "http://127.0.0.1:8001/k8s");
        assert_eq!(api_of(&pod).as_deref(), Ok("https://10.96.0.1:6443/"));
        assert_eq!(api_of(&[pod[0], pod[1], named]).as_deref(), Ok("http://127.0.0.1:8001/k8s"));
        let six = [("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "443")];
        assert_eq!(api_of(&six).as_deref(), Ok("https://[fd00::1]/"));
        let nowhere = api_of(&[]).expect_err("no pod");
        assert!(nowhere.contains("cluster.kubernetes_api: this is no pod"), "{nowhere}");
    }

    /// What would show the token to others, or holds what is no part of an address.
    #[test]
    fn an_api_server_is_asked_in_private() {
        for bad in [
            "10.96.0.1:443",
            "http://10.96.0.1:443",
            "http://kubernetes.default.svc",
            "ftp://127.0.0.1",
            "https://me:the-password@10.96.0.1",
            "https://10.96.0.1/?a=the-password",
        ] {
            let told = api_of(&[("HEARTH_CLUSTER_KUBERNETES_API", bad)]).expect_err(bad);
            assert!(told.contains("https://HOST:PORT"), "{told}");
            assert!(!told.contains("the-password"), "{told}");
        }
    }
}
