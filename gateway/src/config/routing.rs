//! `[providers.NAME]` and `[pools.NAME]` of `hearth.toml`: who else may answer, and which names
//! stand for whom. Tables of tables, so they are read apart from the options, which all have a
//! flag and a variable. Only their form is checked here; whether a pool's targets exist is for
//! [`crate::route`] to say, which knows the models.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use govern::policy::Label;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::draft::resolve;
use super::values::{self, Secret};
use crate::vault::Env;

/// All providers and pools, by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Routing {
    /// Who else answers.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Names that stand for several.
    pub pools: BTreeMap<String, PoolConfig>,
}

/// `[providers.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// Its row in the table of kinds (`hearth providers`); as the section's name where absent.
    pub kind: Option<String>,
    /// Where it answers; the kind's own where absent.
    pub base_url: Option<String>,
    /// What it is shown: a key, or a reference to one (`env:OPENAI_API_KEY`).
    pub key: Option<Secret>,
    /// The second half of an AWS key.
    pub secret_key: Option<Secret>,
    /// What a temporary AWS key comes with.
    pub session_token: Option<Secret>,
    /// AWS's or Vertex's region.
    pub region: Option<String>,
    /// Vertex's project.
    pub project: Option<String>,
    /// Headers sent with every request.
    pub headers: BTreeMap<String, Secret>,
    /// Fields put into every request's body, over what the caller said.
    pub body: Map<String, Value>,
    /// Longest wait for a connection.
    pub connect_timeout: Option<Span>,
    /// Longest wait for the head of an answer, and for the first event of a stream.
    pub first_byte_timeout: Option<Span>,
    /// Longest silence within an answer.
    pub idle_timeout: Option<Span>,
    /// Longest wait for the end of an answer that is no stream.
    pub total_timeout: Option<Span>,
    /// The same of a stream.
    pub stream_timeout: Option<Span>,
    /// A proxy that requests go through: `http://host:port`, with `name:password@` if it asks.
    pub proxy: Option<Secret>,
    /// A file of certificate authorities that count instead of the public ones.
    pub ca: Option<PathBuf>,
    /// It may be at an address of an internal network. Always so where `base_url` names an
    /// address or `localhost`: the operator has named it.
    pub allow_internal: Option<bool>,
    /// The most secret label that it may see.
    pub max_label: Option<Label>,
    /// Patterns of its models that may be asked as `NAME/MODEL`; empty: none, only through pools.
    pub models: Option<Vec<String>>,
    /// What it does with fields that cannot be carried into its dialect.
    pub lost_fields: Option<LostFields>,
    /// The only dialect that it is asked for chats in.
    pub dialect: Option<String>,
    /// It goes on with plain prompts, at `/completions`; else a chat is made of them.
    pub completions: Option<bool>,
}

/// What becomes of fields that another dialect has no words for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LostFields {
    /// The request is refused, naming them.
    #[default]
    Refuse,
    /// It goes without them, and the answer's head names them.
    Drop,
}

/// `[pools.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// How one of the targets is chosen.
    pub strategy: Strategy,
    /// Who answers: `MODEL` of this server, `PROVIDER/MODEL`, or a table with more.
    pub targets: Vec<TargetConfig>,
    /// Pools, models or targets to try when all of these fail.
    pub fallback: Vec<String>,
    /// Who answers when the local targets would keep callers waiting.
    pub overflow: Option<OverflowConfig>,
    /// Rules that choose before the strategy does; the first that holds counts.
    pub rules: Vec<RuleConfig>,
    /// Tries in all, the first one among them.
    pub attempts: Option<u32>,
    /// The same conversation goes to the same target while that is well.
    pub affinity: bool,
    /// Who has not begun to answer after this time gets company: the next one is asked beside it,
    /// and the first that begins has the caller.
    pub hedge_after: Option<Span>,
    /// Who is sent a copy of some of the requests, whose answers nobody reads.
    pub mirror: Option<MirrorConfig>,
    /// What becomes of a provider's stream that breaks behind its first byte.
    pub broken_stream: BrokenStream,
}

/// What becomes of a stream whose provider breaks it off in the middle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokenStream {
    /// It ends with an error.
    #[default]
    Error,
    /// A model of this server goes on with it, and it says so.
    Continue,
}

/// `mirror = { to = "demo-next", share = 0.05, key = "env:MIRROR_KEY" }`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorConfig {
    /// `MODEL` or `PROVIDER/MODEL`.
    pub to: String,
    /// Of the requests, 0 to 1.
    pub share: f64,
    /// The key in whose name they are made, where keys are needed: it pays for them.
    pub key: Option<Secret>,
}

/// How one of several targets is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// In their order.
    #[default]
    Priority,
    /// By chance, in proportion to their weights; a user stays with its target.
    Weighted,
    /// The least requests at once, for its weight.
    LeastLoaded,
    /// The better of two by measured time to the first byte and load.
    Latency,
    /// The cheapest by the price sheet; in their order where it knows none of them.
    Cost,
    /// By the first 4 KiB of the prompt as it was sent: those that begin alike go to one, unless
    /// its queue is far longer than the others'. Who really holds a prompt is not asked.
    Prefix,
}

/// One target: its name, or a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum TargetConfig {
    /// `MODEL` or `PROVIDER/MODEL`.
    Name(String),
    /// With more about it.
    Table(TargetTable),
}

/// `{ target = "openai/gpt-5-mini", weight = 3 }`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetTable {
    /// `MODEL` or `PROVIDER/MODEL`.
    pub target: String,
    /// Its share, against the others'.
    pub weight: Option<u32>,
    /// Its longest sequence in tokens; as the table of models says where absent.
    pub context: Option<u64>,
    /// What it cannot do: `tools`, `images`, `structured`; as the table says where absent, and
    /// nothing where empty.
    pub without: Option<Vec<String>>,
    /// The most secret label that it may see, if lower than its provider's.
    pub max_label: Option<Label>,
    /// The name of the arm of an experiment, for the answer's head, metrics and the ledger.
    pub arm: Option<String>,
}

/// `overflow = { to = [..], when = { queue = 32 } }`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverflowConfig {
    /// Targets, in their order.
    pub to: Vec<TargetConfig>,
    /// When the local promise would break. One of them is enough.
    pub when: OverflowWhen,
}

/// Bounds of the local targets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverflowWhen {
    /// Predicted time to the first token, in milliseconds.
    pub ttft_ms: Option<u64>,
    /// Requests that wait.
    pub queue: Option<u64>,
    /// Predicted time in the waiting line, in milliseconds.
    pub wait_ms: Option<u64>,
}

/// `rules = [{ metadata = { tier = "gold" }, to = ["demo"] }]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// Notes that the request must carry, as they stand in its `metadata`.
    pub metadata: BTreeMap<String, String>,
    /// It offers tools, or does not.
    pub tools: Option<bool>,
    /// Its prompt has at least so many tokens, as far as is known.
    pub input_above: Option<u64>,
    /// Names of the pool's targets that may answer.
    pub to: Vec<String>,
}

/// A time as an operator writes it: `800ms`, `10s`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        values::time(&text, 1, 86_400_000).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Reads both sections of a file, with what their texts refer to, and what of that an operator
/// should know. An error has its place in bytes.
pub(super) fn read(text: &str, env: Env<'_>) -> Result<(Routing, Vec<String>), (usize, String)> {
    let mut warnings = Vec::new();
    let mut routing: Routing = toml::from_str(text)
        .map_err(|error| (error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    for (name, pool) in &mut routing.pools {
        let Some(key) = pool.mirror.as_mut().and_then(|mirror| mirror.key.as_mut()) else {
            continue;
        };
        let place = text.find(&format!("pools.{name}")).unwrap_or(0);
        let found = resolve(key.reveal(), env);
        let found = found.map_err(|problem| (place, format!("pools.{name}: mirror: {problem}")))?;
        if let Some((_, found)) = found {
            *key = Secret::new(found.value.expose().clone());
        }
    }
    for (name, provider) in &mut routing.providers {
        let place = || text.find(&format!("providers.{name}")).unwrap_or(0);
        let own = [
            &mut provider.key,
            &mut provider.secret_key,
            &mut provider.session_token,
            &mut provider.proxy,
        ];
        for secret in own.into_iter().flatten().chain(provider.headers.values_mut()) {
            let found = resolve(secret.reveal(), env);
            let found =
                found.map_err(|problem| (place(), format!("providers.{name}: {problem}")))?;
            if let Some((_, found)) = found {
                warnings.extend(found.warning.map(|text| format!("providers.{name}: {text}")));
                *secret = Secret::new(found.value.expose().clone());
            }
        }
    }
    Ok((routing, warnings))
}

impl TargetConfig {
    /// The same as a table.
    #[must_use]
    pub fn table(&self) -> TargetTable {
        match self {
            Self::Name(name) => TargetTable { target: name.clone(), ..TargetTable::default() },
            Self::Table(table) => table.clone(),
        }
    }
}
