//! Keys. A key is shown when it is made and never again; it is revoked and not deleted, so that the
//! ledger's lines have somebody to point at.

use std::collections::BTreeMap;
use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::{Entity, Grant, Key};
use govern::identity::key::{Minted, check_certificate, rotate};
use govern::policy::Policy;
use govern::role::Permission;
use govern::store::documents::Edit;
use govern::{Id, Millis, Scope};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::tree::{is_over, named_key, organisation_or_own};
use crate::admin::answer::Answer;
use crate::admin::asked::Asked;
use crate::admin::caller::Caller;
use crate::admin::check::{self, given};
use crate::admin::refusal::Refusal;
use crate::admin::resource::{Changeable, Filter, Resource, replace, shown, to_do};
use crate::admin::table::Route;

/// Longest time in which two keys work side by side: 90 days.
const OVERLAP_SECONDS_MAX: i64 = 90 * 86_400;

/// What a key is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct KeyNew {
    /// What people call it.
    label: String,
    /// The project that its requests are booked on; a key without one asks no model.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    project: Option<Id>,
    /// Of a key without a project: where it belongs; the caller's organisation where nothing is
    /// said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    organisation: Option<Id>,
    /// Whose it is.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    user: Option<Id>,
    /// The name in clients' certificates that opens it in place of a secret: `uri:` or `dns:` and a
    /// pattern. Needs `keys.write` on everything: the authority is the deployment's.
    #[serde(default)]
    certificate: Option<String>,
    /// What it may administer; no wider than what the caller may.
    #[serde(default)]
    grants: Vec<Grant>,
    #[serde(default)]
    policy: Policy,
    /// From this time it is refused; milliseconds since 1970.
    #[serde(default)]
    expires_at: Option<Millis>,
    /// The caller's own notes: at most 16.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// What of a key may change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct KeyChange {
    #[serde(default, deserialize_with = "given")]
    label: Option<String>,
    #[serde(default, deserialize_with = "given")]
    grants: Option<Vec<Grant>>,
    /// The whole policy, in the place of the old one.
    #[serde(default, deserialize_with = "given")]
    policy: Option<Policy>,
    /// `null`: never.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<Millis>>,
    #[serde(default, deserialize_with = "given")]
    metadata: Option<BTreeMap<String, String>>,
}

/// How a key is rotated.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyRotation {
    /// How long the old key still works; 0 where nothing is said.
    #[serde(default)]
    overlap_seconds: i64,
}

/// How a key is revoked.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyRevocation {
    /// For the audit.
    #[serde(default)]
    reason: Option<String>,
}

impl Resource for Key {
    const PATH: &'static str = "keys";
    const ONE: &'static str = "key";
    const READ: Permission = Permission::KeysRead;
    const WRITE: Permission = Permission::KeysWrite;
    const SECRETS: &'static [&'static str] = &["hash"];
    const FILTERS: &'static [Filter<Self>] = &[
        ("name", "Only those of this label.", |_, key, label| key.label == label),
        ("prefix", "Only the one with this visible part.", |_, key, prefix| key.prefix == prefix),
        ("organisation", "Only those of this organisation.", |_, key, id| {
            key.organisation.as_str() == id
        }),
        ("team", "Only those of this team's projects.", |caller, key, id| {
            let project =
                key.project.as_ref().and_then(|project| caller.directory.project(project));
            project.is_some_and(|project| project.team.as_str() == id)
        }),
        ("project", "Only those of this project.", |_, key, id| {
            key.project.as_ref().is_some_and(|project| project.as_str() == id)
        }),
        ("user", "Only those of this user.", |_, key, id| {
            key.user.as_ref().is_some_and(|user| user.as_str() == id)
        }),
    ];
    type New = KeyNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.keys())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.key(id)
    }

    fn scope(&self) -> Scope {
        Scope::Key(self.id.clone())
    }

    fn organisation(&self, _directory: &Directory) -> String {
        self.organisation.to_string()
    }

    fn place_of(new: &KeyNew, caller: &Caller<'_>) -> Result<Scope, Refusal> {
        match (&new.project, &new.organisation) {
            (Some(_), Some(_)) => {
                let why = "A key with a project belongs to the project's organisation.";
                Err(Refusal::invalid("organisation", why))
            }
            (Some(project), None) => Ok(Scope::Project(project.clone())),
            (None, organisation) => Ok(organisation_or_own(organisation.as_ref(), caller)),
        }
    }

    fn make(new: KeyNew, caller: &Caller<'_>, place: &Scope) -> Result<Self, Refusal> {
        let organisation = caller.directory.organisation_of(place).ok_or_else(Refusal::hidden)?;
        if let Some(user) = &new.user {
            let known = caller.user == Some(user)
                || caller.may(Permission::UsersRead, &Scope::User(user.clone()));
            let found = caller.directory.user(user).filter(|_| known);
            if found.is_none_or(|user| user.organisation != *organisation) {
                return Err(Refusal::invalid("user", "There is no such user."));
            }
        }
        caller.may_give("grants", &new.grants)?;
        if let Some(at) = new.expires_at {
            check::future("expires_at", at, caller.now)?;
        }
        if let Some(pattern) = &new.certificate {
            may_certify(pattern, caller)?;
        }
        let KeyNew { label, project, user, certificate, .. } = new;
        let KeyNew { grants, policy, expires_at, metadata, .. } = new;
        checked(Self {
            id: Id::new(Self::KIND, caller.now),
            organisation: organisation.clone(),
            project,
            user,
            label,
            certificate,
            grants,
            policy,
            expires_at,
            metadata,
            created_at: caller.now,
            ..Self::default()
        })
    }
}

impl Changeable for Key {
    type Change = KeyChange;

    fn change(&self, change: KeyChange, caller: &Caller<'_>) -> Result<Self, Refusal> {
        caller.may_give("id", &self.grants)?;
        if self.revoked_at.is_some_and(|at| at <= caller.now) {
            return Err(Refusal::conflict("key_revoked", "This key was revoked, for ever."));
        }
        let mut made = self.clone();
        made.label = change.label.unwrap_or(made.label);
        made.policy = change.policy.unwrap_or(made.policy);
        made.metadata = change.metadata.unwrap_or(made.metadata);
        if let Some(at) = change.expires_at {
            at.map_or(Ok(()), |at| check::future("expires_at", at, caller.now))?;
            made.expires_at = at;
        }
        if let Some(grants) = change.grants {
            caller.may_give("grants", &grants)?;
            made.grants = grants;
        }
        checked(made)
    }
}

/// Whoever names certificates takes in what their owners send: that is for those alone who run the
/// deployment, and no two keys name the same ones.
fn may_certify(pattern: &str, caller: &Caller<'_>) -> Result<(), Refusal> {
    if !caller.may(Permission::KeysWrite, &Scope::Everything) {
        let why = "certificates are named by whoever may write keys on everything";
        return Err(Refusal::wider("certificate", why));
    }
    let wrong = |why| Refusal::invalid("certificate", format!("'certificate': {why}."));
    check_certificate(pattern).map_err(wrong)?;
    let mut others = caller.directory.certified().filter(|key| !is_over(key, caller));
    match others.find(|key| key.certificate.as_deref() == Some(pattern)) {
        Some(other) => {
            let message = format!("The {} is for these certificates already.", named_key(other));
            Err(Refusal::conflict("certificate_taken", message))
        }
        None => Ok(()),
    }
}

fn checked(made: Key) -> Result<Key, Refusal> {
    check::name("label", &made.label)?;
    check::policy(&made.policy)?;
    check::grants(&made.grants)?;
    check::metadata(&made.metadata)?;
    Ok(made)
}

/// What only keys have.
pub(super) fn routes() -> Vec<Route> {
    let rotate = to_do::<Key>(
        "rotate",
        "Makes a key in the place of another one, which works for some time yet; the answer has the \
         new one as `key`, this once.",
        |asked| Box::pin(rotated(asked)),
    );
    let revoke = to_do::<Key>("revoke", "Revokes a key: from now on it is refused.", |asked| {
        Box::pin(revoked(asked))
    });
    vec![rotate.takes::<KeyRotation>().makes(), revoke.takes::<KeyRevocation>()]
}

/// `POST /keys`: the answer holds the key itself, this once.
pub(super) async fn create(asked: Asked) -> Result<Answer, Refusal> {
    let new: KeyNew = asked.body()?;
    let made = asked.governor.edit(|directory, now| {
        let (caller, place) = asked.judge(directory, now)?;
        let mut key = Key::make(new, &caller, &place)?;
        let minted = Minted::new();
        key.prefix.clone_from(&minted.prefix);
        key.hash.clone_from(&minted.hash);
        let note = asked
            .note(now, "keys.create", key.organisation.as_str())
            .with("target", key.id.as_str())
            .with("after", shown(&key));
        Ok::<_, Refusal>((vec![Edit::put(&key)], note.end(), (key, minted)))
    });
    let (key, minted) = made.await?;
    Ok(Answer::made(&with_key(&key, &minted)).with_secret())
}

fn with_key(key: &Key, minted: &Minted) -> Value {
    let mut value = shown(key);
    // The secret of one that a certificate opens is for nobody.
    if key.certificate.is_none() {
        value["key"] = json!(minted.shown);
    }
    value
}

async fn rotated(asked: Asked) -> Result<Answer, Refusal> {
    let KeyRotation { overlap_seconds } = asked.body_or_none()?;
    if !(0..=OVERLAP_SECONDS_MAX).contains(&overlap_seconds) {
        let why = format!("'overlap_seconds' is from 0 to {OVERLAP_SECONDS_MAX}.");
        return Err(Refusal::invalid("overlap_seconds", why));
    }
    let made = asked.governor.edit(|directory, now| {
        let (caller, _) = asked.judge(directory, now)?;
        let old = Key::find(directory, &asked.id).ok_or_else(Refusal::hidden)?;
        // Whoever is shown the new key has all that it may do.
        caller.may_give("id", &old.grants)?;
        let (was, new, minted) = rotate(old, overlap_seconds * 1000, now)
            .map_err(|denied| Refusal::conflict(denied.rule.name(), denied.message))?;
        let note = asked
            .note(now, "keys.rotate", new.organisation.as_str())
            .with("target", was.id.as_str())
            .with("before", shown(&was))
            .with("after", shown(&new));
        let edits = vec![Edit::put(&was), Edit::put(&new)];
        Ok::<_, Refusal>((edits, note.end(), (new, minted)))
    });
    let (key, minted) = made.await?;
    Ok(Answer::made(&with_key(&key, &minted)).with_secret())
}

async fn revoked(asked: Asked) -> Result<Answer, Refusal> {
    let KeyRevocation { reason } = asked.body_or_none()?;
    if let Some(reason) = &reason {
        check::sentence("reason", reason)?;
    }
    // Whoever finds a key that leaked may stop it, whatever it may do.
    let key = replace::<Key>(&asked, "revoke", reason.as_deref(), |old, caller| {
        let at = old.revoked_at.map_or(caller.now, |at| at.min(caller.now));
        Ok(Key { revoked_at: Some(at), ..old.clone() })
    });
    Ok(Answer::json(&shown(&key.await?)))
}
