//! The descriptions of the API hold what the table holds.

use gateway::admin::routes;
use serde_json::Value;

use crate::world::World;

/// Each `$ref` of a document.
fn references<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == "$ref" => out.push(text),
            value => references(value, out),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_holds_every_route() {
    let world = World::new("openapi").await;
    let document = world.root("GET /openapi.json", &Value::Null).await.expect(200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let mut ids = std::collections::HashSet::new();
    for route in routes() {
        let method = route.method().name().to_lowercase();
        let operation = &document["paths"][route.path()][&method];
        assert_eq!(operation["summary"], route.summary(), "{route:?}");
        let permission = operation["description"].as_str().expect("a description");
        assert!(permission.contains(route.permission().name()), "{route:?}: {permission}");
        assert!(
            ids.insert(operation["operationId"].to_string()),
            "{route:?} has a name of its own"
        );
        for (name, _) in route.query() {
            let named =
                |parameter: &Value| parameter["name"] == *name && parameter["in"] == "query";
            let parameters = operation["parameters"].as_array().expect("parameters");
            assert!(parameters.iter().any(named), "{route:?} takes {name}");
        }
        let answers = operation["responses"].as_object().expect("responses");
        assert!(answers.keys().any(|status| status.starts_with('2')), "{route:?}");
    }
    let operations = document["paths"].as_object().expect("paths").values();
    let count: usize = operations.map(|path| path.as_object().expect("methods").len()).sum();
    assert_eq!(count, routes().len(), "nothing stands in the document that is no route");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let text = document.to_string();
    assert!(!text.contains("\"password\"") && !text.contains("\"totp\""), "secrets are no fields");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_holds_every_route() {
    let world = World::new("page").await;
    let page = world.ask(&world.root, "GET ", &Value::Null).await;
    assert_eq!(page.status, 200);
    for route in routes() {
        let (method, path) = (route.method().name(), route.path());
        assert!(page.text.contains(&format!("<h3>{method} {path}</h3>")), "{route:?}");
    }
    assert!(!page.text.contains("<script") && !page.text.contains("src="), "self-contained");
}
