//! What holds beside the providers' own sequences: names once, other people's words, signing in,
//! many people.

use std::collections::BTreeMap;
use std::time::Instant;

use govern::Scope;
use govern::entity::{Entity as _, Key, User};
use govern::governor::EditError;
use govern::identity::mapping::{People, person};
use govern::ledger::writer::Note;
use govern::store::documents::Edit;
use govern::{Id, Rule};
use serde_json::{Value, json};

use super::world::{World, grant};

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let world = World::new("refused").await;
    let ann = world.person("ann@example.org").await;
    let path = format!("/Users/{}", ann["id"].as_str().unwrap());
    for (line, body, status, kind) in [
        ("POST /Users", json!({ "userName": "ANN@example.org" }), 409, Some("uniqueness")),
        (
            "POST /Users",
            json!({ "userName": "x", "emails": [{ "value": "ann@example.org" }] }),
            409,
            Some("uniqueness"),
        ),
        ("POST /Users", json!({}), 400, Some("invalidValue")),
        ("POST /Users", json!({ "userName": "" }), 400, Some("invalidValue")),
        ("POST /Users", json!({ "userName": "x".repeat(300) }), 400, Some("invalidValue")),
        ("POST /Users", json!({ "userName": "x", "active": "maybe" }), 400, Some("invalidValue")),
        (
            "POST /Users",
            json!({ "userName": "x", "title": "x".repeat(20 << 10) }),
            400,
            Some("invalidValue"),
        ),
        ("POST /Users", json!([]), 400, Some("invalidSyntax")),
        ("GET /Users?filter=userName gt \"a\"", Value::Null, 400, Some("invalidFilter")),
        ("GET /Users?count=many", Value::Null, 400, Some("invalidValue")),
        ("GET /Users/user_nobody", Value::Null, 404, None),
        ("GET /Users/'; DROP TABLE documents; --", Value::Null, 404, None),
        (
            "POST /Groups",
            json!({ "displayName": "g", "members": [{ "value": "user_nobody" }] }),
            400,
            Some("invalidValue"),
        ),
        ("POST /Groups", json!({ "members": [] }), 400, Some("invalidValue")),
        (&format!("PATCH {path}"), json!({ "Operations": [] }), 400, Some("invalidSyntax")),
        (
            &format!("PATCH {path}"),
            json!({ "Operations": [{ "op": "remove", "path": "userName" }] }),
            400,
            Some("invalidValue"),
        ),
    ] {
        world.send(line, body).await.refuses(status, kind);
    }
    world.send("POST /Groups", json!({ "displayName": "g" })).await.expect(201);
    world
        .send("POST /Groups", json!({ "displayName": "G" }))
        .await
        .refuses(409, Some("uniqueness"));
}

/// What a list's parameters say may stand in a body.
#[tokio::test]
async fn a_search_is_a_list_with_a_body() {
    let world = World::new("search").await;
    for name in ["ann", "bob", "cai"] {
        world.person(&format!("{name}@example.org")).await;
    }
    world.send("POST /Groups", json!({ "displayName": "test friends" })).await.expect(201);
    let names = |found: &Value| -> Vec<String> {
        let all = found["Resources"].as_array().expect("a list");
        let name = |one: &Value| {
            one["userName"].as_str().or(one["displayName"].as_str()).map(str::to_owned)
        };
        let mut all: Vec<String> = all.iter().filter_map(name).collect();
        all.sort();
        all
    };
    let people = ["ann@example.org", "bob@example.org", "cai@example.org"];
    let test = json!({ "filter": "displayName sw \"test\"" });
    let friends = json!({ "filter": "displayName co \"friend\"" });
    for (path, more, expect) in [
        ("/Users", json!({}), &people[..]),
        ("/Users", json!({ "filter": "userName co \"an\"" }), &people[..1]),
        ("/Users", friends.clone(), &[]),
        ("/Groups", friends.clone(), &["test friends"]),
        ("", friends, &["test friends"]),
        ("", test, &[people[0], people[1], people[2], "test friends"]),
    ] {
        let line = format!("POST {path}/.search");
        let found = world.send(&line, search(&more)).await.expect(200);
        assert_eq!((&found["totalResults"], names(&found)), (&json!(expect.len()), owned(expect)));
        // Page by page they are the same.
        let mut all = Vec::new();
        for at in 1..=expect.len() {
            let mut more = more.clone();
            (more["startIndex"], more["count"]) = (json!(at), json!(1));
            let page = world.send(&line, search(&more)).await.expect(200);
            assert_eq!(page["totalResults"], json!(expect.len()));
            all.extend(names(&page));
        }
        all.sort();
        assert_eq!(all, owned(expect));
    }
    let narrow = json!({ "attributes": ["userName"], "count": 1 });
    let found = world.send("POST /Users/.search", search(&narrow)).await.expect(200);
    let shown = found["Resources"][0].as_object().expect("a resource");
    let mut shown: Vec<&String> = shown.keys().collect();
    shown.sort();
    assert_eq!(shown, ["id", "schemas", "userName"]);
}

#[tokio::test]
async fn a_search_that_cannot_be_is_refused_and_what_is_not_there_is_said() {
    let world = World::new("no-search").await;
    world.person("ann@example.org").await;
    for (body, kind) in [
        (json!([]), "invalidSyntax"),
        (json!({ "schemas": [] }), "invalidSyntax"),
        (search(&json!({ "filter": "userName gt 5" })), "invalidFilter"),
        (search(&json!({ "count": "many" })), "invalidValue"),
        (search(&json!({ "bulk": true })), "invalidValue"),
    ] {
        for path in ["/Users/.search", "/.search"] {
            world.send(&format!("POST {path}"), body.clone()).await.refuses(400, Some(kind));
        }
    }
    // What there is none of is said.
    let config = world.send("GET /ServiceProviderConfig", Value::Null).await.expect(200);
    for (what, there) in [
        ("patch", true),
        ("filter", true),
        ("bulk", false),
        ("sort", false),
        ("etag", false),
        ("changePassword", false),
    ] {
        assert_eq!(config[what]["supported"], json!(there), "{what}");
    }
    world.send("POST /Bulk", json!({ "Operations": [] })).await.refuses(404, None);
    let ann = world.send("GET /Users?count=1", Value::Null).await.expect(200);
    assert_eq!(ann["Resources"][0]["meta"].get("version"), None);
}

fn search(more: &Value) -> Value {
    let mut body = json!({ "schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"] });
    more.as_object().expect("fields").iter().for_each(|(name, value)| {
        body[name] = value.clone();
    });
    body
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

/// Whom an administrator has shut out stays out while the provider says again what it said before.
#[tokio::test]
async fn an_administrators_word_stands() {
    let world = World::new("word").await;
    let ann = world.person("ann@example.org").await;
    let path = format!("/Users/{}", ann["id"].as_str().unwrap());
    let user = world.user(&ann["id"]).expect("it is there");
    world.put(&User { disabled: true, ..User::clone(&user) }).await;
    let same = world.send(&format!("PUT {path}"), ann.clone()).await.expect(200);
    assert_eq!(same["active"], json!(false));
    assert!(world.user(&ann["id"]).expect("it is there").disabled);
    for (active, disabled) in [(false, true), (true, false)] {
        let body =
            json!({ "Operations": [{ "op": "replace", "path": "active", "value": active }] });
        world.send(&format!("PATCH {path}"), body).await.expect(200);
        assert_eq!(world.user(&ann["id"]).expect("it is there").disabled, disabled);
    }
}

/// Who may do more than the provisioner cannot be given another address: whoever has that could
/// sign in as them.
#[tokio::test]
async fn nobody_becomes_an_owner_by_an_address() {
    let world = World::new("owner").await;
    let boss = User {
        id: Id::new(User::KIND, 1),
        organisation: world.home.clone(),
        email: "boss@example.org".to_owned(),
        grants: vec![grant("owner", Scope::Organisation(world.home.clone()))],
        ..User::default()
    };
    world.put(&boss).await;
    let path = format!("/Users/{}", boss.id);
    let shown = world.send(&format!("GET {path}"), Value::Null).await.expect(200);
    assert_eq!(shown["userName"], json!("boss@example.org"));
    let mut moved = shown.clone();
    moved["emails"][0]["value"] = json!("evil@example.org");
    world.send(&format!("PUT {path}"), moved).await.refuses(403, None);
    world.send(&format!("DELETE {path}"), Value::Null).await.refuses(403, None);
    // To shut somebody out is what a provisioner is for.
    let off = json!({ "Operations": [{ "op": "replace", "path": "active", "value": false }] });
    world.send(&format!("PATCH {path}"), off).await.expect(200);
    let now = world.user(&json!(boss.id)).expect("it is there");
    assert!(now.disabled && now.email == "boss@example.org" && now.grants == boss.grants);
    // Whose roles come from the mapping belongs to the provider.
    let ann = world.person("ann@example.org").await;
    let group = json!({ "displayName": "ML Team", "members": [{ "value": ann["id"] }] });
    world.send("POST /Groups", group).await.expect(201);
    let mut moved = ann.clone();
    moved["emails"][0]["value"] = json!("anna@example.org");
    let path = format!("/Users/{}", ann["id"].as_str().unwrap());
    world.send(&format!("PUT {path}"), moved).await.expect(200);
    assert_eq!(world.user(&ann["id"]).expect("it is there").grants.len(), 1);
}

#[tokio::test]
async fn keys_go_with_their_owner() {
    let world = World::new("keys").await;
    let ann = world.person("ann@example.org").await;
    let shown = world.key_of(&world.home, Vec::new()).await;
    let key = world.governor.authenticate(Some(&shown), None).expect("good").key.expect("a key");
    let user = world.user(&ann["id"]).expect("it is there").id.clone();
    world.put(&Key { user: Some(user), ..Key::clone(&key) }).await;
    let rule =
        |world: &World| world.governor.authenticate(Some(&shown), None).map_err(|no| no.rule);
    assert!(rule(&world).is_ok());
    let path = format!("/Users/{}", ann["id"].as_str().unwrap());
    for (active, expect) in [(false, Some(Rule::DisabledUser)), (true, None)] {
        let body = json!({ "Operations": [{ "op": "replace", "value": { "active": active } }] });
        world.send(&format!("PATCH {path}"), body).await.expect(200);
        assert_eq!(rule(&world).err(), expect);
    }
    assert_eq!(world.send(&format!("DELETE {path}"), Value::Null).await.status, 204);
    assert_eq!(rule(&world).err(), Some(Rule::RevokedKey));
}

/// Who was provisioned is not made again at the first sign-in, and keeps what SCIM gave.
#[tokio::test]
async fn signing_in_finds_who_was_provisioned() {
    let world = World::new("signin").await;
    let ann = world.person("ann@example.org").await;
    let group = json!({ "displayName": "ML Team", "members": [{ "value": ann["id"] }] });
    world.send("POST /Groups", group).await.expect(201);
    let people = People {
        organisation: world.home.clone(),
        domains: vec!["*".to_owned()],
        groups_claim: "groups".to_owned(),
        groups: vec![govern::identity::mapping::GroupRule {
            group: "ML Team".to_owned(),
            team: Some(world.team.clone()),
            grant: Some(grant("developer", Scope::Team(world.team.clone()))),
        }],
        ..People::default()
    };
    let claims = json!({ "sub": "s1", "email": "Ann@example.org", "email_verified": true });
    let claims: BTreeMap<String, Value> = serde_json::from_value(claims).expect("claims");
    let claims = claims.into_iter().collect();
    let directory = world.governor.directory();
    let arrival = person(&directory, "corp", &people, &claims, 1).expect("they may");
    assert_eq!(arrival.before.expect("known").id, arrival.user.id);
    assert_eq!(json!(arrival.user.id), ann["id"]);
    assert_eq!(arrival.user.external_id.as_deref(), Some("corp:s1"));
    assert!(arrival.user.teams.contains(&world.team), "a token without groups takes nothing");
}

#[tokio::test]
async fn ten_thousand_people() {
    let world = World::new("many").await;
    let users: Vec<User> = (0..10_000)
        .map(|number| User {
            id: Id::new(User::KIND, number),
            organisation: world.home.clone(),
            email: format!("person-{number:05}@example.org"),
            ..User::default()
        })
        .collect();
    let edited = world.governor.edit(|_, at| {
        let note = Note { at, kind: "test".to_owned(), ..Note::default() };
        Ok::<_, EditError>((users.iter().map(Edit::put).collect(), note, ()))
    });
    edited.await.expect("an edit");
    let begun = Instant::now();
    let one = "GET /Users?filter=userName eq \"person-07777@example.org\"";
    assert_eq!(world.send(one, Value::Null).await.expect(200)["totalResults"], json!(1));
    let found = begun.elapsed();
    let begun = Instant::now();
    let (mut seen, mut start) = (std::collections::BTreeSet::new(), 1);
    loop {
        let line = format!("GET /Users?startIndex={start}&count=1000");
        let page = world.send(&line, Value::Null).await.expect(200);
        assert_eq!(page["totalResults"], json!(10_000));
        let all = page["Resources"].as_array().expect("a list").clone();
        if all.is_empty() {
            break;
        }
        start += all.len();
        seen.extend(all.iter().map(|user| user["id"].as_str().expect("an id").to_owned()));
    }
    assert_eq!(seen.len(), 10_000);
    println!("10,000 people: one found in {found:?}, all listed in {:?}", begun.elapsed());
    assert!(found.as_secs() < 2 && begun.elapsed().as_secs() < 15);
    // All of them in one group, and one who leaves.
    let members: Vec<Value> = seen.iter().map(|id| json!({ "value": id })).collect();
    let group = json!({ "displayName": "ML Team", "members": members });
    let made = world.send("POST /Groups", group).await.expect(201);
    let first = seen.first().expect("somebody");
    let path = format!("members[value eq \"{first}\"]");
    let leave = json!({ "Operations": [{ "op": "remove", "path": path }] });
    let begun = Instant::now();
    let line = format!("PATCH /Groups/{}", made["id"].as_str().unwrap());
    let left = world.send(&line, leave).await.expect(200);
    assert_eq!(left["members"].as_array().map(Vec::len), Some(9_999));
    println!("one of 10,000 leaves a group in {:?}", begun.elapsed());
}
