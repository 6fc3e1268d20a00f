//! What this server knows of SCIM, for clients that ask: configuration, resource types, schemas.

use serde_json::{Value, json};

use super::BASE;
use super::answer::{Answer, Problem};
use super::asked::Asked;
use super::list::{COUNT_MAX, page};

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

pub(super) async fn config(asked: Asked) -> Result<Answer, Problem> {
    asked.judge(&asked.governor.directory())?;
    let no = json!({ "supported": false });
    Ok(Answer::Found(json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": COUNT_MAX },
        "changePassword": no,
        "sort": no,
        "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "A key with the role provisioner.",
            "primary": true,
        }],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": format!("{BASE}/ServiceProviderConfig"),
        },
    })))
}

fn resource_types() -> Vec<Value> {
    let one = |name: &str, schema: &str, extensions: Value| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": format!("/{name}s"),
            "schema": schema,
            "schemaExtensions": extensions,
            "meta": {
                "resourceType": "ResourceType",
                "location": format!("{BASE}/ResourceTypes/{name}"),
            },
        })
    };
    let enterprise = json!([{ "schema": ENTERPRISE, "required": false }]);
    vec![one("User", USER, enterprise), one("Group", GROUP, json!([]))]
}

pub(super) async fn types(asked: Asked) -> Result<Answer, Problem> {
    listed(&asked, &resource_types())
}

pub(super) async fn one_type(asked: Asked) -> Result<Answer, Problem> {
    named(&asked, &resource_types())
}

pub(super) async fn all(asked: Asked) -> Result<Answer, Problem> {
    listed(&asked, &schemas())
}

pub(super) async fn one(asked: Asked) -> Result<Answer, Problem> {
    named(&asked, &schemas())
}

fn listed(asked: &Asked, all: &[Value]) -> Result<Answer, Problem> {
    asked.judge(&asked.governor.directory())?;
    page(asked, all, Clone::clone).map(Answer::Found)
}

fn named(asked: &Asked, all: &[Value]) -> Result<Answer, Problem> {
    asked.judge(&asked.governor.directory())?;
    let found = all.iter().find(|one| one["id"].as_str() == Some(asked.name()));
    found.cloned().map(Answer::Found).ok_or_else(Problem::hidden)
}

/// An attribute, as schemas describe one.
fn attribute(name: &str, kind: &str, rest: &[(&str, Value)]) -> Value {
    let mut made = json!({
        "name": name,
        "type": kind,
        "multiValued": false,
        "description": name,
        "required": false,
        "mutability": "readWrite",
        "returned": "default",
    });
    if kind == "string" {
        made["caseExact"] = json!(false);
        made["uniqueness"] = json!("none");
    }
    for (name, value) in rest {
        made[*name] = value.clone();
    }
    made
}

fn texts(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| attribute(name, "string", &[])).collect()
}

/// A list of things such as addresses.
fn several(name: &str) -> Value {
    let mut parts = texts(&["value", "display", "type"]);
    parts.push(attribute("primary", "boolean", &[]));
    attribute(name, "complex", &[("multiValued", json!(true)), ("subAttributes", json!(parts))])
}

fn references(name: &str, to: &str, mutability: &str) -> Value {
    let fixed = if mutability == "readOnly" { "readOnly" } else { "immutable" };
    let fixed = |kind: &str, part: &str| attribute(part, kind, &[("mutability", json!(fixed))]);
    // What the server knows of them by itself.
    let told = |part: &str| attribute(part, "string", &[("mutability", json!("readOnly"))]);
    let mut reference = fixed("reference", "$ref");
    reference["referenceTypes"] = json!([to]);
    let parts = json!([fixed("string", "value"), reference, told("display"), told("type"),]);
    attribute(
        name,
        "complex",
        &[
            ("multiValued", json!(true)),
            ("mutability", json!(mutability)),
            ("subAttributes", parts),
        ],
    )
}

fn schemas() -> Vec<Value> {
    let schema = |id: &str, name: &str, attributes: Vec<Value>| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": id,
            "name": name,
            "description": name,
            "attributes": attributes,
            "meta": { "resourceType": "Schema", "location": format!("{BASE}/Schemas/{id}") },
        })
    };
    let needed = ("required", json!(true));
    let unique = ("uniqueness", json!("server"));
    let names = texts(&[
        "formatted",
        "familyName",
        "givenName",
        "middleName",
        "honorificPrefix",
        "honorificSuffix",
    ]);
    let mut user = vec![
        attribute("userName", "string", &[needed.clone(), unique.clone()]),
        attribute("name", "complex", &[("subAttributes", json!(names))]),
        attribute("active", "boolean", &[]),
        several("emails"),
        several("phoneNumbers"),
        references("groups", "Group", "readOnly"),
    ];
    user.extend(texts(&[
        "displayName",
        "nickName",
        "title",
        "userType",
        "preferredLanguage",
        "locale",
        "timezone",
    ]));
    let group = vec![
        attribute("displayName", "string", &[needed, unique]),
        references("members", "User", "readWrite"),
    ];
    let manager = attribute(
        "manager",
        "complex",
        &[("subAttributes", json!(texts(&["value", "displayName"])))],
    );
    let mut enterprise =
        texts(&["employeeNumber", "costCenter", "organization", "division", "department"]);
    enterprise.push(manager);
    vec![
        schema(USER, "User", user),
        schema(GROUP, "Group", group),
        schema(ENTERPRISE, "EnterpriseUser", enterprise),
    ]
}
