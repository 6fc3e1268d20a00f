//! All documents of the database in memory, found by what requests know of them: a key's prefix, a
//! budget's scope. Decisions read it and never wait for the database.
//!
//! Documents arrive one by one and in any order, so a link may name what is not there. Whatever a
//! broken link leads through does not exist: nothing is ever found by half a path.

mod tables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::entity::{
    Budget, Entity, Grant, Group, Key, Organisation, PriceSheet, Project, Role, Team, User,
};
use crate::identity::Principal;
use crate::policy::pattern;
use crate::role::{self, Permission};
use crate::{Id, Millis, Scope};
use tables::{Groups, Table};

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The document's kind, as [`Entity::KIND`] has it.
    pub kind: String,
    /// Its name.
    pub id: Id,
    /// The whole document as JSON; `None`: it was deleted.
    pub body: Option<String>,
}

/// A change that cannot be taken over. What was there before it is still there.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Written by a newer version.
    #[error("{id} is a `{kind}`, which this version does not know")]
    UnknownKind {
        /// The document.
        id: Id,
        /// What it says that it is.
        kind: String,
    },
    /// Not JSON, or not of this kind.
    #[error("{id} cannot be read: {why}")]
    Unreadable {
        /// The document.
        id: Id,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// The document names itself otherwise than the change does.
    #[error("{id} says that it is {inside}")]
    OtherId {
        /// The change's name.
        id: Id,
        /// The document's own.
        inside: Id,
    },
    /// Two keys could not be told apart.
    #[error("{id} has the prefix of {other}")]
    PrefixTaken {
        /// The key that came.
        id: Id,
        /// The key that has it.
        other: Id,
    },
}

/// All documents, and what finds them.
#[derive(Clone, Default)]
pub struct Directory {
    organisations: Table<Organisation>,
    teams: Table<Team>,
    projects: Table<Project>,
    users: Table<User>,
    keys: Table<Key>,
    roles: Table<Role>,
    budgets: Table<Budget>,
    sheets: Table<PriceSheet>,
    groups: Table<Group>,
    keys_by_prefix: HashMap<String, Arc<Key>>,
    /// Those that certificates open.
    certified: BTreeMap<Id, Arc<Key>>,
    roles_by_organisation: Groups<Id, Role>,
    budgets_by_scope: Groups<Scope, Budget>,
    sheets_by_time: BTreeMap<(Millis, Id), Arc<PriceSheet>>,
}

macro_rules! readers {
    ($($one:ident $all:ident $table:ident $type:ident;)*) => {
        /// One document by its name, and all of a kind sorted by name.
        impl Directory {$(
            #[doc = concat!("The [`", stringify!($type), "`] of this name.")]
            #[must_use]
            pub fn $one(&self, id: &Id) -> Option<&Arc<$type>> {
                self.$table.get(id)
            }

            #[doc = concat!("Every [`", stringify!($type), "`], sorted by name.")]
            pub fn $all(&self) -> impl Iterator<Item = &Arc<$type>> {
                self.$table.all()
            }
        )*}
    };
}

readers! {
    organisation organisations organisations Organisation;
    team teams teams Team;
    project projects projects Project;
    user users users User;
    key keys keys Key;
    role roles roles Role;
    budget budgets budgets Budget;
    prices sheets sheets PriceSheet;
    group groups groups Group;
}

impl Directory {
    /// Takes a change over.
    ///
    /// # Errors
    /// The document is of no known kind, cannot be read, or cannot be told from another one. The
    /// directory is then as it was.
    pub fn apply(&mut self, change: &Change) -> Result<(), DirectoryError> {
        match change.kind.as_str() {
            Organisation::KIND => self.organisations.apply(change).map(|_| ()),
            Team::KIND => self.teams.apply(change).map(|_| ()),
            Group::KIND => self.groups.apply(change).map(|_| ()),
            Project::KIND => self.projects.apply(change).map(|_| ()),
            User::KIND => self.users.apply(change).map(|_| ()),
            Key::KIND => self.apply_key(change),
            Role::KIND => {
                let swap = self.roles.apply(change)?;
                self.roles_by_organisation.swap(swap, |role| role.organisation.clone());
                Ok(())
            }
            Budget::KIND => {
                let swap = self.budgets.apply(change)?;
                self.budgets_by_scope.swap(swap, |budget| budget.scope.clone());
                Ok(())
            }
            PriceSheet::KIND => {
                let swap = self.sheets.apply(change)?;
                let place = |sheet: &PriceSheet| (sheet.effective_from, sheet.id.clone());
                if let Some(old) = swap.old {
                    self.sheets_by_time.remove(&place(&old));
                }
                if let Some(new) = swap.new {
                    self.sheets_by_time.insert(place(&new), new);
                }
                Ok(())
            }
            kind => {
                let (id, kind) = (change.id.clone(), kind.to_owned());
                Err(DirectoryError::UnknownKind { id, kind })
            }
        }
    }

    fn apply_key(&mut self, change: &Change) -> Result<(), DirectoryError> {
        let new = tables::read::<Key>(change)?;
        if let Some(other) = new.as_ref().and_then(|key| self.key_by_prefix(&key.prefix))
            && other.id != change.id
        {
            let (id, other) = (change.id.clone(), other.id.clone());
            return Err(DirectoryError::PrefixTaken { id, other });
        }
        let swap = self.keys.put(&change.id, new);
        if let Some(old) = swap.old {
            self.keys_by_prefix.remove(&old.prefix);
            self.certified.remove(&old.id);
        }
        if let Some(new) = swap.new {
            if new.certificate.is_some() {
                self.certified.insert(new.id.clone(), Arc::clone(&new));
            }
            self.keys_by_prefix.insert(new.prefix.clone(), new);
        }
        Ok(())
    }

    /// The key whose visible part this is.
    #[must_use]
    pub fn key_by_prefix(&self, prefix: &str) -> Option<&Arc<Key>> {
        self.keys_by_prefix.get(prefix)
    }

    /// The keys that certificates of clients open, sorted by name.
    pub fn certified(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.certified.values()
    }

    /// The scopes from the deployment down to this one: everything, organisation, team, project,
    /// key, those that there are. Users lie under their organisation alone, keys without a
    /// project too. `None` where it does not exist.
    #[must_use]
    pub fn path(&self, scope: &Scope) -> Option<Vec<Scope>> {
        let mut path = match scope {
            Scope::Everything => Vec::with_capacity(5),
            Scope::Organisation(id) => {
                self.organisation(id)?;
                self.path(&Scope::Everything)?
            }
            Scope::Team(id) => self.under(&self.team(id)?.organisation)?,
            Scope::Project(id) => self.path(&Scope::Team(self.project(id)?.team.clone()))?,
            Scope::User(id) => self.under(&self.user(id)?.organisation)?,
            Scope::Key(id) => self.path_to_key(self.key(id)?)?,
        };
        path.push(scope.clone());
        Some(path)
    }

    fn under(&self, organisation: &Id) -> Option<Vec<Scope>> {
        self.path(&Scope::Organisation(organisation.clone()))
    }

    fn path_to_key(&self, key: &Key) -> Option<Vec<Scope>> {
        let Some(project) = &key.project else { return self.under(&key.organisation) };
        let path = self.path(&Scope::Project(project.clone()))?;
        // A key whose project is of another organisation would see both.
        path.contains(&Scope::Organisation(key.organisation.clone())).then_some(path)
    }

    /// Whether the first is the second or lies above it, and both exist.
    #[must_use]
    pub fn covers(&self, above: &Scope, below: &Scope) -> bool {
        self.path(below).is_some_and(|path| path.contains(above))
    }

    /// The organisation that a scope lies in; `None` for everything and for what does not exist.
    #[must_use]
    pub fn organisation_of(&self, scope: &Scope) -> Option<&Id> {
        let path = self.path(scope)?;
        let Some(Scope::Organisation(id)) = path.get(1) else { return None };
        self.organisation(id).map(|organisation| &organisation.id)
    }

    /// The budgets that a request of this principal to this model spends from: those of every
    /// scope that it has, from the deployment's down, each scope's sorted by name.
    #[must_use]
    pub fn budgets_of(&self, principal: &Principal, model: &str) -> Vec<Arc<Budget>> {
        let fits = |budget: &&Arc<Budget>| {
            budget.model.as_ref().is_none_or(|wanted| pattern::matches(wanted, model))
        };
        let of_scope =
            |scope: &Scope| self.budgets_by_scope.get(scope).iter().filter(fits).cloned();
        principal.scopes().iter().flat_map(of_scope).collect()
    }

    /// The sheet in force: of those whose time has come the latest; of two of one time the one
    /// made later.
    #[must_use]
    pub fn prices_at(&self, now: Millis) -> Option<&Arc<PriceSheet>> {
        let begun = |(_, sheet): &(_, &Arc<PriceSheet>)| sheet.effective_from <= now;
        self.sheets_by_time.iter().rev().find(begun).map(|(_, sheet)| sheet)
    }

    /// Who acts with this key; `None` where something that the key belongs to is not there. A key
    /// has its own grants and none of its user's.
    #[must_use]
    pub fn principal(&self, key: &Arc<Key>) -> Option<Principal> {
        let project = match &key.project {
            Some(id) => Some(self.project(id)?),
            None => None,
        };
        let team = match project {
            Some(project) => Some(self.team(&project.team)?),
            None => None,
        };
        let user = match &key.user {
            Some(id) => Some(self.user(id)?),
            None => None,
        };
        let here = |organisation: &Id| *organisation == key.organisation;
        let whole = team.is_none_or(|team| here(&team.organisation))
            && user.is_none_or(|user| here(&user.organisation));
        let organisation = self.organisation(&key.organisation).filter(|_| whole)?;
        Some(Principal {
            organisation: Arc::clone(organisation),
            team: team.cloned(),
            project: project.cloned(),
            user: user.cloned(),
            key: Some(Arc::clone(key)),
            grants: key.grants.clone(),
        })
    }

    /// What these grants allow at a place. An unknown role allows nothing, and neither does any
    /// grant at a place that does not exist.
    #[must_use]
    pub fn permissions(&self, grants: &[Grant], at: &Scope) -> BTreeSet<Permission> {
        let Some(path) = self.path(at) else { return BTreeSet::new() };
        let here = grants.iter().filter(|grant| path.contains(&grant.scope));
        here.filter_map(|grant| self.permissions_of(grant)).flatten().copied().collect()
    }

    /// What a grant's role allows; `None` for an unknown role. Roles of an organisation's own are
    /// those of the organisation that the grant holds in.
    #[must_use]
    pub fn permissions_of(&self, grant: &Grant) -> Option<&[Permission]> {
        let organisation = self.organisation_of(&grant.scope);
        let own = organisation.map_or(&[][..], |id| self.roles_by_organisation.get(id));
        role::permissions_of(&grant.role, own)
    }
}
