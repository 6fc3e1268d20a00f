//! Organisations, teams and projects.

use std::collections::BTreeMap;
use std::sync::Arc;

use govern::bodies::RETENTION_DAYS_MAX;
use govern::directory::Directory;
use govern::entity::{Entity, Key, Organisation, Project, Team};
use govern::policy::{Label, Policy};
use govern::role::Permission;
use govern::store::documents::Edit;
use govern::{Id, Scope};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::admin::caller::Caller;
use crate::admin::check::{self, given};
use crate::admin::refusal::Refusal;
use crate::admin::resource::{Changeable, Deletable, Filter, Resource};

/// What an organisation is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct OrganisationNew {
    /// Once in the deployment.
    name: String,
    /// IANA name of the zone that its days begin in; `UTC` where nothing is said.
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    policy: Policy,
    /// Days that recorded texts are kept, by label.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, u32>)]
    retention_days: BTreeMap<Label, u32>,
}

/// What of an organisation may change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct OrganisationChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    time_zone: Option<String>,
    /// The whole policy, in the place of the old one.
    #[serde(default, deserialize_with = "given")]
    policy: Option<Policy>,
    /// Days that recorded texts are kept, by label, in the place of the old ones. Those that are
    /// there keep the time that they have.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, u32>>)]
    retention_days: Option<BTreeMap<Label, u32>>,
}

impl Resource for Organisation {
    const PATH: &'static str = "organisations";
    const ONE: &'static str = "organisation";
    const READ: Permission = Permission::TreeRead;
    const WRITE: Permission = Permission::TreeWrite;
    const FILTERS: &'static [Filter<Self>] =
        &[("name", "Only the one of this name.", |_, one, name| one.name == name)];
    type New = OrganisationNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.organisations())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.organisation(id)
    }

    fn scope(&self) -> Scope {
        Scope::Organisation(self.id.clone())
    }

    fn organisation(&self, _directory: &Directory) -> String {
        self.id.to_string()
    }

    fn place_of(_new: &OrganisationNew, _caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(Scope::Everything)
    }

    fn make(new: OrganisationNew, caller: &Caller<'_>, _place: &Scope) -> Result<Self, Refusal> {
        let mut made = Self::new(&new.name, caller.now);
        if let Some(zone) = new.time_zone {
            made.time_zone = zone;
        }
        (made.policy, made.retention_days) = (new.policy, new.retention_days);
        checked_organisation(made)
    }
}

impl Changeable for Organisation {
    type Change = OrganisationChange;

    fn change(&self, change: OrganisationChange, _caller: &Caller<'_>) -> Result<Self, Refusal> {
        let mut made = self.clone();
        made.name = change.name.unwrap_or(made.name);
        made.time_zone = change.time_zone.unwrap_or(made.time_zone);
        made.policy = change.policy.unwrap_or(made.policy);
        made.retention_days = change.retention_days.unwrap_or(made.retention_days);
        checked_organisation(made)
    }
}

impl Deletable for Organisation {
    fn children(&self, caller: &Caller<'_>) -> Vec<String> {
        let directory = caller.directory;
        let teams = directory.teams().filter(|team| team.organisation == self.id);
        let users = directory.users().filter(|user| user.organisation == self.id);
        let keys = directory.keys().filter(|key| key.organisation == self.id);
        let roles = directory.roles().filter(|role| role.organisation == self.id);
        let budgets = directory.budgets().filter(|budget| budget.organisation == self.id);
        teams
            .map(|team| format!("team '{}'", team.name))
            .chain(users.map(|user| format!("user '{}'", user.email)))
            .chain(keys.filter(|key| !is_over(key, caller)).map(|key| named_key(key)))
            .chain(roles.map(|role| format!("role '{}'", role.name)))
            .chain(budgets.map(|budget| format!("budget '{}'", budget.name)))
            .collect()
    }

    fn along(&self, caller: &Caller<'_>) -> Vec<Edit> {
        without(caller, |key| key.organisation == self.id)
    }
}

fn checked_organisation(made: Organisation) -> Result<Organisation, Refusal> {
    check::name("name", &made.name)?;
    check::zone("time_zone", &made.time_zone)?;
    check::policy(&made.policy)?;
    if made.retention_days.values().any(|days| !(1..=RETENTION_DAYS_MAX).contains(days)) {
        let why = format!("'retention_days' are 1 to {RETENTION_DAYS_MAX} days.");
        return Err(Refusal::invalid("retention_days", why));
    }
    Ok(made)
}

/// What a team is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct TeamNew {
    /// Once in the organisation.
    name: String,
    /// Where it belongs; the caller's organisation where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    organisation: Option<Id>,
    #[serde(default)]
    policy: Policy,
}

/// What of a team or project may change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct LayerChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    /// The whole policy, in the place of the old one.
    #[serde(default, deserialize_with = "given")]
    policy: Option<Policy>,
}

impl LayerChange {
    fn apply(self, name: &mut String, policy: &mut Policy) -> Result<(), Refusal> {
        if let Some(wanted) = self.name {
            *name = wanted;
        }
        if let Some(wanted) = self.policy {
            *policy = wanted;
        }
        check::name("name", name)?;
        check::policy(policy)
    }
}

impl Resource for Team {
    const PATH: &'static str = "teams";
    const ONE: &'static str = "team";
    const READ: Permission = Permission::TreeRead;
    const WRITE: Permission = Permission::TreeWrite;
    const FILTERS: &'static [Filter<Self>] = &[
        ("name", "Only those of this name.", |_, team, name| team.name == name),
        ("organisation", "Only those of this organisation.", |_, team, id| {
            team.organisation.as_str() == id
        }),
    ];
    type New = TeamNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.teams())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.team(id)
    }

    fn scope(&self) -> Scope {
        Scope::Team(self.id.clone())
    }

    fn organisation(&self, _directory: &Directory) -> String {
        self.organisation.to_string()
    }

    fn place_of(new: &TeamNew, caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(organisation_or_own(new.organisation.as_ref(), caller))
    }

    fn make(new: TeamNew, caller: &Caller<'_>, _place: &Scope) -> Result<Self, Refusal> {
        check::name("name", &new.name)?;
        check::policy(&new.policy)?;
        Ok(Self {
            id: Id::new(Self::KIND, caller.now),
            organisation: new.organisation.unwrap_or_else(|| caller.organisation.clone()),
            name: new.name,
            policy: new.policy,
            created_at: caller.now,
        })
    }
}

impl Changeable for Team {
    type Change = LayerChange;

    fn change(&self, change: LayerChange, _caller: &Caller<'_>) -> Result<Self, Refusal> {
        let mut made = self.clone();
        change.apply(&mut made.name, &mut made.policy)?;
        Ok(made)
    }
}

impl Deletable for Team {
    fn children(&self, caller: &Caller<'_>) -> Vec<String> {
        let projects = caller.directory.projects().filter(|project| project.team == self.id);
        let mut children: Vec<String> =
            projects.map(|project| format!("project '{}'", project.name)).collect();
        children.extend(budgets_of(&self.scope(), caller));
        children
    }
}

/// What a project is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ProjectNew {
    /// Once in the team.
    name: String,
    /// Where it belongs.
    #[schema(value_type = String)]
    team: Id,
    #[serde(default)]
    policy: Policy,
}

impl Resource for Project {
    const PATH: &'static str = "projects";
    const ONE: &'static str = "project";
    const READ: Permission = Permission::TreeRead;
    const WRITE: Permission = Permission::TreeWrite;
    const FILTERS: &'static [Filter<Self>] = &[
        ("name", "Only those of this name.", |_, project, name| project.name == name),
        ("team", "Only those of this team.", |_, project, id| project.team.as_str() == id),
    ];
    type New = ProjectNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.projects())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.project(id)
    }

    fn scope(&self) -> Scope {
        Scope::Project(self.id.clone())
    }

    fn organisation(&self, directory: &Directory) -> String {
        let team = directory.team(&self.team);
        team.map(|team| team.organisation.to_string()).unwrap_or_default()
    }

    fn place_of(new: &ProjectNew, _caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(Scope::Team(new.team.clone()))
    }

    fn make(new: ProjectNew, caller: &Caller<'_>, _place: &Scope) -> Result<Self, Refusal> {
        check::name("name", &new.name)?;
        check::policy(&new.policy)?;
        let ProjectNew { name, team, policy } = new;
        Ok(Self { id: Id::new(Self::KIND, caller.now), team, name, policy, created_at: caller.now })
    }
}

impl Changeable for Project {
    type Change = LayerChange;

    fn change(&self, change: LayerChange, _caller: &Caller<'_>) -> Result<Self, Refusal> {
        let mut made = self.clone();
        change.apply(&mut made.name, &mut made.policy)?;
        Ok(made)
    }
}

impl Deletable for Project {
    fn children(&self, caller: &Caller<'_>) -> Vec<String> {
        let keys = caller.directory.keys().filter(|key| key.project.as_ref() == Some(&self.id));
        let mut children: Vec<String> =
            keys.filter(|key| !is_over(key, caller)).map(|key| named_key(key)).collect();
        children.extend(budgets_of(&self.scope(), caller));
        children
    }

    /// Keys whose time is over: nothing would ever find them again.
    fn along(&self, caller: &Caller<'_>) -> Vec<Edit> {
        without(caller, |key| key.project.as_ref() == Some(&self.id))
    }
}

/// An organisation that was named, or the caller's own.
pub(super) fn organisation_or_own(named: Option<&Id>, caller: &Caller<'_>) -> Scope {
    Scope::Organisation(named.unwrap_or(caller.organisation).clone())
}

/// Whether a key does not work any more, and will not again.
pub(super) fn is_over(key: &Key, caller: &Caller<'_>) -> bool {
    key.revoked_at.is_some_and(|at| at <= caller.now)
}

pub(super) fn named_key(key: &Key) -> String {
    format!("key '{}' ({})", key.label, key.prefix)
}

/// Deletes keys, and the budgets that are theirs alone.
pub(super) fn without(caller: &Caller<'_>, which: impl Fn(&Key) -> bool) -> Vec<Edit> {
    let directory = caller.directory;
    let mut edits = Vec::new();
    for key in directory.keys().filter(|key| which(key)) {
        let budgets =
            directory.budgets().filter(|budget| budget.scope == Scope::Key(key.id.clone()));
        edits.extend(budgets.map(|budget| Edit::delete(&**budget)));
        edits.push(Edit::delete(&**key));
    }
    edits
}

/// Budgets of just this scope. They lie within what may be deleted, so they may be named.
pub(super) fn budgets_of(scope: &Scope, caller: &Caller<'_>) -> Vec<String> {
    let budgets = caller.directory.budgets().filter(|budget| budget.scope == *scope);
    budgets.map(|budget| format!("budget '{}'", budget.name)).collect()
}
