//! People and service accounts.
//!
//! Who may change a user could become that user (by another address at the identity provider), so
//! only who has all that the user may do changes them.

use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::{Entity, Grant, User};
use govern::identity::session::Sessions;
use govern::policy::Policy;
use govern::role::Permission;
use govern::store::documents::Edit;
use govern::{Id, Scope};
use serde::Deserialize;
use utoipa::ToSchema;

use super::tree::{budgets_of, is_over, named_key, organisation_or_own, without};
use crate::admin::answer::Answer;
use crate::admin::asked::Asked;
use crate::admin::caller::Caller;
use crate::admin::check::{self, given};
use crate::admin::refusal::Refusal;
use crate::admin::resource::{Changeable, Deletable, Filter, Resource, replace, shown, to_do};
use crate::admin::table::Route;

const TEAMS_MAX: usize = 256;

/// What a user is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct UserNew {
    /// Once in the organisation; for a service any name.
    email: String,
    #[serde(default)]
    name: String,
    /// Where they belong; the caller's organisation where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    organisation: Option<Id>,
    /// A service account: never signs in, only holds keys.
    #[serde(default)]
    service: bool,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    teams: Vec<Id>,
    /// What they may administer; no wider than what the caller may.
    #[serde(default)]
    grants: Vec<Grant>,
    #[serde(default)]
    policy: Policy,
    /// Their name at the identity provider.
    #[serde(default)]
    external_id: Option<String>,
}

/// What of a user may change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct UserChange {
    #[serde(default, deserialize_with = "given")]
    email: Option<String>,
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    teams: Option<Vec<Id>>,
    #[serde(default, deserialize_with = "given")]
    grants: Option<Vec<Grant>>,
    #[serde(default, deserialize_with = "given")]
    policy: Option<Policy>,
    /// Nothing works for them any more: no sign-in, no key.
    #[serde(default, deserialize_with = "given")]
    disabled: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    external_id: Option<Option<String>>,
}

impl Resource for User {
    const PATH: &'static str = "users";
    const ONE: &'static str = "user";
    const READ: Permission = Permission::UsersRead;
    const WRITE: Permission = Permission::UsersWrite;
    const SECRETS: &'static [&'static str] = &["password", "totp"];
    const FILTERS: &'static [Filter<Self>] = &[
        ("name", "Only those of this name or address.", |_, user, name| {
            user.email == name || user.name == name
        }),
        ("organisation", "Only those of this organisation.", |_, user, id| {
            user.organisation.as_str() == id
        }),
        ("team", "Only those in this team.", |_, user, id| {
            user.teams.iter().any(|team| team.as_str() == id)
        }),
    ];
    type New = UserNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.users())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.user(id)
    }

    fn scope(&self) -> Scope {
        Scope::User(self.id.clone())
    }

    fn organisation(&self, _directory: &Directory) -> String {
        self.organisation.to_string()
    }

    fn place_of(new: &UserNew, caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(organisation_or_own(new.organisation.as_ref(), caller))
    }

    fn make(new: UserNew, caller: &Caller<'_>, _place: &Scope) -> Result<Self, Refusal> {
        let made = Self {
            id: Id::new(Self::KIND, caller.now),
            organisation: new.organisation.unwrap_or_else(|| caller.organisation.clone()),
            email: new.email,
            name: new.name,
            service: new.service,
            teams: new.teams,
            grants: new.grants,
            policy: new.policy,
            external_id: new.external_id,
            created_at: caller.now,
            ..Self::default()
        };
        caller.may_give("grants", &made.grants)?;
        checked(made, caller)
    }
}

impl Changeable for User {
    type Change = UserChange;

    fn change(&self, change: UserChange, caller: &Caller<'_>) -> Result<Self, Refusal> {
        caller.may_give("id", &self.grants)?;
        let mut made = self.clone();
        made.email = change.email.unwrap_or(made.email);
        made.name = change.name.unwrap_or(made.name);
        made.teams = change.teams.unwrap_or(made.teams);
        made.policy = change.policy.unwrap_or(made.policy);
        made.disabled = change.disabled.unwrap_or(made.disabled);
        made.external_id = change.external_id.unwrap_or(made.external_id);
        if let Some(grants) = change.grants {
            caller.may_give("grants", &grants)?;
            made.grants = grants;
        }
        checked(made, caller)
    }

    /// Whoever is disabled is signed in nowhere any more, also after they are let in again.
    async fn follow(&self, asked: &Asked) -> Result<(), Refusal> {
        if self.disabled {
            Sessions::of(asked.governor.store()).end_all(&self.id).await?;
        }
        Ok(())
    }
}

impl Deletable for User {
    fn children(&self, caller: &Caller<'_>) -> Vec<String> {
        let keys = caller.directory.keys().filter(|key| key.user.as_ref() == Some(&self.id));
        let mut children: Vec<String> =
            keys.filter(|key| !is_over(key, caller)).map(|key| named_key(key)).collect();
        children.extend(budgets_of(&self.scope(), caller));
        children
    }

    fn along(&self, caller: &Caller<'_>) -> Vec<Edit> {
        without(caller, |key| key.user.as_ref() == Some(&self.id))
    }
}

/// What only users have.
pub(super) fn routes() -> Vec<Route> {
    let summary = "Takes a lost second factor away: the next sign-in with the password enrols a new \
                   one. Whatever was begun with the old one is over.";
    vec![to_do::<User>("reset-totp", summary, |asked| Box::pin(reset(asked)))]
}

async fn reset(asked: Asked) -> Result<Answer, Refusal> {
    let user = replace::<User>(&asked, "reset-totp", None, |old, caller| {
        caller.may_give("id", &old.grants)?;
        Ok(User { totp: None, ..old.clone() })
    });
    let user = user.await?;
    Sessions::of(asked.governor.store()).end_all(&user.id).await?;
    Ok(Answer::json(&shown(&user)))
}

fn checked(made: User, caller: &Caller<'_>) -> Result<User, Refusal> {
    check::name("email", &made.email)?;
    if !made.name.is_empty() {
        check::name("name", &made.name)?;
    }
    if let Some(external) = &made.external_id {
        check::sentence("external_id", external)?;
    }
    check::policy(&made.policy)?;
    check::grants(&made.grants)?;
    if made.teams.len() > TEAMS_MAX {
        return Err(Refusal::invalid("teams", format!("'teams' has at most {TEAMS_MAX} entries.")));
    }
    for (at, team) in made.teams.iter().enumerate() {
        let found = caller.directory.team(team);
        // A team of another organisation is as unknown as one that does not exist.
        if found.is_none_or(|team| team.organisation != made.organisation) {
            return Err(Refusal::invalid(format!("teams[{at}]"), "There is no such team."));
        }
    }
    Ok(made)
}
