//! Pages and filters.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_are_listed_once_each() {
    let world = World::new("pages").await;
    let organisation = world.organisation("ours").await;
    let own = world.branch(&organisation, "own").await;
    let mut made = Vec::new();
    for at in 0..1000 {
        let body = json!({ "label": format!("key {at}"), "project": own.project });
        made.push(world.make("POST /keys", body).await["id"].clone());
    }
    for limit in [200, 150, 199] {
        let mut listed = Vec::new();
        let mut after = String::new();
        loop {
            let line = format!("GET /keys?project={}&limit={limit}{after}", own.project);
            let page = world.root(&line, &Value::Null).await.expect(200);
            let data = page["data"].as_array().expect("things");
            assert!(data.iter().all(|key| key.get("hash").is_none() && key.get("key").is_none()));
            listed.extend(data.iter().map(|key| key["id"].clone()));
            if page["has_more"] == json!(false) {
                assert_eq!(page["last_id"], Value::Null);
                break;
            }
            assert_eq!(data.len(), limit);
            after = format!("&after={}", page["last_id"].as_str().expect("an id"));
        }
        let mut sorted: Vec<String> = made.iter().map(Value::to_string).collect();
        sorted.sort();
        let listed: Vec<String> = listed.iter().map(Value::to_string).collect();
        assert_eq!(listed, sorted);
    }
    let line = format!("GET /keys?name={}", "key%20999");
    assert_eq!(world.root(&line, &Value::Null).await.expect(200)["data"][0]["id"], made[999]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_narrowed_by_what_they_know() {
    let world = World::new("filters").await;
    let organisation = world.organisation("ours").await;
    let (own, other) =
        (world.branch(&organisation, "own").await, world.branch(&organisation, "other").await);
    let count = async |line: String| {
        let page = world.root(&line, &Value::Null).await.expect(200);
        page["data"].as_array().expect("things").len()
    };
    assert_eq!(count(format!("GET /teams?organisation={organisation}")).await, 2);
    assert_eq!(count(format!("GET /projects?team={}", own.team)).await, 1);
    assert_eq!(count(format!("GET /projects?team={}&name=x", other.team)).await, 0);
    assert_eq!(count("GET /organisations?name=default".to_owned()).await, 1);
    assert_eq!(count("GET /teams?organisation=org_0".to_owned()).await, 0);
    let roles = world.root("GET /roles", &Value::Null).await.expect(200);
    assert_eq!(roles["built_in"][0]["name"], "owner");
    for (line, param) in [
        ("GET /teams?colour=red", "colour"),
        ("GET /teams?limit=0", "limit"),
        ("GET /teams?limit=201", "limit"),
        ("GET /teams?limit=-1", "limit"),
        ("GET /teams?limit=ten", "limit"),
        ("GET /teams?name=a&name=b", "name"),
        ("GET /audit?after=x", "after"),
        ("GET /ledger?from=yesterday", "from"),
    ] {
        world.root(line, &Value::Null).await.refuses(400, param);
    }
}
