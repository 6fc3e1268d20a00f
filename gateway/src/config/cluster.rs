//! Options of the cluster: which nodes a gateway speaks to, and to whom a node names itself.

use std::path::PathBuf;

use super::options::{Opt, one};
use super::{Config, Role, Secret, values};
use crate::cluster::Endpoint;
use crate::tls::Clients;

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// Nodes that are listed.
    pub nodes: Vec<Endpoint>,
    /// Names whose addresses are nodes.
    pub names: Vec<Endpoint>,
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
        !self.nodes.is_empty() || !self.names.is_empty() || self.token.is_some()
    }

    /// The certificate and its key, where there is one.
    #[must_use]
    pub fn own(&self) -> Option<(PathBuf, PathBuf)> {
        self.certificate.clone().zip(self.key.clone())
    }
}

/// What must hold between these options; an error names the option.
pub(super) fn check(config: &Config, role: Role) -> Result<(), (&'static str, &'static str)> {
    let Cluster { nodes, names, models, token, certificate, key, join, advertise, .. } =
        &config.cluster;
    if certificate.is_some() != key.is_some() {
        return Err(("cluster.cert", "cluster.cert and cluster.key go together"));
    }
    match role {
        Role::Gateway => {
            if !join.is_empty() || advertise.is_some() {
                return Err(("cluster.join", "only a node names itself: `hearth node`"));
            }
            let speaks = !nodes.is_empty() || !names.is_empty();
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
            if !nodes.is_empty() || !names.is_empty() || !models.is_empty() {
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
    let Cluster { nodes, names, .. } = &config.cluster;
    let open = nodes.iter().chain(names).find(|endpoint| !endpoint.is_private());
    let text = |endpoint: &Endpoint| {
        format!(
            "the token, prompts and answers cross the network unencrypted: {endpoint} is plain \
             HTTP. Give nodes a certificate (server.tls_cert) and write https://, or see to it \
             that nobody else is in that network"
        )
    };
    open.map(text).into_iter().collect()
}

fn endpoints(texts: &[&str]) -> Result<Vec<Endpoint>, String> {
    texts.iter().map(|text| text.trim().parse()).collect()
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
          `http://NAME:PORT`, such as a headless service of Kubernetes.",
    set: |c, t| {
        c.cluster.names = endpoints(t)?;
        Ok(())
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
