//! What an organisation is made of: plain documents, as the database keeps them and the admin API
//! shows them. What they mean is decided in the modules that use them.
//!
//! organisation > team > project > key. Users belong to an organisation and to teams.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::budget::window::Period;
use crate::policy::{Label, Policy};
use crate::price::ModelPrice;
use crate::role::Permission;
use crate::{Id, Millis, Money};

/// A document of the database.
pub trait Entity: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The word that its names begin with and its table rows carry.
    const KIND: &'static str;
    /// Its name for machines.
    fn id(&self) -> &Id;
    /// The thing that it belongs to; empty for none.
    fn parent(&self) -> &str;
    /// Its name for people: two of one parent differ.
    fn name(&self) -> &str;
}

macro_rules! entities {
    ($($type:ident $kind:literal $parent:ident $name:ident;)*) => {
        $(impl Entity for $type {
            const KIND: &'static str = $kind;
            fn id(&self) -> &Id { &self.id }
            fn parent(&self) -> &str { self.$parent.as_ref() }
            #[allow(clippy::misnamed_getters, reason = "a person's name here is their address")]
            fn name(&self) -> &str { &self.$name }
        })*
    };
}

entities! {
    Organisation "org" none name;
    Team "team" organisation name;
    Project "proj" team name;
    User "user" organisation email;
    Key "key" organisation prefix;
    Role "role" organisation name;
    Budget "bud" organisation name;
    PriceSheet "price" none name;
    Group "group" organisation name;
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// No parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nothing;

impl AsRef<str> for Nothing {
    fn as_ref(&self) -> &str {
        ""
    }
}

/// The top of a tree; nothing of one is ever seen from another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// `org_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Its name.
    pub name: String,
    /// IANA name of the zone that its days begin in; `UTC` where nothing is said.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What its members may do.
    #[serde(default)]
    pub policy: Policy,
    /// Days that recorded texts are kept, by label; 30 where nothing is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, u32>)]
    pub retention_days: BTreeMap<Label, u32>,
    /// Milliseconds since 1970.
    pub created_at: Millis,
    #[serde(skip)]
    #[schema(ignore)]
    none: Nothing,
}

/// People who share a purse.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// `team_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where it belongs.
    #[schema(value_type = String)]
    pub organisation: Id,
    /// Its name, once in the organisation.
    pub name: String,
    /// What its members may do, within what the organisation allows.
    #[serde(default)]
    pub policy: Policy,
    /// Milliseconds since 1970.
    pub created_at: Millis,
}

/// What keys belong to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// `proj_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where it belongs.
    #[schema(value_type = String)]
    pub team: Id,
    /// Its name, once in the team.
    pub name: String,
    /// What its keys may do, within what the team allows.
    #[serde(default)]
    pub policy: Policy,
    /// Milliseconds since 1970.
    pub created_at: Millis,
}

/// A person, or a service that acts as one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `user_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where they belong.
    #[schema(value_type = String)]
    pub organisation: Id,
    /// Their address, once in the organisation; for a service any name.
    pub email: String,
    /// Their name.
    #[serde(default)]
    pub name: String,
    /// A service account: never signs in, only holds keys.
    #[serde(default)]
    pub service: bool,
    /// The teams that they are in.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub teams: Vec<Id>,
    /// What they may administer.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// What they may do, within what the organisation allows.
    #[serde(default)]
    pub policy: Policy,
    /// Nothing works for them any more: no sign-in, no key.
    #[serde(default)]
    pub disabled: bool,
    /// Their name at the identity provider.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Argon2id, in PHC form. Never shown.
    #[serde(default)]
    #[schema(ignore)]
    pub password: Option<String>,
    /// The secret of their one-time codes, sealed. Never shown.
    #[serde(default)]
    #[schema(ignore)]
    pub totp: Option<String>,
    /// What their identity provider keeps of them here by SCIM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<Provisioned>,
    /// Milliseconds since 1970.
    pub created_at: Millis,
}

/// A person as an identity provider keeps them here by SCIM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Provisioned {
    /// Their name there, once in the organisation, in whatever case.
    pub user_name: String,
    /// What it knows them by.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Whether they work there, as it said last.
    pub active: bool,
    /// Groups that they are in.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Id>,
    /// What else it said of them, as it said it.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// Milliseconds since 1970.
    pub modified_at: Millis,
}

/// A group of an identity provider's. Who is in it stands with the people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// `group_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where it belongs.
    #[schema(value_type = String)]
    pub organisation: Id,
    /// Its name, once in the organisation.
    pub name: String,
    /// What the identity provider knows it by.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: Millis,
    /// Milliseconds since 1970.
    pub modified_at: Millis,
}

/// What a client shows. The secret itself is not here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// `key_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where it belongs.
    #[schema(value_type = String)]
    pub organisation: Id,
    /// The project that its requests are booked on; a key without one asks no model.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub project: Option<Id>,
    /// Whose it is.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub user: Option<Id>,
    /// What people call it.
    pub label: String,
    /// The part of the key that may be seen, and by which it is found: `hk-` and 12 letters.
    pub prefix: String,
    /// SHA-256 of the whole key, hexadecimal. Never shown.
    #[serde(default)]
    #[schema(ignore)]
    pub hash: String,
    /// The name in the certificates of clients that this key is for: `uri:` or `dns:` and a
    /// pattern. Nobody has such a key's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What it may administer; a plain key nothing.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// What it may do, within what the project allows.
    #[serde(default)]
    pub policy: Policy,
    /// From this time it is refused; milliseconds since 1970.
    #[serde(default)]
    pub expires_at: Option<Millis>,
    /// From this time it is refused, for ever; milliseconds since 1970.
    #[serde(default)]
    pub revoked_at: Option<Millis>,
    /// The key in whose place it came.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub replaces: Option<Id>,
    /// The caller's own notes.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created_at: Millis,
}

/// A set of permissions of an organisation's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// `role_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where it belongs.
    #[schema(value_type = String)]
    pub organisation: Id,
    /// Its name; not one of the roles that are built in.
    pub name: String,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// Milliseconds since 1970.
    pub created_at: Millis,
}

/// A role, and where it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Name of a role: built in, or of the organisation's own.
    pub role: String,
    /// Where it holds, and below.
    #[schema(value_type = String, example = "team:team_0k3v8w2n5q7r1s4t6x9z")]
    pub scope: Scope,
}

/// Money that may be spent in stretches of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// `bud_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Where it belongs.
    #[schema(value_type = String)]
    pub organisation: Id,
    /// Its name, once in the organisation.
    pub name: String,
    /// Whose spending it bounds.
    #[schema(value_type = String, example = "team:team_0k3v8w2n5q7r1s4t6x9z")]
    pub scope: Scope,
    /// Only spending on models of this pattern (`*` any letters, `?` one); all where nothing is
    /// said.
    #[serde(default)]
    pub model: Option<String>,
    /// Each of them must hold.
    pub limits: Vec<Limit>,
    /// IANA name of the zone that days begin in; the organisation's where nothing is said.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: Millis,
}

/// So much in each stretch of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The stretch.
    pub period: Period,
    /// Nano-dollars.
    #[schema(value_type = i64)]
    pub nano_usd: Money,
    /// Spending over it is told and not refused.
    #[serde(default)]
    pub soft: bool,
    /// Shares of it, in percent, at which an alert is sent.
    #[serde(default)]
    pub alert_percent: Vec<u8>,
    /// Money on top of it for some time.
    #[serde(default)]
    pub raises: Vec<Raise>,
}

impl Limit {
    /// What it allows at a time, raises among it.
    #[must_use]
    pub fn allowed(&self, now: Millis) -> Money {
        let raises = self.raises.iter().filter(|raise| (raise.from..raise.until).contains(&now));
        raises.fold(self.nano_usd, |sum, raise| sum.plus(raise.nano_usd))
    }
}

/// Money on top of a limit, for some time and for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Raise {
    /// Nano-dollars.
    #[schema(value_type = i64)]
    pub nano_usd: Money,
    /// From when; milliseconds since 1970.
    pub from: Millis,
    /// Until when; milliseconds since 1970.
    pub until: Millis,
    /// Why.
    pub reason: String,
}

/// What tokens cost from a time on. Sheets are never changed: a new one follows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceSheet {
    /// `price_...`
    #[schema(value_type = String)]
    pub id: Id,
    /// Its name.
    pub name: String,
    /// The first matching entry counts.
    pub models: Vec<ModelPrice>,
    /// From when; milliseconds since 1970.
    pub effective_from: Millis,
    /// Milliseconds since 1970.
    pub created_at: Millis,
    #[serde(skip)]
    #[schema(ignore)]
    none: Nothing,
}

impl Organisation {
    /// A new one.
    #[must_use]
    pub fn new(name: &str, now: Millis) -> Self {
        let id = Id::new(Self::KIND, now);
        Self { id, name: name.to_owned(), time_zone: utc(), created_at: now, ..Self::default() }
    }
}

impl PriceSheet {
    /// A new one, in force at once.
    #[must_use]
    pub fn new(name: &str, models: Vec<ModelPrice>, now: Millis) -> Self {
        let id = Id::new(Self::KIND, now);
        let name = name.to_owned();
        Self { id, name, models, effective_from: now, created_at: now, none: Nothing }
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A part of the tree. Written `everything` or `team:team_...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All organisations: the deployment itself.
    Everything,
    /// One organisation.
    Organisation(Id),
    /// One team.
    Team(Id),
    /// One project.
    Project(Id),
    /// One person or service.
    User(Id),
    /// One key.
    Key(Id),
}

/// A scope that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a scope; write everything, organisation:ID, team:ID, project:ID, user:ID or key:ID"
)]
pub struct NotScope(String);

impl FromStr for Scope {
    type Err = NotScope;

    fn from_str(text: &str) -> Result<Self, NotScope> {
        let wrong = || NotScope(text.chars().take(80).collect());
        if text == "everything" {
            return Ok(Self::Everything);
        }
        let (kind, id) = text.split_once(':').ok_or_else(wrong)?;
        let id = Id::of(id).ok_or_else(wrong)?;
        match kind {
            "organisation" => Ok(Self::Organisation(id)),
            "team" => Ok(Self::Team(id)),
            "project" => Ok(Self::Project(id)),
            "user" => Ok(Self::User(id)),
            "key" => Ok(Self::Key(id)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Organisation(id) => write!(f, "organisation:{id}"),
            Self::Team(id) => write!(f, "team:{id}"),
            Self::Project(id) => write!(f, "project:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_written() {
        let id = Id::of("team_1").expect("an id");
        for (text, scope) in [
            ("everything", Scope::Everything),
            ("team:team_1", Scope::Team(id.clone())),
            ("key:team_1", Scope::Key(id)),
        ] {
            assert_eq!(text.parse::<Scope>().as_ref(), Ok(&scope));
            assert_eq!(scope.to_string(), text);
        }
        for wrong in ["", "team", "team:", "teams:team_1", "team:a b", "Everything"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }
}
