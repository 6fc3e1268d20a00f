//! Pages of resources, and which of their attributes are shown.

use serde_json::{Value, json};

use super::answer::Problem;
use super::asked::Asked;

const COUNT_USUAL: usize = 100;
/// Most resources on a page.
pub(super) const COUNT_MAX: usize = 1000;

/// The page that was asked for: `startIndex` counts from 1.
pub(super) fn page<T>(
    asked: &Asked,
    all: &[T],
    show: impl Fn(&T) -> Value,
) -> Result<Value, Problem> {
    let number = |name: &str, usual: usize| match asked.parameter(name) {
        None => Ok(usual),
        // Less than the least is the least.
        Some(text) => match text.parse::<i64>() {
            Ok(number) => Ok(usize::try_from(number).unwrap_or(0)),
            Err(_) => Err(Problem::value(format!("'{name}' is a whole number."))),
        },
    };
    let start = number("startIndex", 1)?.max(1);
    let count = number("count", COUNT_USUAL)?.min(COUNT_MAX);
    let page: Vec<Value> =
        all.iter().skip(start - 1).take(count).map(|one| narrowed(asked, show(one))).collect();
    Ok(json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": all.len(),
        "startIndex": start,
        "itemsPerPage": page.len(),
        "Resources": page,
    }))
}

/// A resource with the attributes that were asked for, or without those that were not wanted.
pub(super) fn narrowed(asked: &Asked, mut resource: Value) -> Value {
    let Some(object) = resource.as_object_mut() else { return resource };
    let names = |text: &str| -> Vec<String> {
        let tops = text.split(',').map(|name| name.trim().rsplit(':').next().unwrap_or_default());
        tops.map(|name| name.split('.').next().unwrap_or_default().to_lowercase()).collect()
    };
    let always = ["schemas", "id"];
    if let Some(wanted) = asked.parameter("attributes").map(names) {
        object.retain(|name, _| {
            always.contains(&name.as_str()) || wanted.contains(&name.to_lowercase())
        });
    } else if let Some(unwanted) = asked.parameter("excludedAttributes").map(names) {
        object.retain(|name, _| {
            always.contains(&name.as_str()) || !unwanted.contains(&name.to_lowercase())
        });
    }
    resource
}

/// A time as SCIM writes one.
pub(super) fn time(at: govern::Millis) -> String {
    jiff::Timestamp::from_millisecond(at).map(|at| at.to_string()).unwrap_or_default()
}
