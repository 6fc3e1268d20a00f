//! The requests that Microsoft documents for Entra ID: capital operations, truth as text, values
//! without a path.

use serde_json::{Value, json};

use super::world::World;

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

#[tokio::test]
async fn people_are_kept_in_step() {
    let world = World::new("entra").await;
    // The connection is tried with somebody who is not there.
    let test = "GET /Users?filter=userName eq \"7f5c3a88-0b3d-4f3e\"";
    assert_eq!(world.send(test, Value::Null).await.expect(200)["totalResults"], json!(0));
    let made = world
        .send(
            "POST /Users",
            json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", ENTERPRISE],
                "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
                "userName": "UPN_ab6490ee@example.org",
                "active": true,
                "emails": [{ "primary": true, "type": "work", "value": "mail@example.org" }],
                "meta": { "resourceType": "User" },
                "name": { "formatted": "given family", "familyName": "family" },
                "roles": [],
                ENTERPRISE: { "department": "bob" },
            }),
        )
        .await
        .expect(201);
    assert!(made["schemas"].as_array().unwrap().contains(&json!(ENTERPRISE)));
    assert_eq!(made["meta"]["resourceType"], json!("User"));
    let by_id = "GET /Users?filter=externalId eq \"0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef\"";
    assert_eq!(world.send(by_id, Value::Null).await.expect(200)["Resources"][0], made);
    let path = format!("/Users/{}", made["id"].as_str().unwrap());
    let changed = world
        .send(
            &format!("PATCH {path}"),
            json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
                "Operations": [
                    { "op": "Replace", "path": "emails[type eq \"work\"].value",
                      "value": "updated@example.org" },
                    { "op": "Replace", "path": "name.familyName", "value": "updated" },
                    { "op": "Add", "path": format!("{ENTERPRISE}:department"), "value": "ml" },
                    { "op": "Add", "value": {
                        "displayName": "Given Updated", "name.givenName": "G" } },
                ],
            }),
        )
        .await
        .expect(200);
    assert_eq!(changed["emails"][0]["value"], json!("updated@example.org"));
    assert_eq!(changed["emails"].as_array().map(Vec::len), Some(1));
    assert_eq!(changed["name"]["givenName"], json!("G"));
    assert_eq!(changed[ENTERPRISE]["department"], json!("ml"));
    let user = world.user(&made["id"]).expect("it is there");
    assert_eq!((user.email.as_str(), user.name.as_str()), ("updated@example.org", "Given Updated"));
    let off = json!({ "Operations": [{ "op": "Replace", "path": "active", "value": "False" }] });
    assert_eq!(world.send(&format!("PATCH {path}"), off).await.expect(200)["active"], json!(false));
    assert!(world.user(&made["id"]).expect("it is there").disabled);
    // Thirty days later.
    assert_eq!(world.send(&format!("DELETE {path}"), Value::Null).await.status, 204);
    world.send(&format!("DELETE {path}"), Value::Null).await.refuses(404, None);
    assert!(world.user(&made["id"]).is_none());
}

#[tokio::test]
async fn groups_without_their_members() {
    let world = World::new("entra-groups").await;
    let ann = world.person("ann@example.org").await["id"].clone();
    let group = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
        "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159",
        "displayName": "ML Team",
        "meta": { "resourceType": "Group" },
    });
    let made = world.send("POST /Groups", group).await.expect(201);
    let path = format!("/Groups/{}", made["id"].as_str().unwrap());
    let ask = "GET /Groups?excludedAttributes=members&filter=displayName eq \"ml team\"";
    let found = world.send(ask, Value::Null).await.expect(200);
    assert_eq!(
        (&found["totalResults"], &found["Resources"][0]["members"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(found["Resources"][0]["externalId"], made["externalId"]);
    let member = |op: &str| {
        let value = json!([{ "$ref": null, "value": ann }]);
        json!({ "Operations": [{ "op": op, "path": "members", "value": value }] })
    };
    world.send(&format!("PATCH {path}"), member("Add")).await.expect(200);
    assert!(world.user(&ann).expect("it is there").teams.contains(&world.team));
    world.send(&format!("PATCH {path}"), member("Remove")).await.expect(200);
    assert!(!world.user(&ann).expect("it is there").teams.contains(&world.team));
}
