//! People: `/Users`. A provider's word on whether somebody works there counts when it changes, so
//! that whom an administrator has disabled stays out while the provider repeats itself.

use std::collections::HashMap;
use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::{Entity as _, Grant, Key, Provisioned, User};
use govern::identity::mapping::{follow, groups_of};
use govern::identity::session::Sessions;
use govern::role::no_wider;
use govern::store::documents::Edit;
use govern::{Id, Millis, Scope};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Problem};
use super::asked::{Asked, shown};
use super::filter::{Filter, member, truth};
use super::list::{narrowed, page, time};
use super::{BASE, patch as operations};

const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const NAME_LETTERS_MAX: usize = 254;
const ATTRIBUTES_BYTES_MAX: usize = 16 << 10;

/// What the server says of a user by itself, or keeps in fields of its own.
const OWN: [&str; 8] =
    ["schemas", "id", "meta", "groups", "userName", "externalId", "active", "password"];

/// The people of the caller's organisation.
pub(super) fn all<'d>(asked: &Asked, directory: &'d Directory) -> Vec<&'d Arc<User>> {
    let here = |user: &&Arc<User>| user.organisation == *asked.organisation() && !user.service;
    directory.users().filter(here).collect()
}

fn one<'d>(asked: &Asked, directory: &'d Directory) -> Result<&'d Arc<User>, Problem> {
    let here = |user: &&Arc<User>| user.organisation == *asked.organisation() && !user.service;
    directory.user(&asked.id).filter(here).ok_or_else(Problem::hidden)
}

fn user_name(user: &User) -> &str {
    user.provisioned.as_ref().map_or(&user.email, |kept| &kept.user_name)
}

fn external_id(user: &User) -> Option<&str> {
    user.provisioned.as_ref()?.external_id.as_deref()
}

/// A user as SCIM shows one.
pub(super) fn resource(directory: &Directory, user: &User) -> Value {
    let kept = user.provisioned.as_ref();
    let mut resource = kept.map(|kept| kept.attributes.clone()).unwrap_or_default();
    let mut schemas = vec![json!(SCHEMA)];
    schemas.extend(resource.keys().filter(|name| name.starts_with("urn:")).map(|urn| json!(urn)));
    resource.insert("schemas".to_owned(), json!(schemas));
    resource.insert("id".to_owned(), json!(user.id));
    resource.insert("userName".to_owned(), json!(user_name(user)));
    resource.insert("active".to_owned(), json!(!user.disabled));
    if let Some(external) = external_id(user) {
        resource.insert("externalId".to_owned(), json!(external));
    }
    if kept.is_none() {
        resource.insert("emails".to_owned(), json!([{ "value": user.email, "primary": true }]));
        resource.insert("displayName".to_owned(), json!(user.name));
    }
    let groups = kept.into_iter().flat_map(|kept| &kept.groups);
    let groups = groups.filter_map(|id| directory.group(id)).map(|group| {
        let at = format!("{BASE}/Groups/{}", group.id);
        json!({ "value": group.id, "display": group.name, "$ref": at })
    });
    resource.insert("groups".to_owned(), groups.collect());
    let modified = kept.map_or(user.created_at, |kept| kept.modified_at);
    resource.insert(
        "meta".to_owned(),
        json!({
            "resourceType": "User",
            "created": time(user.created_at),
            "lastModified": time(modified),
            "location": format!("{BASE}/Users/{}", user.id),
        }),
    );
    Value::Object(resource)
}

pub(super) async fn list(asked: Asked) -> Result<Answer, Problem> {
    let directory = asked.governor.directory();
    asked.judge(&directory)?;
    let filter = asked.parameter("filter").map(Filter::read).transpose()?;
    let found = matching(&asked, &directory, filter.as_ref());
    page(&asked, &found, |user| resource(&directory, user)).map(Answer::Found)
}

/// The same with a body in the place of parameters.
pub(super) async fn search(asked: Asked) -> Result<Answer, Problem> {
    list(asked.searched()?).await
}

/// Those that a filter lets pass.
pub(super) fn matching<'d>(
    asked: &Asked,
    directory: &'d Directory,
    filter: Option<&Filter>,
) -> Vec<&'d Arc<User>> {
    let mut found = all(asked, directory);
    if let Some(filter) = filter {
        // What providers ask all day is answered without showing everybody.
        if let Some(name) = filter.wants("userName") {
            let name = name.to_lowercase();
            found.retain(|user| user_name(user).to_lowercase() == name);
        }
        if let Some(id) = filter.wants("id") {
            found.retain(|user| user.id.as_str() == id);
        }
        if let Some(id) = filter.wants("externalId") {
            found.retain(|user| external_id(user) == Some(id));
        }
        found.retain(|user| filter.passes(&resource(directory, user)));
    }
    found
}

pub(super) async fn get(asked: Asked) -> Result<Answer, Problem> {
    let directory = asked.governor.directory();
    asked.judge(&directory)?;
    let user = one(&asked, &directory)?;
    Ok(Answer::Found(narrowed(&asked, resource(&directory, user))))
}

pub(super) async fn create(asked: Asked) -> Result<Answer, Problem> {
    let made = asked.governor.edit(|directory, now| {
        asked.judge(directory)?;
        let new = User {
            id: Id::new(User::KIND, now),
            organisation: asked.organisation().clone(),
            created_at: now,
            ..User::default()
        };
        let user = changed(&asked, directory, &new, &asked.body, now)?;
        let note =
            asked.note(now, "users.create", &json!({ "target": user.id, "after": shown(&user) }));
        Ok::<_, Problem>((vec![Edit::put(&user)], note, user))
    });
    let user = made.await?;
    Ok(Answer::Made(resource(&asked.governor.directory(), &user)))
}

pub(super) async fn replace(asked: Asked) -> Result<Answer, Problem> {
    change(&asked, "users.replace", |_, _| Ok(asked.body.clone())).await
}

pub(super) async fn patch(asked: Asked) -> Result<Answer, Problem> {
    change(&asked, "users.change", |directory, user| {
        let mut whole = resource(directory, user);
        operations::apply(&mut whole, &asked.body)?;
        Ok(whole)
    })
    .await
}

async fn change(
    asked: &Asked,
    action: &str,
    wanted: impl FnOnce(&Directory, &User) -> Result<Value, Problem>,
) -> Result<Answer, Problem> {
    let made = asked.governor.edit(|directory, now| {
        asked.judge(directory)?;
        let old = one(asked, directory)?;
        let user = changed(asked, directory, old, &wanted(directory, old)?, now)?;
        let note = asked.note(
            now,
            action,
            &json!({ "target": user.id, "before": shown(old), "after": shown(&user) }),
        );
        Ok::<_, Problem>((vec![Edit::put(&user)], note, user))
    });
    let user = made.await?;
    if user.disabled {
        Sessions::of(asked.governor.store()).end_all(&user.id).await?;
    }
    Ok(Answer::Found(narrowed(asked, resource(&asked.governor.directory(), &user))))
}

/// A user goes with all that is theirs: keys are revoked, budgets deleted. What was used stays in
/// the ledger.
pub(super) async fn delete(asked: Asked) -> Result<Answer, Problem> {
    let made = asked.governor.edit(|directory, now| {
        asked.judge(directory)?;
        let user = one(&asked, directory)?;
        may_change_address(&asked, directory, user)?;
        let mut edits = Vec::new();
        for key in directory.keys().filter(|key| key.user.as_ref() == Some(&user.id)) {
            let revoked = Some(key.revoked_at.map_or(now, |at| at.min(now)));
            edits.push(Edit::put(&Key { revoked_at: revoked, ..Key::clone(key) }));
        }
        let scope = Scope::User(user.id.clone());
        let budgets = directory.budgets().filter(|budget| budget.scope == scope);
        edits.extend(budgets.map(|budget| Edit::delete(&**budget)));
        edits.push(Edit::delete(&**user));
        let note =
            asked.note(now, "users.delete", &json!({ "target": user.id, "before": shown(user) }));
        Ok::<_, Problem>((edits, note, ()))
    });
    made.await?;
    Sessions::of(asked.governor.store()).end_all(&asked.id).await?;
    Ok(Answer::Gone)
}

/// A user as a resource says they are to be.
fn changed(
    asked: &Asked,
    directory: &Directory,
    old: &User,
    wanted: &Value,
    now: Millis,
) -> Result<User, Problem> {
    let Some(wanted_fields) = wanted.as_object() else {
        return Err(Problem::wrong("invalidSyntax", "The body is an object."));
    };
    let text = |name: &str| match member(wanted, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if plain(text) => Ok(Some(text.trim().to_owned())),
        Some(_) => {
            let why = format!("'{name}' is a text of 1 to {NAME_LETTERS_MAX} characters.");
            Err(Problem::value(why))
        }
    };
    let user_name = text("userName")?.ok_or_else(|| Problem::value("'userName' is missing."))?;
    let active = match member(wanted, "active") {
        None | Some(Value::Null) => true,
        Some(value) => truth(value).ok_or_else(|| Problem::value("'active' is true or false."))?,
    };
    let attributes: Map<String, Value> = wanted_fields
        .iter()
        .filter(|(name, value)| {
            !value.is_null() && !OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if json!(attributes).to_string().len() > ATTRIBUTES_BYTES_MAX {
        let why = format!("All attributes together are at most {ATTRIBUTES_BYTES_MAX} bytes.");
        return Err(Problem::value(why));
    }
    let email = address(wanted).unwrap_or_else(|| user_name.clone());
    if !plain(&email) {
        return Err(Problem::value("The address is too long, or is none."));
    }
    unique(asked, directory, old, [&user_name, &email])?;
    let before = old.provisioned.as_ref();
    let mut user = old.clone();
    if !old.email.is_empty() && !old.email.eq_ignore_ascii_case(&email) {
        may_change_address(asked, directory, old)?;
    }
    user.email = email;
    user.name = display(wanted).unwrap_or_default();
    if before.map_or(!old.disabled, |kept| kept.active) != active {
        user.disabled = !active;
    }
    user.provisioned = Some(Provisioned {
        user_name,
        external_id: text("externalId")?,
        active,
        groups: before.map(|kept| kept.groups.clone()).unwrap_or_default(),
        attributes,
        modified_at: now,
    });
    Ok(user)
}

fn plain(text: &str) -> bool {
    let letters = text.trim().chars().count();
    (1..=NAME_LETTERS_MAX).contains(&letters) && !text.chars().any(char::is_control)
}

/// The primary address, else the first; in small letters, as signing in has it.
fn address(wanted: &Value) -> Option<String> {
    let emails = member(wanted, "emails")?.as_array()?;
    let primary = |one: &&Value| member(one, "primary").and_then(truth) == Some(true);
    let chosen = emails.iter().find(primary).or_else(|| emails.first())?;
    let text = member(chosen, "value")?.as_str()?.trim().to_lowercase();
    (!text.is_empty()).then_some(text)
}

fn display(wanted: &Value) -> Option<String> {
    let name = member(wanted, "name");
    let part = |name_of: &str| name.and_then(|name| member(name, name_of)?.as_str());
    let whole = member(wanted, "displayName").and_then(Value::as_str).or(part("formatted"));
    let parts = || match (part("givenName"), part("familyName")) {
        (Some(given), Some(family)) => Some(format!("{given} {family}")),
        (one, other) => one.or(other).map(str::to_owned),
    };
    let text = whole.map(str::to_owned).or_else(parts)?;
    let text: String = text.chars().filter(|c| !c.is_control()).take(128).collect();
    Some(text.trim().to_owned())
}

/// No two people of an organisation have one name, or one address.
fn unique(
    asked: &Asked,
    directory: &Directory,
    old: &User,
    names: [&String; 2],
) -> Result<(), Problem> {
    let names = names.map(|name| name.to_lowercase());
    let taken = |user: &&Arc<User>| {
        let theirs = [user_name(user), &user.email].map(str::to_lowercase);
        user.organisation == *asked.organisation()
            && user.id != old.id
            && theirs.iter().any(|name| names.contains(name))
    };
    match directory.users().find(taken) {
        Some(_) => Err(Problem::taken("Another user has this userName or address.")),
        None => Ok(()),
    }
}

/// Whoever gives an account another address may sign in as that person: only who may do all that
/// the person may do does so, beside what the mapping gives by groups anyway.
fn may_change_address(asked: &Asked, directory: &Directory, user: &User) -> Result<(), Problem> {
    let given = |grant: &Grant| asked.rules().iter().any(|rule| rule.grant.as_ref() == Some(grant));
    let own: Vec<Grant> = user.grants.iter().filter(|grant| !given(grant)).cloned().collect();
    no_wider(directory, &asked.grants(directory), &own)
        .map_err(|why| Problem::new(403, format!("Nobody becomes more than they are: {why}.")))
}

/// Puts people into groups and takes them out: `wanted` says for each of those who are touched
/// which groups they are in from now on. Teams and roles follow.
pub(super) fn regrouped(
    asked: &Asked,
    directory: &Directory,
    touched: &HashMap<Id, Vec<Id>>,
    renamed: Option<(&Id, &str)>,
    now: Millis,
) -> Vec<User> {
    let name_of = |id: &Id| match renamed {
        Some((group, name)) if group == id => Some(name.to_owned()),
        _ => directory.group(id).map(|group| group.name.clone()),
    };
    let one = |(id, groups): (&Id, &Vec<Id>)| {
        let old = directory.user(id)?;
        let before = groups_of(directory, old);
        let after: Vec<String> = groups.iter().filter_map(name_of).collect();
        let mut user = User::clone(old);
        let mut kept = old.provisioned.clone().unwrap_or_else(|| Provisioned {
            user_name: old.email.clone(),
            active: !old.disabled,
            ..Provisioned::default()
        });
        kept.groups.clone_from(groups);
        kept.modified_at = now;
        user.provisioned = Some(kept);
        // Rules of groups that SCIM does not speak of are left to signing in.
        let spoken = |name: &String| before.contains(name) || after.contains(name);
        let rules: Vec<_> =
            asked.rules().iter().filter(|rule| spoken(&rule.group)).cloned().collect();
        let names: Vec<&str> = after.iter().map(String::as_str).collect();
        follow(directory, asked.organisation(), &rules, &names, &mut user);
        Some(user)
    };
    touched.iter().filter_map(one).collect()
}
