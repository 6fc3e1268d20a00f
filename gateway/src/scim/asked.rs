//! A SCIM request as its handler gets it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use govern::directory::Directory;
use govern::entity::{Grant, User};
use govern::identity::mapping::GroupRule;
use govern::ledger::writer::Note;
use govern::role::Permission;
use govern::{Governor, Id, Millis, Principal, Scope};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::Problem;
use super::table::Rules;
use crate::server::Peer;

/// A group of some ten thousand people is the longest body there is.
const BODY_BYTES_MAX: usize = 4 << 20;
const BODY_TIME: Duration = Duration::from_secs(30);

/// A request.
pub(super) struct Asked {
    pub(super) governor: Governor,
    principal: Arc<Principal>,
    permission: Permission,
    rules: Rules,
    /// What the path names. What can be no id is an empty one, which names nothing.
    pub(super) id: Id,
    name: String,
    query: Vec<(String, String)>,
    pub(super) body: Value,
    source: Option<String>,
}

impl Asked {
    /// Reads a request, once it is known that its caller may do this.
    pub(super) async fn read(
        governor: Governor,
        rules: Rules,
        permission: Permission,
        request: Request,
    ) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let principal = parts.extensions.get::<Arc<Principal>>().cloned();
        let principal = principal.ok_or_else(|| {
            Problem::new(401, "This needs a key: send 'Authorization: Bearer hk-...'.")
        })?;
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(query) = query.map_err(|error| Problem::value(error.body_text()))?;
        let path = parts.uri.path().strip_prefix(super::BASE).unwrap_or_default();
        let name = path.split('/').nth(2).unwrap_or_default().to_owned();
        let source = parts.extensions.get::<Peer>().map(|peer| peer.0.to_string());
        let mut asked = Self {
            governor,
            principal,
            permission,
            rules,
            id: Id::of(&name).unwrap_or_default(),
            name,
            query,
            body: Value::Null,
            source,
        };
        asked.judge(&asked.governor.directory())?;
        is_json(&parts.headers)?;
        let body = timeout(BODY_TIME, to_bytes(body, BODY_BYTES_MAX)).await;
        let body = body.map_err(|_| Problem::new(408, "The body was not sent in time."))?;
        let body = body.map_err(|_| {
            Problem::new(413, format!("The body is not read: at most {BODY_BYTES_MAX} bytes are."))
        })?;
        if !body.is_empty() {
            let read = serde_json::from_slice(&body);
            asked.body = read.map_err(|error| {
                Problem::wrong("invalidSyntax", format!("The body cannot be read: {error}."))
            })?;
        }
        Ok(asked)
    }

    /// Whether the caller may do this, as the directory is now.
    ///
    /// # Errors
    /// They may not, or not any more.
    pub(super) fn judge(&self, directory: &Directory) -> Result<(), Problem> {
        let here = Scope::Organisation(self.organisation().clone());
        let held = directory.permissions(&self.grants(directory), &here);
        if held.contains(&self.permission) {
            return Ok(());
        }
        let name = self.permission.name();
        let why = format!("This needs the permission '{name}' on the organisation.");
        Err(Problem::new(403, why))
    }

    /// What the caller may do, as the directory is now.
    pub(super) fn grants(&self, directory: &Directory) -> Vec<Grant> {
        let over = |at: Option<Millis>| at.is_some_and(|at| at <= self.governor.now());
        let user = self.principal.user.as_ref().map(|user| directory.user(&user.id));
        if user.is_some_and(|user| user.is_none_or(|user| user.disabled)) {
            return Vec::new();
        }
        match (&self.principal.key, user.flatten()) {
            (Some(key), _) => {
                let key = directory.key(&key.id);
                let key = key.filter(|key| !over(key.revoked_at) && !over(key.expires_at));
                key.map(|key| key.grants.clone()).unwrap_or_default()
            }
            (None, Some(user)) => user.grants.clone(),
            (None, None) => self.principal.grants.clone(),
        }
    }

    /// The organisation that all of this is about.
    pub(super) fn organisation(&self) -> &Id {
        &self.principal.organisation.id
    }

    /// What groups mean there.
    pub(super) fn rules(&self) -> &[GroupRule] {
        self.rules.get(self.organisation()).map_or(&[], Vec::as_slice)
    }

    /// What the path names, as it is written there.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A request for a list whose parameters stand in its body (RFC 7644, 3.4.3).
    ///
    /// # Errors
    /// The body is none such, or has what is no parameter.
    pub(super) fn searched(mut self) -> Result<Self, Problem> {
        const SEARCH: &str = "urn:ietf:params:scim:api:messages:2.0:SearchRequest";
        let Value::Object(body) = std::mem::take(&mut self.body) else {
            return Err(Problem::wrong("invalidSyntax", "The body is no search request."));
        };
        for (name, value) in body {
            let texts = |value: &Value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Array(all) => {
                    let all: Option<Vec<&str>> = all.iter().map(Value::as_str).collect();
                    all.map(|all| all.join(","))
                }
                _ => None,
            };
            let read = match name.to_lowercase().as_str() {
                "schemas" => match &value {
                    Value::Array(all) if all.iter().any(|schema| schema == SEARCH) => continue,
                    _ => return Err(Problem::wrong("invalidSyntax", format!("Say '{SEARCH}'."))),
                },
                "attributes" | "excludedattributes" => texts(&value),
                "filter" => value.as_str().map(str::to_owned),
                "startindex" | "count" => value.as_i64().map(|number| number.to_string()),
                // Nothing is sorted, which the configuration says; as in a list's parameters.
                "sortby" | "sortorder" => value.as_str().map(str::to_owned),
                _ => None,
            };
            let read = read.ok_or_else(|| {
                let name: String = name.chars().take(64).collect();
                Problem::value(format!("'{name}' is nothing that a search may say, or not so."))
            })?;
            self.query.push((name, read));
        }
        Ok(self)
    }

    /// A line for the audit.
    pub(super) fn note(&self, now: Millis, action: &str, more: &Value) -> Note {
        let actor = self.principal.actor(self.source.as_deref());
        let mut body = json!({ "action": format!("scim.{action}"), "actor": actor });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let organisation = self.organisation().to_string();
        Note { at: now, kind: "admin".to_owned(), organisation, body: body.to_string() }
    }
}

/// A user as the audit shows one.
pub(super) fn shown(user: &User) -> Value {
    json!(User { password: None, totp: None, ..user.clone() })
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b"json"[..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if kind.ends_with(b"json") {
        return Ok(());
    }
    Err(Problem::new(415, "Send JSON, as 'application/scim+json'."))
}
