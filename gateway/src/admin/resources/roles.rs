//! Roles of an organisation's own, and those that are built in.

use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::{Entity, Grant, Role};
use govern::role::{BUILT_IN, Permission};
use govern::{Id, Scope};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::tree::{is_over, named_key, organisation_or_own};
use crate::admin::answer::Answer;
use crate::admin::asked::Asked;
use crate::admin::caller::Caller;
use crate::admin::check::{self, given};
use crate::admin::refusal::Refusal;
use crate::admin::resource::{Changeable, Deletable, Filter, Resource, page};
use crate::admin::table::{Method, Route};

/// What a role is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RoleNew {
    /// Once in the organisation, and no name of a built-in role. It does not change.
    name: String,
    /// Where it belongs; the caller's organisation where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    organisation: Option<Id>,
    /// What it allows; no more than what the caller may do there.
    permissions: Vec<Permission>,
}

/// What of a role may change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RoleChange {
    #[serde(default, deserialize_with = "given")]
    permissions: Option<Vec<Permission>>,
}

impl Resource for Role {
    const PATH: &'static str = "roles";
    const ONE: &'static str = "role";
    const READ: Permission = Permission::RolesRead;
    const WRITE: Permission = Permission::RolesWrite;
    const FILTERS: &'static [Filter<Self>] = &[
        ("name", "Only those of this name.", |_, role, name| role.name == name),
        ("organisation", "Only those of this organisation.", |_, role, id| {
            role.organisation.as_str() == id
        }),
    ];
    type New = RoleNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.roles())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.role(id)
    }

    fn scope(&self) -> Scope {
        Scope::Organisation(self.organisation.clone())
    }

    fn organisation(&self, _directory: &Directory) -> String {
        self.organisation.to_string()
    }

    fn place_of(new: &RoleNew, caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(organisation_or_own(new.organisation.as_ref(), caller))
    }

    fn make(new: RoleNew, caller: &Caller<'_>, _place: &Scope) -> Result<Self, Refusal> {
        check::name("name", &new.name)?;
        if BUILT_IN.iter().any(|role| role.name == new.name) {
            let message = format!("The role '{}' is built in.", new.name);
            return Err(Refusal::conflict("name_taken", message));
        }
        let made = Self {
            id: Id::new(Self::KIND, caller.now),
            organisation: new.organisation.unwrap_or_else(|| caller.organisation.clone()),
            name: new.name,
            permissions: new.permissions,
            created_at: caller.now,
        };
        no_wider(made, caller)
    }
}

impl Changeable for Role {
    type Change = RoleChange;

    fn change(&self, change: RoleChange, caller: &Caller<'_>) -> Result<Self, Refusal> {
        let mut made = self.clone();
        made.permissions = change.permissions.unwrap_or(made.permissions);
        no_wider(made, caller)
    }
}

impl Deletable for Role {
    fn children(&self, caller: &Caller<'_>) -> Vec<String> {
        let directory = caller.directory;
        let gives = |grants: &[Grant]| {
            let here = |grant: &Grant| {
                grant.role == self.name
                    && directory.organisation_of(&grant.scope) == Some(&self.organisation)
            };
            grants.iter().any(here)
        };
        let users = directory.users().filter(|user| gives(&user.grants));
        let keys = directory.keys().filter(|key| gives(&key.grants) && !is_over(key, caller));
        users
            .map(|user| format!("user '{}'", user.email))
            .chain(keys.map(|key| named_key(key)))
            .collect()
    }
}

/// Nobody makes a role that allows more than they may do themselves: they could take it on.
fn no_wider(mut made: Role, caller: &Caller<'_>) -> Result<Role, Refusal> {
    made.permissions.sort_unstable();
    made.permissions.dedup();
    let at = Scope::Organisation(made.organisation.clone());
    match made.permissions.iter().find(|permission| !caller.may(**permission, &at)) {
        Some(lacking) => {
            let why = format!("{} is not yours there", lacking.name());
            Err(Refusal::wider("permissions", &why))
        }
        None => Ok(made),
    }
}

/// The usual routes, with a list that shows the built-in roles too.
pub(super) fn with_built_in(routes: Vec<Route>) -> Vec<Route> {
    let is_list = |route: &Route| route.method() == Method::Get && !route.path().contains('{');
    let handler =
        |asked: Asked| -> crate::admin::table::Answering { Box::pin(async move { list(&asked) }) };
    routes
        .into_iter()
        .map(|route| if is_list(&route) { route.handled_by(handler) } else { route })
        .collect()
}

fn list(asked: &Asked) -> Result<Answer, Refusal> {
    let mut answer = page::<Role>(asked)?.value()?;
    let shown = BUILT_IN.iter().map(|role| {
        let (name, doc, permissions) = (role.name, role.doc, role.permissions);
        json!({ "name": name, "doc": doc, "permissions": permissions })
    });
    answer["built_in"] = shown.collect();
    Ok(Answer::json(&answer))
}
