//! PATCH (RFC 7644, 3.5.2) over a resource as JSON, with what Okta and Entra ID make of it:
//! operations in capitals, no path, dotted names in a value without a path, and
//! `members[value eq "..."]`.

use serde_json::{Map, Value};

use super::answer::Problem;
use super::filter::{Filter, member};

/// Operations in one request.
const OPERATIONS_MAX: usize = 1000;

/// Does all operations of a body to a resource.
///
/// # Errors
/// The first that cannot be done; the resource is not to be used then.
pub(super) fn apply(resource: &mut Value, body: &Value) -> Result<(), Problem> {
    let operations = member(body, "Operations").and_then(Value::as_array);
    let operations = operations
        .filter(|all| (1..=OPERATIONS_MAX).contains(&all.len()))
        .ok_or_else(|| Problem::wrong("invalidSyntax", "'Operations' is a list of 1 to 1000."))?;
    for operation in operations {
        let word = member(operation, "op").and_then(Value::as_str).unwrap_or_default();
        let how = match word.to_ascii_lowercase().as_str() {
            "add" => How::Add,
            "replace" => How::Replace,
            "remove" => How::Remove,
            _ => return Err(Problem::wrong("invalidSyntax", "'op' is add, replace or remove.")),
        };
        let value = member(operation, "value").cloned().unwrap_or(Value::Null);
        match (member(operation, "path").and_then(Value::as_str), value) {
            (Some(path), value) => at_path(resource, &Path::read(path)?, how, value)?,
            (None, Value::Object(values)) if how != How::Remove => {
                for (name, value) in values {
                    at_path(resource, &Path::read(&name)?, how, value)?;
                }
            }
            (None, _) => {
                return Err(Problem::wrong("noTarget", "Without a path 'value' is an object."));
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Add,
    Replace,
    Remove,
}

/// `urn:...:User:attribute[filter].part`.
struct Path {
    /// The extension that the attribute belongs to.
    extension: Option<String>,
    /// Empty: the extension itself.
    attribute: String,
    filter: Option<Filter>,
    part: Option<String>,
}

impl Path {
    fn read(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            let shown: String = text.chars().take(100).collect();
            Problem::wrong("invalidPath", format!("The path '{shown}' cannot be read."))
        };
        let text = text.trim();
        let (head, tail) = match text.split_once('[') {
            Some((head, rest)) => {
                let (filter, tail) = rest.rsplit_once(']').ok_or_else(wrong)?;
                (head, Some((filter, tail)))
            }
            None => (text, None),
        };
        let (extension, name) = extension(head);
        let (attribute, dotted) = match name.split_once('.') {
            Some((attribute, part)) => (attribute, Some(part)),
            None => (name, None),
        };
        let (filter, part) = match tail {
            Some((filter, tail)) => {
                let part = match tail {
                    "" => None,
                    tail => Some(tail.strip_prefix('.').ok_or_else(wrong)?),
                };
                (Some(Filter::read(filter)?), part)
            }
            None => (None, dotted),
        };
        let plain = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-$".contains(&b))
        };
        let named = plain(attribute) || (attribute.is_empty() && extension.is_some());
        if !named || !part.is_none_or(plain) {
            return Err(wrong());
        }
        Ok(Self {
            extension,
            attribute: attribute.to_owned(),
            filter,
            part: part.map(str::to_owned),
        })
    }
}

/// The extension of a name that is written whole, and the rest. The core schema is none.
fn extension(name: &str) -> (Option<String>, &str) {
    if !name.to_ascii_lowercase().starts_with("urn:") {
        return (None, name);
    }
    if let Some((schema, rest)) = name.rsplit_once(':') {
        if schema.to_ascii_lowercase().contains(":schemas:core:") {
            return (None, rest);
        }
        // The version has a point in it: behind it stands `:User` and then the attribute.
        if !["User", "Group"].contains(&rest) {
            return (Some(schema.to_owned()), rest);
        }
    }
    (Some(name.to_owned()), "")
}

/// The member of this name; made where it is missing, under the name as it is written.
fn slot<'v>(value: &'v mut Value, name: &str) -> &'v mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let known = value
        .as_object()
        .and_then(|object| object.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned());
    &mut value[known.unwrap_or_else(|| name.to_owned())]
}

fn take(value: &mut Value, name: &str) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|known, _| !known.eq_ignore_ascii_case(name));
    }
}

fn at_path(resource: &mut Value, path: &Path, how: How, value: Value) -> Result<(), Problem> {
    let home = match &path.extension {
        Some(extension) => slot(resource, extension),
        None => resource,
    };
    if path.attribute.is_empty() {
        match how {
            How::Remove => *home = Value::Null,
            How::Add | How::Replace => merge(home, value),
        }
        return Ok(());
    }
    if let Some(filter) = &path.filter {
        return filtered(slot(home, &path.attribute), filter, path.part.as_deref(), how, value);
    }
    let Some(part) = &path.part else {
        match (how, slot(home, &path.attribute), value) {
            // Entra ID names those who leave in the value.
            (How::Remove, Value::Array(all), Value::Array(gone)) => {
                all.retain(|one| !gone.iter().any(|gone| same(gone, one)));
            }
            (How::Remove, _, _) => take(home, &path.attribute),
            (How::Add, Value::Array(all), value) => join(all, value),
            (How::Add, slot @ Value::Object(_), value @ Value::Object(_)) => merge(slot, value),
            (How::Replace, slot @ Value::Object(_), value @ Value::Object(_)) => merge(slot, value),
            (_, slot, value) => *slot = value,
        }
        return Ok(());
    };
    let parent = slot(home, &path.attribute);
    match parent {
        Value::Array(all) => all.iter_mut().for_each(|one| set(one, part, how, value.clone())),
        one => set(one, part, how, value),
    }
    Ok(())
}

/// What a filter finds among several values. Where it finds none, one is made of what it says, as
/// Entra ID expects of `emails[type eq "work"].value`.
fn filtered(
    slot: &mut Value,
    filter: &Filter,
    part: Option<&str>,
    how: How,
    value: Value,
) -> Result<(), Problem> {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(all) = slot else { return Ok(()) };
    if how == How::Remove && part.is_none() {
        all.retain(|one| !filter.passes(one));
        return Ok(());
    }
    let mut found = false;
    for one in all.iter_mut().filter(|one| filter.passes(one)) {
        found = true;
        match part {
            Some(part) => set(one, part, how, value.clone()),
            None => merge(one, value.clone()),
        }
    }
    if found || how == How::Remove {
        return Ok(());
    }
    let mut made = Value::Object(Map::new());
    for one in &filter.0 {
        set(&mut made, &one.attribute, How::Replace, one.value.clone());
    }
    match part {
        Some(part) => set(&mut made, part, how, value),
        None => merge(&mut made, value),
    }
    all.push(made);
    Ok(())
}

fn set(one: &mut Value, part: &str, how: How, value: Value) {
    match how {
        How::Remove => take(one, part),
        How::Add | How::Replace => *slot(one, part) = value,
    }
}

/// Lays the members of one object over another's.
fn merge(into: &mut Value, value: Value) {
    match value {
        Value::Object(values) => {
            for (name, value) in values {
                *slot(into, &name) = value;
            }
        }
        value => *into = value,
    }
}

/// Adds values that are not there yet.
fn join(all: &mut Vec<Value>, value: Value) {
    let new = match value {
        Value::Array(new) => new,
        one => vec![one],
    };
    // Ten thousand members join ten thousand: looked up, not compared each with each.
    let key = |one: &Value| member(one, "value").unwrap_or(one).to_string();
    let mut known: std::collections::HashSet<String> = all.iter().map(key).collect();
    for one in new {
        if known.insert(key(&one)) {
            all.push(one);
        }
    }
}

/// Whether two values of a list are the same one: by their `value`, where they have one.
fn same(one: &Value, other: &Value) -> bool {
    let key = |value: &Value| member(value, "value").unwrap_or(value).clone();
    key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(operations: &Value, expect: Result<Value, ()>) {
        let mut resource = json!({
            "userName": "ann", "active": true, "name": { "givenName": "Ann" },
            "emails": [{ "type": "work", "value": "ann@a" }, { "type": "home", "value": "ann@b" }],
            "members": [{ "value": "1" }, { "value": "2" }],
        });
        let before = resource.clone();
        let done = apply(&mut resource, &json!({ "Operations": operations }));
        let expect = expect.map(|changes| {
            let mut whole = before;
            for (name, value) in changes.as_object().expect("changes") {
                if value.is_null() {
                    whole.as_object_mut().expect("an object").remove(name);
                } else {
                    whole[name] = value.clone();
                }
            }
            whole
        });
        assert_eq!(done.map(|()| resource).map_err(drop), expect, "{operations}");
    }

    #[test]
    fn what_providers_send() {
        let off = json!({ "active": "False" });
        check(&json!([{ "op": "Replace", "path": "active", "value": "False" }]), Ok(off.clone()));
        check(&json!([{ "op": "replace", "value": { "Active": "False" } }]), Ok(off));
        check(
            &json!([{ "op": "add", "value": { "name.familyName": "Lee", "title": "Dr" } }]),
            Ok(json!({ "name": { "givenName": "Ann", "familyName": "Lee" }, "title": "Dr" })),
        );
        check(
            &json!([{ "op": "Replace", "path": "emails[type eq \"work\"].value", "value": "x@a" }]),
            Ok(json!({ "emails": [
                { "type": "work", "value": "x@a" }, { "type": "home", "value": "ann@b" }] })),
        );
        check(
            &json!([{ "op": "Add", "path": "phoneNumbers[type eq \"work\"].value", "value": "1" }]),
            Ok(json!({ "phoneNumbers": [{ "type": "work", "value": "1" }] })),
        );
        let urn = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
        check(
            &json!([{ "op": "Add", "path": format!("{urn}:department"), "value": "ml" }]),
            Ok(json!({ urn: { "department": "ml" } })),
        );
        check(
            &json!([{ "op": "replace", "value": { urn: { "department": "ml" } } }]),
            Ok(json!({ urn: { "department": "ml" } })),
        );
        let core = "urn:ietf:params:scim:schemas:core:2.0:User:userName";
        check(
            &json!([{ "op": "replace", "path": core, "value": "bob" }]),
            Ok(json!({ "userName": "bob" })),
        );
    }

    #[test]
    fn members_join_and_leave() {
        let two = |one: &str, other: &str| {
            Ok(json!({ "members": [{ "value": one }, { "value": other }] }))
        };
        check(
            &json!([{ "op": "Add", "path": "members", "value": [{ "value": "2" }] }]),
            two("1", "2"),
        );
        check(
            &json!([{ "op": "remove", "path": "members[value eq \"1\"]" },
                   { "op": "add", "path": "members", "value": [{ "value": "3" }] }]),
            two("2", "3"),
        );
        check(
            &json!([{ "op": "Remove", "path": "members", "value": [{ "value": "1" }] }]),
            Ok(json!({ "members": [{ "value": "2" }] })),
        );
        check(&json!([{ "op": "remove", "path": "members" }]), Ok(json!({ "members": null })));
        check(
            &json!([{ "op": "replace", "path": "members", "value": [{ "value": "9" }] }]),
            Ok(json!({ "members": [{ "value": "9" }] })),
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for wrong in [
            json!([]),
            json!("x"),
            json!([{ "op": "move", "path": "active" }]),
            json!([{ "op": "remove" }]),
            json!([{ "op": "add", "value": 7 }]),
            json!([{ "op": "add", "path": "a b", "value": 7 }]),
            json!([{ "op": "add", "path": "emails[type", "value": 7 }]),
            json!([{ "op": "add", "path": "emails[]", "value": 7 }]),
            json!([{ "op": "add", "path": "", "value": 7 }]),
            json!([{ "op": "add", "path": "a.b.c", "value": 7 }]),
        ] {
            check(&wrong, Err(()));
        }
    }
}
