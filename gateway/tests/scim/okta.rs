//! The requests that Okta documents for a SCIM 2.0 integration, in their order.

use govern::identity::session::Sessions;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn a_person_comes_changes_leaves_and_comes_back() {
    let world = World::new("okta").await;
    // First it asks whether the person is there.
    let ask = "GET /Users?filter=userName eq \"Ann@example.org\"&startIndex=1&count=100";
    let none = world.send(ask, Value::Null).await.expect(200);
    assert_eq!((&none["totalResults"], &none["Resources"]), (&json!(0), &json!([])));
    let made = world
        .send(
            "POST /Users",
            json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
                "userName": "ann@example.org",
                "name": { "givenName": "Ann", "familyName": "Lee" },
                "emails": [{ "primary": true, "value": "Ann@example.org", "type": "work" }],
                "displayName": "Ann Lee",
                "locale": "en-US",
                "externalId": "00ujl29u0le5T6Aj10h7",
                "groups": [],
                "password": "1mz050nq",
                "active": true,
            }),
        )
        .await
        .expect(201);
    let id = made["id"].clone();
    assert_eq!(made["meta"]["location"], json!(format!("/scim/v2/Users/{}", id.as_str().unwrap())));
    assert_eq!((&made["password"], &made["locale"]), (&Value::Null, &json!("en-US")));
    let user = world.user(&id).expect("it is there");
    assert_eq!((user.email.as_str(), user.name.as_str()), ("ann@example.org", "Ann Lee"));
    assert_eq!((user.password.as_ref(), user.external_id.as_ref()), (None, None));
    let found = world.send(ask, Value::Null).await.expect(200);
    assert_eq!(found["Resources"][0], made);
    let path = format!("/Users/{}", id.as_str().unwrap());
    assert_eq!(world.send(&format!("GET {path}"), Value::Null).await.expect(200), made);
    // A profile that changed comes whole.
    let mut whole = made.clone();
    whole["name"]["familyName"] = json!("Li");
    whole["displayName"] = json!("Ann Li");
    let put = world.send(&format!("PUT {path}"), whole).await.expect(200);
    assert_eq!(put["displayName"], json!("Ann Li"));
    assert_eq!(world.user(&id).expect("it is there").name, "Ann Li");
    // Somebody who leaves.
    let sessions = Sessions::of(world.governor.store());
    let now = world.governor.now();
    let token = sessions.begin(&user.id, "password", now).await.expect("a session");
    let off = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{ "op": "replace", "value": { "active": false } }],
    });
    let gone = world.send(&format!("PATCH {path}"), off).await.expect(200);
    assert_eq!(gone["active"], json!(false));
    assert!(world.user(&id).expect("it is there").disabled);
    assert!(sessions.find(token.expose(), now).await.expect("a store").is_none(), "signed out");
    let on = json!({ "Operations": [{ "op": "replace", "value": { "active": true } }] });
    assert_eq!(world.send(&format!("PATCH {path}"), on).await.expect(200)["active"], json!(true));
    assert!(!world.user(&id).expect("it is there").disabled);
    let trail = world.audit().await;
    assert!(trail.contains("scim.users.create") && trail.contains("scim.users.change"), "{trail}");
    assert!(!trail.contains("1mz050nq"));
}

#[tokio::test]
async fn groups_are_pushed() {
    let world = World::new("okta-groups").await;
    let ann = world.person("ann@example.org").await["id"].clone();
    let bob = world.person("bob@example.org").await["id"].clone();
    let made = world
        .send(
            "POST /Groups",
            json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
                "displayName": "ML Team",
                "members": [{ "value": ann, "display": "ann@example.org" }],
            }),
        )
        .await
        .expect(201);
    assert_eq!(made["members"][0]["value"], ann);
    let in_team = |id: &Value| {
        let user = world.user(id).expect("it is there");
        (user.teams.contains(&world.team), user.grants.len())
    };
    assert_eq!((in_team(&ann), in_team(&bob)), ((true, 1), (false, 0)));
    let path = format!("/Groups/{}", made["id"].as_str().unwrap());
    let swap = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [
            { "op": "remove", "path": format!("members[value eq \"{}\"]", ann.as_str().unwrap()) },
            { "op": "add", "path": "members", "value": [{ "value": bob, "display": "bob" }] },
        ],
    });
    world.send(&format!("PATCH {path}"), swap).await.expect(200);
    assert_eq!((in_team(&ann), in_team(&bob)), ((false, 0), (true, 1)));
    let shown = world.send(&format!("GET /Users/{}", bob.as_str().unwrap()), Value::Null).await;
    assert_eq!(shown.expect(200)["groups"][0]["display"], json!("ML Team"));
    // Another name is another group to the rules, and back.
    let name = |name: &str| {
        json!({ "Operations": [{ "op": "replace", "value": {
            "id": made["id"], "displayName": name } }] })
    };
    world.send(&format!("PATCH {path}"), name("Others")).await.expect(200);
    assert_eq!(in_team(&bob), (false, 0));
    world.send(&format!("PATCH {path}"), name("ML Team")).await.expect(200);
    assert_eq!(in_team(&bob), (true, 1));
    let both = json!({ "displayName": "ML Team", "members": [{ "value": ann }, { "value": bob }] });
    let put = world.send(&format!("PUT {path}"), both).await.expect(200);
    assert_eq!(put["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.send(&format!("DELETE {path}"), Value::Null).await.status, 204);
    assert_eq!((in_team(&ann), in_team(&bob)), ((false, 0), (false, 0)));
    world.send(&format!("GET {path}"), Value::Null).await.refuses(404, None);
}
