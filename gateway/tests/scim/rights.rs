//! Every route of the table with every role; and two organisations that learn nothing of each
//! other.

use gateway::scim::routes;
use govern::Scope;
use govern::role::BUILT_IN;
use serde_json::{Value, json};

use super::world::{World, grant};

#[tokio::test]
async fn every_route_with_every_role() {
    let world = World::new("roles").await;
    let other = Scope::Organisation(world.other.clone());
    let here = || Scope::Organisation(world.home.clone());
    let mut tried = 0;
    for role in BUILT_IN {
        let may = world.key_of(&world.home, vec![grant(role.name, here())]).await;
        // The same role in a team below, and in another organisation.
        let below =
            world.key_of(&world.home, vec![grant(role.name, Scope::Team(world.team.clone()))]);
        let abroad = world.key_of(&world.home, vec![grant(role.name, other.clone())]);
        let (below, abroad) = (below.await, abroad.await);
        for route in routes() {
            let has = role.permissions.contains(&route.permission);
            for (key, allowed) in [(&may, has), (&below, false), (&abroad, false)] {
                let line = format!("{} {}", route.method, route.path.replace("{id}", "none"));
                let body = if ["POST", "PUT", "PATCH"].contains(&route.method) {
                    json!({})
                } else {
                    Value::Null
                };
                let answer = world.send_as(key, &line, body).await;
                tried += 1;
                if allowed {
                    assert!([200, 400, 404].contains(&answer.status), "{route:?} {answer:?}");
                } else {
                    assert_eq!(answer.status, 403, "{} {route:?}", role.name);
                    answer.refuses(403, None);
                }
            }
        }
    }
    assert_eq!(tried, BUILT_IN.len() * routes().len() * 3);
    let widest: Vec<_> = BUILT_IN
        .iter()
        .filter(|role| role.permissions.contains(&routes()[0].permission))
        .map(|role| role.name)
        .collect();
    assert_eq!(widest, ["owner", "provisioner"]);
}

#[tokio::test]
async fn organisations_learn_nothing_of_each_other() {
    let world = World::new("tenants").await;
    let ann = world.person("ann@example.org").await;
    let group = json!({ "displayName": "secret group", "members": [{ "value": ann["id"] }] });
    let group = world.send("POST /Groups", group).await.expect(201);
    let there = Scope::Organisation(world.other.clone());
    let stranger = world.key_of(&world.other, vec![grant("provisioner", there)]).await;
    let (ann, group) = (ann["id"].as_str().unwrap(), group["id"].as_str().unwrap());
    for line in [
        "GET /Users".to_owned(),
        "GET /Groups".to_owned(),
        "GET /Users?filter=userName eq \"ann@example.org\"".to_owned(),
        format!("GET /Users?filter=id eq \"{ann}\""),
        "GET /Groups?filter=displayName pr".to_owned(),
    ] {
        let found = world.send_as(&stranger, &line, Value::Null).await.expect(200);
        assert_eq!(
            (&found["totalResults"], &found["Resources"]),
            (&json!(0), &json!([])),
            "{line}"
        );
    }
    for (method, body) in [
        ("GET", Value::Null),
        ("PUT", json!({ "userName": "x", "displayName": "x" })),
        ("PATCH", json!({ "Operations": [{ "op": "replace", "value": { "active": false } }] })),
        ("DELETE", Value::Null),
    ] {
        for (kind, id) in [("Users", ann), ("Groups", group)] {
            let line = format!("{method} /{kind}/{id}");
            let theirs = world.send_as(&stranger, &line, body.clone()).await;
            let line = format!("{method} /{kind}/none");
            let nobodys = world.send_as(&stranger, &line, body.clone()).await;
            assert_eq!((theirs.status, &theirs.body), (404, &nobodys.body), "{method} {kind}");
        }
    }
    // Neither by a group of one's own, nor by a name that is taken there.
    let mine = json!({ "displayName": "mine", "members": [{ "value": ann }] });
    world.send_as(&stranger, "POST /Groups", mine).await.refuses(400, Some("invalidValue"));
    let same = json!({ "userName": "ann@example.org" });
    world.send_as(&stranger, "POST /Users", same).await.expect(201);
    let same = json!({ "displayName": "secret group" });
    world.send_as(&stranger, "POST /Groups", same).await.expect(201);
    assert!(!world.user(&json!(ann)).expect("it is there").disabled);
}
