//! Somebody who asks: a key with all that it belongs to, or a person who signed in.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::directory::Directory;
use crate::entity::{Grant, Key, Organisation, Project, Team, User};
use crate::policy::check::{self, Layer};
use crate::{Denied, Id, Millis, Rule, Scope};

/// Who asks, and what they may administer.
#[derive(Clone)]
pub struct Principal {
    /// Where they belong.
    pub organisation: Arc<Organisation>,
    /// The team of the key's project.
    pub team: Option<Arc<Team>>,
    /// The key's project.
    pub project: Option<Arc<Project>>,
    /// The person or service: the key's, or who signed in.
    pub user: Option<Arc<User>>,
    /// The key; `None` for a person who signed in.
    pub key: Option<Arc<Key>>,
    /// What they may administer: the key's own grants, or those of the person who signed in.
    pub grants: Vec<Grant>,
}

/// Its places alone: whole documents would show hashes.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.scopes()).finish()
    }
}

impl Principal {
    /// How the audit names who has done something, and from where.
    #[must_use]
    pub fn actor(&self, source: Option<&str>) -> Map<String, Value> {
        let mut actor = Map::new();
        if let Some(key) = &self.key {
            actor.insert("key".to_owned(), json!(key.id));
            actor.insert("key_prefix".to_owned(), json!(key.prefix));
        }
        if let Some(user) = &self.user {
            actor.insert("user".to_owned(), json!(user.id));
        }
        if let Some(source) = source {
            actor.insert("source".to_owned(), json!(source));
        }
        actor
    }

    /// Of each layer that says so, the patterns of the providers that it may send requests to.
    #[must_use]
    pub fn providers(&self) -> Vec<Vec<String>> {
        self.layers().iter().filter_map(|layer| layer.policy.providers.clone()).collect()
    }

    /// The rules that its requests pass, the widest layer first.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer<'_>> {
        let mut layers = Vec::with_capacity(5);
        let Self { organisation, team, project, user, key, .. } = self;
        let mut layer = |kind, name, policy| layers.push(Layer { kind, name, policy });
        layer("organisation", &organisation.name, &organisation.policy);
        if let Some(team) = team {
            layer("team", &team.name, &team.policy);
        }
        if let Some(project) = project {
            layer("project", &project.name, &project.policy);
        }
        if let Some(user) = user {
            layer("user", &user.email, &user.policy);
        }
        if let Some(key) = key {
            layer("key", &key.label, &key.policy);
        }
        layers
    }

    /// The scopes that its spending counts in, the widest first.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        let scopes = [
            Some(Scope::Everything),
            Some(Scope::Organisation(self.organisation.id.clone())),
            self.team.as_ref().map(|team| Scope::Team(team.id.clone())),
            self.project.as_ref().map(|project| Scope::Project(project.id.clone())),
            self.user.as_ref().map(|user| Scope::User(user.id.clone())),
            self.key.as_ref().map(|key| Scope::Key(key.id.clone())),
        ];
        scopes.into_iter().flatten().collect()
    }

    /// The last checks of whoever has proved who they are.
    ///
    /// # Errors
    /// The person is disabled, or a layer's rules do not let them in from there or now.
    pub(super) fn enter(self, source: Option<IpAddr>, now: Millis) -> Result<Self, Denied> {
        if let Some(user) = self.user.as_ref().filter(|user| user.disabled) {
            let message = format!("{} is disabled", user.email);
            return Err(Denied::new(Rule::DisabledUser, message));
        }
        check::door(&self.layers(), source, now)?;
        Ok(self)
    }
}

/// The principal of a person who has signed in. For every request, so that who is disabled is out
/// at once.
///
/// # Errors
/// The person is gone, disabled or a service, or may not come in from there or now.
pub fn signed_in(
    directory: &Directory,
    user: &Id,
    source: Option<IpAddr>,
    now: Millis,
) -> Result<Principal, Denied> {
    let gone = || Denied::new(Rule::DisabledUser, "this account does not exist any more");
    let user = directory.user(user).ok_or_else(gone)?;
    if user.service {
        let message = format!("{} is a service account, which holds keys only", user.email);
        return Err(Denied::new(Rule::Permission, message));
    }
    let organisation = directory.organisation(&user.organisation).ok_or_else(gone)?;
    let principal = Principal {
        organisation: Arc::clone(organisation),
        team: None,
        project: None,
        user: Some(Arc::clone(user)),
        key: None,
        grants: user.grants.clone(),
    };
    principal.enter(source, now)
}
