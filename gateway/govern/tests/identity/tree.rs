//! A directory with two organisations, and hands to fill one with.

use std::sync::Arc;

use govern::directory::{Change, Directory};
use govern::entity::{Entity, Grant, Key, Organisation, Project, Role, Team, User};
use govern::identity::key::Minted;
use govern::{Id, Millis, Scope};

/// When tests take place.
pub(crate) const NOW: Millis = 1_790_000_000_000;

/// A name.
pub(crate) fn id(text: &str) -> Id {
    Id::of(text).expect(text)
}

/// A place.
pub(crate) fn scope(text: &str) -> Scope {
    text.parse().expect(text)
}

/// A grant.
pub(crate) fn grant(role: &str, at: &str) -> Grant {
    Grant { role: role.to_owned(), scope: scope(at) }
}

/// The change that brings a document.
pub(crate) fn put<E: Entity>(entity: &E) -> Change {
    let body = serde_json::to_string(entity).expect("plain data");
    Change { kind: E::KIND.to_owned(), id: entity.id().clone(), body: Some(body) }
}

/// The change that deletes a document.
pub(crate) fn delete<E: Entity>(name: &str) -> Change {
    Change { kind: E::KIND.to_owned(), id: id(name), body: None }
}

/// An organisation called by its id.
pub(crate) fn organisation(name: &str) -> Organisation {
    let mut organisation = Organisation::new(name, NOW);
    organisation.id = id(name);
    organisation
}

/// A team called by its id.
pub(crate) fn team(name: &str, organisation: &str) -> Team {
    let organisation = id(organisation);
    Team { id: id(name), organisation, name: name.to_owned(), ..Team::default() }
}

/// A project called by its id.
pub(crate) fn project(name: &str, team: &str) -> Project {
    Project { id: id(name), team: id(team), name: name.to_owned(), ..Project::default() }
}

/// A user whose address is their id.
pub(crate) fn user(name: &str, organisation: &str) -> User {
    let organisation = id(organisation);
    User { id: id(name), organisation, email: name.to_owned(), ..User::default() }
}

/// A key called by its id, and the whole of it.
pub(crate) fn key(name: &str, organisation: &str, project: Option<&str>) -> (Key, String) {
    let Minted { shown, prefix, hash } = Minted::new();
    let key = Key {
        id: id(name),
        organisation: id(organisation),
        project: project.map(id),
        label: name.to_owned(),
        prefix,
        hash,
        created_at: NOW,
        ..Key::default()
    };
    (key, shown)
}

/// Organisations `a` and `b`; teams `a1`, `a2`, `b1`, each with a project `...p`; users `ann` and
/// `bob`; in `a` a role `keeper` that reads and writes keys.
pub(crate) fn two() -> Directory {
    let mut directory = Directory::default();
    let keeper = Role {
        id: id("keeper"),
        organisation: id("a"),
        name: "keeper".to_owned(),
        permissions: vec![govern::role::Permission::KeysRead, govern::role::Permission::KeysWrite],
        created_at: NOW,
    };
    let mut changes = vec![put(&keeper), put(&user("ann", "a")), put(&user("bob", "b"))];
    for name in ["a", "b"] {
        changes.push(put(&organisation(name)));
    }
    for (name, above) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        changes.push(put(&team(name, above)));
        changes.push(put(&project(&format!("{name}p"), name)));
    }
    for change in &changes {
        directory.apply(change).expect("a good document");
    }
    directory
}

/// A directory and a key in it, changed before it went in.
pub(crate) fn with_key(change: impl FnOnce(&mut Key)) -> (Directory, Arc<Key>, String) {
    let mut directory = two();
    let (mut key, shown) = key("ci", "a", Some("a1p"));
    change(&mut key);
    directory.apply(&put(&key)).expect("a good key");
    (directory, Arc::new(key), shown)
}
