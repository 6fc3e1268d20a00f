//! Making, looking at, changing and deleting each kind of thing, and the line that it leaves in the
//! audit.

use govern::identity::session::{Sessions, Token};
use serde_json::{Value, json};

use crate::world::{NOW, World, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_made_changed_and_taken_down() {
    let world = World::new("tree").await;
    let made = world.make("POST /organisations", json!({ "name": "ours" })).await;
    assert_eq!((&made["time_zone"], &made["created_at"]), (&json!("UTC"), &json!(NOW)));
    let ours = id(&made);
    let team = world.make("POST /teams", json!({ "name": "red", "organisation": ours })).await;
    let project = world.make("POST /projects", json!({ "name": "bots", "team": id(&team) })).await;
    let line = format!("/projects/{}", id(&project));
    assert_eq!(world.root(&format!("GET {line}"), &Value::Null).await.expect(200), project);
    let change = json!({ "name": "robots", "policy": { "models": ["small-*"] } });
    let changed = world.root(&format!("PATCH {line}"), &change).await.expect(200);
    assert_eq!(
        (&changed["name"], &changed["policy"]["models"]),
        (&json!("robots"), &json!(["small-*"]))
    );
    assert_eq!(changed["created_at"], project["created_at"]);
    // What is not sent stays, and what cannot change is refused by name.
    let changed = world.root(&format!("PATCH {line}"), &json!({})).await.expect(200);
    assert_eq!(changed["name"], "robots");
    world.root(&format!("PATCH {line}"), &json!({ "team": "team_1" })).await.refuses(400, "team");
    world.root(&format!("PATCH {line}"), &json!({ "name": null })).await.refuses(400, "name");
    // Two of one parent differ; a sibling elsewhere may be called the same.
    let twin = json!({ "name": "red", "organisation": ours });
    world.root("POST /teams", &twin).await.code(409, "name_taken");
    let theirs = world.organisation("theirs").await;
    world.make("POST /teams", json!({ "name": "red", "organisation": theirs })).await;
    // From the leaves to the root.
    let key = world.make("POST /keys", json!({ "label": "ci", "project": id(&project) })).await;
    let refused = world.root(&format!("DELETE {line}"), &Value::Null).await;
    refused.code(409, "in_use");
    assert!(refused.text.contains("key 'ci'"), "{}", refused.text);
    let refused = world.root(&format!("DELETE /teams/{}", id(&team)), &Value::Null).await;
    assert!(refused.text.contains("project 'robots'"), "{}", refused.text);
    world.root(&format!("POST /keys/{}/revoke", id(&key)), &json!({})).await.expect(200);
    for line in [line, format!("/teams/{}", id(&team)), format!("/organisations/{ours}")] {
        world.root(&format!("DELETE {line}"), &Value::Null).await.expect(200);
        world.root(&format!("GET {line}"), &Value::Null).await.code(404, "not_found");
    }
    // What went with the project is not found either.
    world.root(&format!("GET /keys/{}", id(&key)), &Value::Null).await.code(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_roles() {
    let world = World::new("people").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let role = json!({ "name": "keeper", "organisation": ours, "permissions": ["keys.read", "keys.read"] });
    let role = world.make("POST /roles", role).await;
    assert_eq!(role["permissions"], json!(["keys.read"]));
    let owner = json!({ "name": "owner", "organisation": ours, "permissions": [] });
    world.root("POST /roles", &owner).await.code(409, "name_taken");
    let grants = json!([{ "role": "keeper", "scope": format!("team:{}", own.team) }]);
    let user = world
        .make(
            "POST /users",
            json!({
        "email": "ann@example.com", "name": "Ann", "organisation": ours, "teams": [own.team],
        "grants": grants, "external_id": "ann-1" }),
        )
        .await;
    assert!(user.get("password").is_none() && user.get("totp").is_none());
    let used = world.root(&format!("DELETE /roles/{}", id(&role)), &Value::Null).await;
    used.code(409, "in_use");
    assert!(used.text.contains("ann@example.com"), "{}", used.text);
    let line = format!("/users/{}", id(&user));
    let made = world
        .make(
            "POST /keys",
            json!({
        "label": "ann", "project": own.project, "user": id(&user) }),
        )
        .await;
    let key = made["key"].as_str().expect("a key");
    world.ask(key, "GET /v1/usage?of=user", &Value::Null).await.expect(200);
    let change = json!({ "disabled": true, "external_id": null, "teams": [] });
    let changed = world.root(&format!("PATCH {line}"), &change).await.expect(200);
    assert_eq!((&changed["external_id"], &changed["teams"]), (&Value::Null, &json!([])));
    world.ask(key, "GET /v1/usage", &Value::Null).await.code(401, "user_disabled");
    let cleared = world.root(&format!("PATCH {line}"), &json!({ "grants": [] })).await.expect(200);
    assert_eq!(cleared["grants"], json!([]));
    world.root(&format!("DELETE /roles/{}", id(&role)), &Value::Null).await.expect(200);
    world.root(&format!("DELETE {line}"), &Value::Null).await.code(409, "in_use");
    world.root(&format!("POST /keys/{}/revoke", id(&made)), &json!({})).await.expect(200);
    world.root(&format!("DELETE {line}"), &Value::Null).await.expect(200);
    let gone = json!({ "email": "b", "organisation": ours, "grants": grants });
    world.root("POST /users", &gone).await.refuses(403, "grants");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_disabled_is_signed_in_no_more() {
    let world = World::new("disabled").await;
    let ours = world.organisation("ours").await;
    let [ann, bob] = ["ann@example.com", "bob@example.com"]
        .map(|email| json!({ "email": email, "organisation": ours }));
    let ann = id(&world.make("POST /users", ann).await);
    let bob = id(&world.make("POST /users", bob).await);
    let sessions = Sessions::of(world.governor.store());
    let begin = async |user| sessions.begin(user, "password", NOW).await.expect("a session");
    let goes_on = async |token: &Token| {
        sessions.find(token.expose(), NOW).await.expect("an answer").is_some()
    };
    let (hers, his) = (begin(&ann).await, begin(&bob).await);
    let link = sessions.link(&ann, NOW).await.expect("a link");
    let change = async |change: Value| {
        world.root(&format!("PATCH /users/{ann}"), &change).await.expect(200);
    };
    change(json!({ "name": "Ann" })).await;
    assert!(goes_on(&hers).await, "only disabling ends sessions");
    change(json!({ "disabled": true })).await;
    assert!(!goes_on(&hers).await && goes_on(&his).await);
    assert_eq!(sessions.linked(link.expose(), NOW).await.expect("an answer"), None);
    // Where the first time failed halfway, a second one that changes nothing ends them.
    let left = begin(&ann).await;
    change(json!({ "disabled": true })).await;
    assert!(!goes_on(&left).await);
    change(json!({ "disabled": false })).await;
    assert!(!goes_on(&hers).await, "it is over for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_leave_their_lines_in_the_audit() {
    let world = World::new("audit").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let made = world.make("POST /keys", json!({ "label": "before", "project": own.project })).await;
    let line = format!("/keys/{}", id(&made));
    world.root(&format!("PATCH {line}"), &json!({ "label": "after" })).await.expect(200);
    let reason = json!({ "reason": "it leaked" });
    world.root(&format!("POST {line}/revoke"), &reason).await.expect(200);
    let records = world.root(&format!("GET /audit?organisation={ours}"), &Value::Null).await;
    let records = records.expect(200);
    let bodies: Vec<Value> = records["data"]
        .as_array()
        .expect("records")
        .iter()
        .map(|record| serde_json::from_str(record["body"].as_str().expect("a text")).expect("JSON"))
        .collect();
    let root = world.root[..15].to_owned();
    let mine: Vec<&Value> = bodies.iter().filter(|body| body["target"] == made["id"]).collect();
    let actions: Vec<&Value> = mine.iter().map(|body| &body["action"]).collect();
    assert_eq!(actions, ["keys.revoke", "keys.change", "keys.create"]);
    assert!(mine.iter().all(|body| body["actor"]["key_prefix"] == root));
    assert_eq!(mine[0]["reason"], "it leaked");
    assert_eq!(
        (&mine[1]["before"]["label"], &mine[1]["after"]["label"]),
        (&json!("before"), &json!("after"))
    );
    let secret = made["key"].as_str().expect("a key");
    let whole = world.ask(&world.root, "GET /audit/export", &Value::Null).await;
    assert!(whole.text.lines().count() > 6, "{}", whole.text);
    assert!(!whole.text.contains(&secret[16..]) && !whole.text.contains("hash\\\""), "no secrets");
    // Who tries what they may not is there too.
    let member = world.key(&own.project, "member", &format!("team:{}", own.team)).await;
    let refused = world.ask(&member, &format!("DELETE /teams/{}", own.team), &Value::Null).await;
    refused.code(403, "permission_denied");
    world.governor.flush().await;
    let line = format!("GET /audit?organisation={ours}&limit=1");
    let last = world.root(&line, &Value::Null).await.expect(200);
    let body = last["data"][0]["body"].as_str().expect("a text");
    assert!(
        body.contains("\"refused\":\"tree.write\"") && body.contains(own.team.as_str()),
        "{body}"
    );
    let verified = world.root("GET /audit/verify", &Value::Null).await.expect(200);
    assert!(verified["summary"]["records"].as_i64().is_some_and(|count| count > 6), "{verified}");
    let head = &verified["summary"]["heads"][0];
    let anchor =
        |hash: &str| format!("GET /audit/verify?anchor=gateway-1:{}:{hash}", head["number"]);
    let kept = world.root(&anchor(head["hash"].as_str().expect("a hash")), &Value::Null).await;
    assert!(kept.expect(200).get("summary").is_some());
    let other = world.root(&anchor(&"0".repeat(64)), &Value::Null).await.expect(200);
    assert_eq!(other["broken"]["chain"], "gateway-1", "{other}");
}
