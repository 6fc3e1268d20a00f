//! Documents of one kind by name, and groups of them by something that they share.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::{Change, DirectoryError};
use crate::Id;
use crate::entity::Entity;

/// Documents of one kind, sorted by name.
#[derive(Clone)]
pub(super) struct Table<T>(BTreeMap<Id, Arc<T>>);

/// What stood in a document's place, and what stands there now.
pub(super) struct Swap<T> {
    pub(super) old: Option<Arc<T>>,
    pub(super) new: Option<Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Entity> Table<T> {
    pub(super) fn get(&self, id: &Id) -> Option<&Arc<T>> {
        self.0.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values()
    }

    pub(super) fn apply(&mut self, change: &Change) -> Result<Swap<T>, DirectoryError> {
        Ok(self.put(&change.id, read(change)?))
    }

    pub(super) fn put(&mut self, id: &Id, new: Option<Arc<T>>) -> Swap<T> {
        let old = match &new {
            Some(new) => self.0.insert(id.clone(), Arc::clone(new)),
            None => self.0.remove(id),
        };
        Swap { old, new }
    }
}

/// The document that a change brings; `None` where it deletes one.
pub(super) fn read<T: Entity>(change: &Change) -> Result<Option<Arc<T>>, DirectoryError> {
    let Some(body) = &change.body else { return Ok(None) };
    let id = || change.id.clone();
    let document: T =
        serde_json::from_str(body).map_err(|why| DirectoryError::Unreadable { id: id(), why })?;
    if *document.id() != change.id {
        return Err(DirectoryError::OtherId { id: id(), inside: document.id().clone() });
    }
    Ok(Some(Arc::new(document)))
}

/// Documents by what they share; each group sorted by name.
#[derive(Clone)]
pub(super) struct Groups<K, T>(HashMap<K, Vec<Arc<T>>>);

impl<K, T> Default for Groups<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, T: Entity> Groups<K, T> {
    /// The documents of a group; none where there is no such group.
    pub(super) fn get(&self, group: &K) -> &[Arc<T>] {
        self.0.get(group).map_or(&[], Vec::as_slice)
    }

    pub(super) fn swap(&mut self, swap: Swap<T>, group_of: impl Fn(&T) -> K) {
        if let Some(old) = swap.old {
            let group = group_of(&old);
            if let Some(members) = self.0.get_mut(&group) {
                members.retain(|member| member.id() != old.id());
                if members.is_empty() {
                    self.0.remove(&group);
                }
            }
        }
        if let Some(new) = swap.new {
            let members = self.0.entry(group_of(&new)).or_default();
            let at = members.partition_point(|member| member.id() < new.id());
            members.insert(at, new);
        }
    }
}
