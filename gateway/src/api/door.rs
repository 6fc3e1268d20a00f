//! Who may in: anybody on this machine, whoever shows one of some fixed keys, or whoever the
//! governor knows.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use govern::role::Permission;
use govern::{Denied, Governor, Principal, Rule, Scope};

use super::auth::{self, Keys};
use super::error::Failure;
use crate::server::Peer;
use crate::signin::{self, SignIn};
use crate::tls::ClientNames;

/// The door.
pub enum Door {
    /// Fixed keys, or none.
    Keys(Keys),
    /// Keys of an organisation, with policies, budgets and an audit; and people and services that
    /// sign in, where that is set up.
    Governed(Governor, Option<SignIn>),
}

impl From<Keys> for Door {
    fn from(keys: Keys) -> Self {
        Self::Keys(keys)
    }
}

/// What a request shows of itself before its body is read.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) source: Option<IpAddr>,
    /// What the client's certificate says of it.
    names: Option<&'a ClientNames>,
}

impl<'a> Head<'a> {
    pub(super) fn of(request: &'a Request) -> Self {
        Self {
            headers: request.headers(),
            method: request.method(),
            path: request.uri().path(),
            source: peer(request),
            names: request.extensions().get(),
        }
    }

    /// The certificate, where nothing else is shown. A browser shows one by itself, whatever site
    /// has it ask, and says `Origin` then: services do not.
    fn certificate(&self) -> Option<&'a [String]> {
        let Self { headers, names, .. } = self;
        let alone = auth::shown(headers).is_none() && !headers.contains_key(header::ORIGIN);
        names.filter(|_| alone).map(|names| &names.0[..])
    }
}

/// Who came in.
pub(super) enum Entered {
    /// Somebody with a fixed key: its number, from 1; 0 where none is needed.
    Key(u64),
    /// Somebody whom the governor knows.
    Known(Arc<Principal>),
}

impl Door {
    /// Lets in whoever may.
    pub(super) async fn enter(&self, head: &Head<'_>) -> Result<Entered, Failure> {
        match self {
            Self::Keys(keys) => keys.check(head.headers).map(Entered::Key),
            Self::Governed(governor, signin) => {
                let known = known(governor, signin.as_ref(), head).await;
                let known = known.inspect_err(|denied| governor.told_no(denied))?;
                Ok(Entered::Known(Arc::new(known)))
            }
        }
    }

    /// How people sign in, where they may.
    pub(super) fn signin(&self) -> Option<&SignIn> {
        match self {
            Self::Governed(_, signin) => signin.as_ref(),
            Self::Keys(_) => None,
        }
    }

    /// Whoever comes in has books that are kept for them.
    #[must_use]
    pub fn pays(&self) -> bool {
        matches!(self, Self::Governed(..))
    }

    /// The governor, where there is one.
    pub(super) fn governor(&self) -> Option<&Governor> {
        match self {
            Self::Keys(_) => None,
            Self::Governed(governor, _) => Some(governor),
        }
    }
}

/// Whoever shows a session, a token, a certificate or a key that is good here.
async fn known(
    governor: &Governor,
    signin: Option<&SignIn>,
    head: &Head<'_>,
) -> Result<Principal, Denied> {
    let Head { headers, method, path, source, .. } = *head;
    let signed_in = match signin {
        Some(signin) => signin::principal_of(signin, headers, method, source).await?,
        None => None,
    };
    let principal = match (signed_in, head.certificate()) {
        (Some(principal), _) => principal,
        (None, Some(names)) => governor.of_certificate(names, source)?,
        (None, None) => governor.authenticate(shown(headers), source)?,
    };
    permitted(governor, &principal, path)?;
    Ok(principal)
}

/// Where a request comes from.
pub(super) fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// A key that is no text is none that we made.
fn shown(headers: &HeaderMap) -> Option<&str> {
    auth::shown(headers).and_then(|shown| std::str::from_utf8(shown).ok())
}

/// Routes beside the models' that ask for more than a key. The admin routes ask for themselves.
fn permitted(governor: &Governor, principal: &Principal, path: &str) -> Result<(), Denied> {
    let permission = match path {
        "/metrics" | "/v1/route/explain" => Permission::MetricsRead,
        "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" => Permission::AdaptersWrite,
        _ => return Ok(()),
    };
    let directory = governor.directory();
    if directory.permissions(&principal.grants, &Scope::Everything).contains(&permission) {
        return Ok(());
    }
    let message = format!(
        "This needs the permission '{}' on everything; grant a role that has it to the key or the \
         person who asks.",
        permission.name()
    );
    Err(Denied::new(Rule::Permission, message))
}
