//! The first start: an organisation, a team, a project, and one key that may do everything; and
//! another such key, for whoever has lost it.

use super::{EditError, Governor, OpenError};
use crate::Id;
use crate::Scope;
use crate::entity::{Entity, Grant, Key, Organisation, Project, Team};
use crate::identity::key::Minted;
use crate::ledger::writer::Note;
use crate::store::StoreError;
use crate::store::documents::Edit;

/// The key of the first start. It is shown once, and kept as a hash only.
#[derive(Debug)]
pub struct FirstKey(pub Minted);

pub(super) async fn first_key(governor: &Governor) -> Result<Option<FirstKey>, OpenError> {
    let made = governor.edit(|directory, now| {
        if directory.organisations().next().is_some() {
            return Ok((Vec::new(), Note::default(), None));
        }
        let organisation = Organisation::new("default", now);
        let team = Team {
            id: Id::new(Team::KIND, now),
            organisation: organisation.id.clone(),
            name: "default".to_owned(),
            created_at: now,
            ..Team::default()
        };
        let project = Project {
            id: Id::new(Project::KIND, now),
            team: team.id.clone(),
            name: "default".to_owned(),
            created_at: now,
            ..Project::default()
        };
        let minted = Minted::new();
        let key = Key {
            id: Id::new(Key::KIND, now),
            organisation: organisation.id.clone(),
            project: Some(project.id.clone()),
            label: "first key".to_owned(),
            prefix: minted.prefix.clone(),
            hash: minted.hash.clone(),
            grants: vec![Grant { role: "owner".to_owned(), scope: Scope::Everything }],
            created_at: now,
            ..Key::default()
        };
        let note = Note {
            at: now,
            kind: "admin".to_owned(),
            organisation: organisation.id.to_string(),
            body: format!(r#"{{"action":"first_start","key":"{}"}}"#, key.id),
        };
        let edits =
            vec![Edit::put(&organisation), Edit::put(&team), Edit::put(&project), Edit::put(&key)];
        Ok::<_, EditError>((edits, note, Some(FirstKey(minted))))
    });
    made.await.map_err(|error| match error {
        EditError::Store(error) => OpenError::Store(error),
        EditError::Wrong(why) => OpenError::Store(StoreError::Content(why)),
    })
}

impl Governor {
    /// Another key that may do everything, in the place of one that was lost: for whoever may write
    /// the database anyway. It belongs to the oldest organisation. Shown this once.
    ///
    /// # Errors
    /// The database fails, or holds no organisation.
    pub async fn recovery_key(&self) -> Result<Minted, EditError> {
        self.edit(|directory, now| {
            let oldest = directory.organisations().min_by_key(|one| one.created_at);
            let oldest = oldest.ok_or_else(|| EditError::Wrong("no organisation".to_owned()))?;
            let minted = Minted::new();
            let key = Key {
                id: Id::new(Key::KIND, now),
                organisation: oldest.id.clone(),
                label: "recovered".to_owned(),
                prefix: minted.prefix.clone(),
                hash: minted.hash.clone(),
                grants: vec![Grant { role: "owner".to_owned(), scope: Scope::Everything }],
                created_at: now,
                ..Key::default()
            };
            let body = serde_json::json!({
                "action": "recover",
                "key": key.id,
                "key_prefix": key.prefix,
                "gateway": self.gateway(),
            });
            let note = Note {
                at: now,
                kind: "admin".to_owned(),
                // The deployment's: what may do everything concerns everybody.
                organisation: String::new(),
                body: body.to_string(),
            };
            Ok((vec![Edit::put(&key)], note, minted))
        })
        .await
    }
}
