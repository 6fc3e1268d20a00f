//! The cluster: a gateway does text, people and money; nodes make tokens.
//!
//! A node ([`Node`], `hearth node`) is an engine without a public API: it tells its state and
//! makes tokens for requests that gateways have rendered, judged and paid for. A gateway has a
//! [`Fleet`]: it finds nodes, follows their state, and offers their models as its own, each as a
//! [`ClusterEngine`], or as a [`ClusterReader`] where it makes vectors or scores. Which node gets a
//! request is decided by what nodes tell (`choose`); one that is lost in the middle of an answer is
//! replaced by another (`carry`, `read`).
//!
//! `protocol` is what they say to each other. Nothing here knows dialects, text or prices.

mod carry;
mod choose;
mod dial;
mod endpoint;
mod fleet;
mod lines;
mod look;
mod member;
mod node;
mod picture;
mod place;
pub mod protocol;
mod read;
mod remote;
mod service;
mod trial;
mod tries;

pub use carry::Carried;
pub use choose::{Candidate, Finding, Verdict, choose};
pub use dial::Dialer;
pub use endpoint::Endpoint;
pub use fleet::{Fleet, Kubernetes, KubernetesService, LookUp, Names, ServicePort, Sources, join};
pub use node::{AdapterFolder, Door, Node};
pub(crate) use place::Placed;
pub use read::{ClusterReader, ClusterReading};
pub use remote::ClusterEngine;
pub(crate) use remote::Seen;
