//! Adapters that a gateway has loaded or unloaded at nodes: at the one that is named, or at all
//! that hold the base. What failed is said node by node. It is done when this gateway routes by it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::member::Member;
use super::protocol;
use super::protocol::{
    ADAPTER_BYTES_MAX, AdapterDone, LOAD_ADAPTER, LoadAdapter, UNLOAD_ADAPTER, UnloadAdapter,
};
use super::remote::ClusterEngine;

/// Longest wait for a node: it reads files, and its engine takes them in between two steps.
const NODE_TIME: Duration = Duration::from_secs(120);
/// Longest wait until a node tells what it has done: it does so every tenth of a second.
const TOLD: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// Where an adapter was loaded or unloaded, and where not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Nodes.
    pub(crate) done: Vec<String>,
    /// Nodes, each with the status of its answer, where there was one, and its words.
    pub(crate) failed: Vec<(String, Option<u16>, String)>,
}

/// A node, and what it answered.
struct Answered {
    member: Arc<Member>,
    result: Result<AdapterDone, (Option<u16>, String)>,
}

impl ClusterEngine {
    /// It takes adapters: one that is an adapter takes none.
    pub(crate) fn takes_adapters(&self) -> bool {
        !self.shared.is_adapter()
    }

    /// What nodes take this model for.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.shared.service.fingerprint
    }

    /// Has an adapter loaded beside this model, at `node` or at all nodes that hold it. `known`
    /// says what this gateway takes a model for.
    pub(crate) async fn load_adapter(
        &self,
        (name, path): (&str, Option<&str>),
        node: Option<&str>,
        known: impl Fn(&str) -> Option<String>,
    ) -> Placed {
        let service = &self.shared.service;
        let asked = LoadAdapter {
            model: Some(service.model.to_string()),
            lora_name: name.to_owned(),
            lora_path: path.map(str::to_owned),
        };
        let members =
            self.members(node, |member| member.serves(&service.model, &service.fingerprint));
        let answers = ask(members, LOAD_ADAPTER, &asked).await;
        let id = format!("{}:{name}", service.model);
        let until = Instant::now() + TOLD;
        let mut placed = Placed::default();
        for Answered { member, result } in answers {
            let result = match result {
                Ok(done) => self.comes(&member, (&id, &done.fingerprint), &known, until).await,
                Err(why) => Err(why),
            };
            placed.note(&member, result);
        }
        placed
    }

    /// The same the other way round, at `node` or at all nodes that have it.
    pub(crate) async fn unload_adapter(
        &self,
        name: &str,
        node: Option<&str>,
        known: impl Fn(&str) -> Option<String>,
    ) -> Placed {
        let service = &self.shared.service;
        let asked =
            UnloadAdapter { model: Some(service.model.to_string()), lora_name: name.to_owned() };
        let id = format!("{}:{name}", service.model);
        let members = self.members(node, |member| member.adapter(&id).is_some());
        let answers = ask(members, UNLOAD_ADAPTER, &asked).await;
        let until = Instant::now() + TOLD;
        let mut placed = Placed::default();
        for Answered { member, result } in answers {
            let result = match result {
                Ok(_) => self.goes(&member, &id, &known, until).await,
                Err(why) => Err(why),
            };
            placed.note(&member, result);
        }
        placed
    }

    /// Nodes that hold this model, for a message.
    pub(crate) fn holders(&self) -> Vec<String> {
        let service = &self.shared.service;
        let all = self.members(None, |member| member.serves(&service.model, &service.fingerprint));
        all.iter().map(|member| member.endpoint.authority()).collect()
    }

    fn members(&self, node: Option<&str>, wanted: impl Fn(&Member) -> bool) -> Vec<Arc<Member>> {
        let named = |member: &Member| node.is_none_or(|node| member.endpoint.authority() == node);
        let all = self.shared.service.roster.list();
        all.iter().filter(|member| named(member) && wanted(member)).cloned().collect()
    }

    /// Waits until a node tells of an adapter and this gateway routes by it.
    async fn comes(
        &self,
        member: &Member,
        (id, fingerprint): (&str, &str),
        known: &impl Fn(&str) -> Option<String>,
        until: Instant,
    ) -> Result<(), (Option<u16>, String)> {
        loop {
            let told = member.adapter(id).is_some_and(|told| told == fingerprint);
            let routed = known(id);
            if told && routed.as_deref() == Some(fingerprint) {
                return Ok(());
            }
            if let Some(other) = routed.filter(|other| told && *other != fingerprint) {
                let all = self.shared.service.roster.list();
                if let Some(first) = all.iter().find(|node| node.serves(id, &other)) {
                    let first = first.endpoint.authority();
                    let why = format!("its files are not those of {first}, so it gets nothing");
                    return Err((Some(StatusCode::CONFLICT.as_u16()), why));
                }
            }
            if Instant::now() >= until {
                return Err((None, "it was loaded, and is not told of".to_owned()));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until a node tells of an adapter no more; with the last one it is gone from here.
    async fn goes(
        &self,
        member: &Member,
        id: &str,
        known: &impl Fn(&str) -> Option<String>,
        until: Instant,
    ) -> Result<(), (Option<u16>, String)> {
        loop {
            let all = self.shared.service.roster.list();
            let elsewhere = all.iter().any(|node| node.adapter(id).is_some());
            if member.adapter(id).is_none() && (elsewhere || known(id).is_none()) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err((None, "it was unloaded, and is told of still".to_owned()));
            }
            sleep(LOOK).await;
        }
    }
}

impl Placed {
    fn note(&mut self, member: &Member, result: Result<(), (Option<u16>, String)>) {
        let node = member.endpoint.authority();
        match result {
            Ok(()) => self.done.push(node),
            Err((status, why)) => self.failed.push((node, status, why)),
        }
    }
}

/// Asks all of them at once.
async fn ask(
    members: Vec<Arc<Member>>,
    path: &'static str,
    asked: &impl Serialize,
) -> Vec<Answered> {
    let mut body = Vec::new();
    protocol::line(asked, &mut body);
    let each = members.into_iter().map(|member| {
        let body = body.clone();
        async move {
            let answer = timeout(NODE_TIME, ask_one(&member, path, body)).await;
            let late = || (None, format!("no answer within {} s", NODE_TIME.as_secs()));
            Answered { member, result: answer.unwrap_or_else(|_| Err(late())) }
        }
    });
    join_all(each).await
}

async fn ask_one(
    member: &Member,
    path: &str,
    body: Vec<u8>,
) -> Result<AdapterDone, (Option<u16>, String)> {
    let mut way = member.way().ok_or((None, "it is gone".to_owned()))?;
    let answer = way.post(path, body, None).await.map_err(|why| (None, why.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ADAPTER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| (None, error.to_string()))?.to_bytes();
    if status == StatusCode::NOT_FOUND && body.is_empty() {
        let why = "it is of an older version, which loads adapters at its start only";
        return Err((Some(StatusCode::BAD_REQUEST.as_u16()), why.to_owned()));
    }
    if status != StatusCode::OK {
        let why = String::from_utf8_lossy(&body).trim().to_owned();
        return Err((Some(status.as_u16()), why));
    }
    serde_json::from_slice(&body).map_err(|error| (None, format!("its answer: {error}")))
}
