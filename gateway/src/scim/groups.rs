//! Groups: `/Groups`. Who is in one stands with the people, so that one who joins or leaves is one
//! document; what it means says the mapping of the sign-in file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::{Entity as _, Group, User};
use govern::store::documents::Edit;
use govern::{Id, Millis};
use serde_json::{Value, json};

use super::answer::{Answer, Problem};
use super::asked::Asked;
use super::filter::{Filter, member};
use super::list::{narrowed, page, time};
use super::users;
use super::{BASE, patch as operations};

const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const NAME_LETTERS_MAX: usize = 256;
/// Of an organisation: the rules of sign-in look at no more.
const GROUPS_MAX: usize = 10_000;
/// That one person is in.
const GROUPS_OF_ONE_MAX: usize = 1024;

/// Who is in which group, looked up once for all.
type Members<'d> = HashMap<&'d Id, Vec<&'d Arc<User>>>;

fn members<'d>(asked: &Asked, directory: &'d Directory) -> Members<'d> {
    let mut members: Members<'d> = HashMap::new();
    for user in users::all(asked, directory) {
        for group in user.provisioned.iter().flat_map(|kept| &kept.groups) {
            members.entry(group).or_default().push(user);
        }
    }
    members
}

fn one<'d>(asked: &Asked, directory: &'d Directory) -> Result<&'d Arc<Group>, Problem> {
    let found = directory.group(&asked.id);
    found.filter(|group| group.organisation == *asked.organisation()).ok_or_else(Problem::hidden)
}

fn resource(group: &Group, members: &Members<'_>) -> Value {
    let people = members.get(&group.id).map_or(&[][..], Vec::as_slice);
    let people = people.iter().map(|user| {
        json!({ "value": user.id, "display": user.email, "type": "User",
            "$ref": format!("{BASE}/Users/{}", user.id) })
    });
    let mut resource = json!({
        "schemas": [SCHEMA],
        "id": group.id,
        "displayName": group.name,
        "members": people.collect::<Vec<_>>(),
        "meta": {
            "resourceType": "Group",
            "created": time(group.created_at),
            "lastModified": time(group.modified_at),
            "location": format!("{BASE}/Groups/{}", group.id),
        },
    });
    if let Some(external) = &group.external_id {
        resource["externalId"] = json!(external);
    }
    resource
}

fn all<'d>(asked: &Asked, directory: &'d Directory) -> Vec<&'d Arc<Group>> {
    directory.groups().filter(|group| group.organisation == *asked.organisation()).collect()
}

pub(super) async fn list(asked: Asked) -> Result<Answer, Problem> {
    let directory = asked.governor.directory();
    asked.judge(&directory)?;
    let filter = asked.parameter("filter").map(Filter::read).transpose()?;
    let members = members(&asked, &directory);
    let found = matching(&asked, &directory, filter.as_ref(), &members);
    page(&asked, &found, |group| resource(group, &members)).map(Answer::Found)
}

/// The same with a body in the place of parameters.
pub(super) async fn search(asked: Asked) -> Result<Answer, Problem> {
    list(asked.searched()?).await
}

/// People and groups together.
pub(super) async fn search_all(asked: Asked) -> Result<Answer, Problem> {
    let asked = asked.searched()?;
    let directory = asked.governor.directory();
    asked.judge(&directory)?;
    let filter = asked.parameter("filter").map(Filter::read).transpose()?;
    let members = members(&asked, &directory);
    let people = users::matching(&asked, &directory, filter.as_ref());
    let groups = matching(&asked, &directory, filter.as_ref(), &members);
    let people = people.into_iter().map(Either::User);
    let all: Vec<Either<'_>> = people.chain(groups.into_iter().map(Either::Group)).collect();
    page(&asked, &all, |one| match one {
        Either::User(user) => users::resource(&directory, user),
        Either::Group(group) => resource(group, &members),
    })
    .map(Answer::Found)
}

enum Either<'d> {
    User(&'d Arc<User>),
    Group(&'d Arc<Group>),
}

/// Those that a filter lets pass.
fn matching<'d>(
    asked: &Asked,
    directory: &'d Directory,
    filter: Option<&Filter>,
    members: &Members<'_>,
) -> Vec<&'d Arc<Group>> {
    let mut found = all(asked, directory);
    if let Some(filter) = filter {
        if let Some(name) = filter.wants("displayName") {
            let name = name.to_lowercase();
            found.retain(|group| group.name.to_lowercase() == name);
        }
        found.retain(|group| filter.passes(&resource(group, members)));
    }
    found
}

pub(super) async fn get(asked: Asked) -> Result<Answer, Problem> {
    found(&asked)
}

fn found(asked: &Asked) -> Result<Answer, Problem> {
    let directory = asked.governor.directory();
    asked.judge(&directory)?;
    let group = one(asked, &directory)?;
    let whole = resource(group, &members(asked, &directory));
    Ok(Answer::Found(narrowed(asked, whole)))
}

pub(super) async fn create(asked: Asked) -> Result<Answer, Problem> {
    let made = asked.governor.edit(|directory, now| {
        asked.judge(directory)?;
        if all(&asked, directory).len() >= GROUPS_MAX {
            return Err(Problem::value(format!("There are at most {GROUPS_MAX} groups.")));
        }
        let new = Group {
            id: Id::new(Group::KIND, now),
            organisation: asked.organisation().clone(),
            created_at: now,
            ..Group::default()
        };
        let (edits, group) = changed(&asked, directory, &new, &asked.body, now)?;
        let more = json!({ "target": group.id, "after": group, "people": edits.len() - 1 });
        Ok::<_, Problem>((edits, asked.note(now, "groups.create", &more), group.id))
    });
    let id = made.await?;
    let directory = asked.governor.directory();
    let group = directory.group(&id).ok_or_else(Problem::hidden)?;
    Ok(Answer::Made(resource(group, &members(&asked, &directory))))
}

pub(super) async fn replace(asked: Asked) -> Result<Answer, Problem> {
    change(&asked, "groups.replace", |_, _| Ok(asked.body.clone())).await
}

pub(super) async fn patch(asked: Asked) -> Result<Answer, Problem> {
    change(&asked, "groups.change", |directory, group| {
        let mut whole = resource(group, &members(&asked, directory));
        operations::apply(&mut whole, &asked.body)?;
        Ok(whole)
    })
    .await
}

async fn change(
    asked: &Asked,
    action: &str,
    wanted: impl FnOnce(&Directory, &Group) -> Result<Value, Problem>,
) -> Result<Answer, Problem> {
    let made = asked.governor.edit(|directory, now| {
        asked.judge(directory)?;
        let old = one(asked, directory)?;
        let (edits, group) = changed(asked, directory, old, &wanted(directory, old)?, now)?;
        let more = json!({ "target": group.id, "before": **old, "after": group,
            "people": edits.len() - 1 });
        Ok::<_, Problem>((edits, asked.note(now, action, &more), ()))
    });
    made.await?;
    found(asked)
}

pub(super) async fn delete(asked: Asked) -> Result<Answer, Problem> {
    let made = asked.governor.edit(|directory, now| {
        asked.judge(directory)?;
        let group = one(&asked, directory)?;
        let mut edits = people(&asked, directory, group, &HashSet::new(), now)?;
        edits.push(Edit::delete(&**group));
        let more = json!({ "target": group.id, "before": **group, "people": edits.len() - 1 });
        Ok::<_, Problem>((edits, asked.note(now, "groups.delete", &more), ()))
    });
    made.await?;
    Ok(Answer::Gone)
}

/// A group as a resource says it is to be, and the people who join or leave it.
fn changed(
    asked: &Asked,
    directory: &Directory,
    old: &Group,
    wanted: &Value,
    now: Millis,
) -> Result<(Vec<Edit>, Group), Problem> {
    let text = |name: &str| match member(wanted, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if plain(text) => Ok(Some(text.trim().to_owned())),
        Some(_) => Err(Problem::value(format!(
            "'{name}' is a text of 1 to {NAME_LETTERS_MAX} characters."
        ))),
    };
    let name = text("displayName")?.ok_or_else(|| Problem::value("'displayName' is missing."))?;
    let same = |group: &&Arc<Group>| {
        group.id != old.id && group.name.to_lowercase() == name.to_lowercase()
    };
    if all(asked, directory).iter().any(same) {
        return Err(Problem::taken("Another group has this displayName."));
    }
    let external_id = text("externalId")?;
    let group = Group { name, external_id, modified_at: now, ..old.clone() };
    let mut inside = HashSet::new();
    let listed = match member(wanted, "members") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(all)) => all.as_slice(),
        Some(_) => return Err(Problem::value("'members' is a list.")),
    };
    for one in listed {
        let id = member(one, "value").and_then(Value::as_str).and_then(Id::of);
        let user = id.as_ref().and_then(|id| directory.user(id));
        let here = |user: &&Arc<User>| user.organisation == *asked.organisation() && !user.service;
        let user = user.filter(here).ok_or_else(|| {
            Problem::value(
                "A member is no user of this organisation; groups in groups are not known.",
            )
        })?;
        inside.insert(user.id.clone());
    }
    let mut edits = people(asked, directory, &group, &inside, now)?;
    edits.push(Edit::put(&group));
    Ok((edits, group))
}

fn plain(text: &str) -> bool {
    let letters = text.trim().chars().count();
    (1..=NAME_LETTERS_MAX).contains(&letters) && !text.chars().any(char::is_control)
}

/// The people whom a group's change concerns, as they are to be: who joins, who leaves, and, where
/// its name is another one, who stays.
fn people(
    asked: &Asked,
    directory: &Directory,
    group: &Group,
    inside: &HashSet<Id>,
    now: Millis,
) -> Result<Vec<Edit>, Problem> {
    let renamed = directory.group(&group.id).is_some_and(|old| old.name != group.name);
    let mut touched = HashMap::new();
    for user in users::all(asked, directory) {
        let groups = user.provisioned.as_ref().map_or(&[][..], |kept| &kept.groups);
        let (was, is) = (groups.contains(&group.id), inside.contains(&user.id));
        if was == is && !(is && renamed) {
            continue;
        }
        let mut groups: Vec<Id> = groups.iter().filter(|id| **id != group.id).cloned().collect();
        if is {
            groups.push(group.id.clone());
        }
        if groups.len() > GROUPS_OF_ONE_MAX {
            let why = format!("Nobody is in more than {GROUPS_OF_ONE_MAX} groups.");
            return Err(Problem::value(why));
        }
        touched.insert(user.id.clone(), groups);
    }
    let named = Some((&group.id, group.name.as_str()));
    let users = users::regrouped(asked, directory, &touched, named, now);
    Ok(users.iter().map(Edit::put).collect())
}
