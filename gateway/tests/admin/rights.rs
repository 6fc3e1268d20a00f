//! Every route, tried with every role, in its own place and in others'. What is expected comes from
//! the table and from a naive reading of roles; a route that is not listed here fails the test.

use std::sync::Arc;

use gateway::admin::{Method, Place, Route, routes};
use govern::entity::Entity as _;
use govern::role::{BUILT_IN, BuiltIn};
use govern::secret::{Keyring, Master};
use govern::{Ask, Id, Scope};
use serde_json::{Value, json};

use crate::world::{Answer, Branch, World, id};

/// Something of a kind within a branch; made anew when the one before was deleted.
async fn target(world: &World, kind: &str, branch: &Branch) -> (Id, Scope) {
    let name = world.name(&branch.word);
    let organisation = Scope::Organisation(branch.organisation.clone());
    let made = |line, body| async move { id(&world.make(line, body).await) };
    match kind {
        "organisations" => (branch.organisation.clone(), organisation),
        "teams" => (branch.team.clone(), Scope::Team(branch.team.clone())),
        "projects" => {
            let body = json!({ "name": name, "team": branch.team });
            let id = made("POST /projects", body).await;
            (id.clone(), Scope::Project(id))
        }
        "users" => {
            let body = json!({ "email": name, "organisation": branch.organisation });
            let id = made("POST /users", body).await;
            (id.clone(), Scope::User(id))
        }
        "roles" => {
            let body = json!({
                "name": name, "organisation": branch.organisation, "permissions": ["keys.read"] });
            (made("POST /roles", body).await, organisation)
        }
        "keys" => {
            let body = json!({ "label": name, "project": branch.project });
            let id = made("POST /keys", body).await;
            (id.clone(), Scope::Key(id))
        }
        "budgets" => {
            let scope = Scope::Team(branch.team.clone());
            let body = json!({
                "name": name, "scope": scope, "limits": [{ "period": "day", "usd": "1" }] });
            (made("POST /budgets", body).await, scope)
        }
        "prices" => {
            let sheet = world.governor.directory().sheets().next().map(|sheet| sheet.id.clone());
            (sheet.expect("a sheet"), Scope::Everything)
        }
        kind => panic!("no thing of kind {kind} is known to this test"),
    }
}

/// What a new thing is made of, and where it would be.
fn body_of_new(world: &World, kind: &str, branch: &Branch) -> (Value, Scope) {
    let name = world.name(&branch.word);
    let organisation = Scope::Organisation(branch.organisation.clone());
    let (team, at) = (&branch.team, &branch.organisation);
    match kind {
        "organisations" => (json!({ "name": name }), Scope::Everything),
        "teams" => (json!({ "name": name, "organisation": at }), organisation),
        "projects" => (json!({ "name": name, "team": team }), Scope::Team(team.clone())),
        "users" => (json!({ "email": name, "organisation": at }), organisation),
        "roles" => (json!({ "name": name, "organisation": at, "permissions": [] }), organisation),
        "keys" => {
            let project = &branch.project;
            (json!({ "label": name, "project": project }), Scope::Project(project.clone()))
        }
        "budgets" => {
            let scope = Scope::Team(team.clone());
            let limits = json!([{ "period": "day", "usd": "1" }]);
            (json!({ "name": name, "scope": scope, "limits": limits }), scope)
        }
        "prices" => {
            let free = json!([{ "model": "*", "input": 0, "output": 0 }]);
            (json!({ "name": name, "models": free }), Scope::Everything)
        }
        kind => panic!("no new {kind} is known to this test"),
    }
}

/// An operation of a branch whose texts were recorded.
async fn recorded(world: &World, branch: &Branch) -> Id {
    let master = Master::parse(Master::generate().expose()).expect("a key");
    world.governor.record_with(Arc::new(Keyring { current: master, old: Vec::new() }));
    let (key, _) = target(world, "keys", branch).await;
    let line = format!("PATCH /keys/{key}");
    world.root(&line, &json!({ "policy": { "record": "full" } })).await.expect(200);
    // Budgets of other targets ask for a price.
    let free = json!([{ "model": "*", "input": 0, "output": 0 }]);
    world.make("POST /prices", json!({ "name": world.name("free"), "models": free })).await;
    let principal = {
        let directory = world.governor.directory();
        directory.principal(directory.key(&key).expect("a key")).expect("whole")
    };
    let ask = Ask { model: "m".to_owned(), choices: 1, ..Ask::default() };
    let operation = world.governor.admit(&principal, &ask).expect("let in");
    operation.record(b"a request", b"an answer");
    drop(operation.finish());
    operation.id()
}

/// The request that tries a route in a branch, and the scope that it is about.
async fn request(world: &World, route: &Route, branch: &Branch) -> (String, Value, Scope) {
    let method = route.method().name();
    let path = route.path().strip_prefix("/admin/v1").expect("an admin path");
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let team = Scope::Team(branch.team.clone());
    let organisation = Scope::Organisation(branch.organisation.clone());
    match words.as_slice() {
        ["usage" | "ledger"] => {
            (format!("{method} {path}?team={}", branch.team), Value::Null, team)
        }
        ["policy", "dry-run"] => {
            let body = json!({ "organisation": branch.organisation, "from": "2026-11-01" });
            (format!("{method} {path}"), body, organisation)
        }
        ["bodies"] | ["bodies", "{id}"] => {
            let path = path.replace("{id}", recorded(world, branch).await.as_str());
            let path = format!("{method} {path}?organisation={}", branch.organisation);
            let erases = if route.method() == Method::Delete { "&before=2026-11-01" } else { "" };
            (path + erases, Value::Null, organisation)
        }
        ["audit"] | ["audit", "export"] => {
            let path = format!("{method} {path}?organisation={}", branch.organisation);
            (path, Value::Null, organisation)
        }
        ["audit", "verify"] => (format!("{method} {path}"), Value::Null, Scope::Everything),
        ["policy", "explain"] => {
            let (key, scope) = target(world, "keys", branch).await;
            (format!("{method} {path}"), json!({ "key": key, "model": "m" }), scope)
        }
        [kind] if route.method() == Method::Post => {
            let (body, scope) = body_of_new(world, kind, branch);
            (format!("{method} {path}"), body, scope)
        }
        [_] => (format!("{method} {path}?limit=200"), Value::Null, Scope::Everything),
        [kind, "{id}", rest @ ..] => {
            let (id, scope) = target(world, kind, branch).await;
            let body = match (route.method(), rest) {
                (Method::Patch, []) => json!({}),
                (Method::Post, ["rotate" | "revoke" | "reset-totp"]) => json!({}),
                (Method::Post, ["raise"]) => json!({
                    "limit": 0, "usd": "1", "until": crate::world::NOW + 1000, "reason": "why" }),
                (Method::Get | Method::Delete, []) => Value::Null,
                other => panic!("{other:?} of {path} is not known to this test"),
            };
            (format!("{method} {}", path.replace("{id}", id.as_str())), body, scope)
        }
        _ => panic!("{path} is not known to this test"),
    }
}

/// The status that the table and a naive reading of roles ask for.
fn check(route: &Route, role: &BuiltIn, covered: bool, scope: &Scope, answer: &Answer, line: &str) {
    let has = role.permissions.contains(&route.permission());
    let what = format!("{} {line} ({route:?}) about {scope}: {}", role.name, answer.text);
    // What stands in the way of somebody who may is no matter of rights.
    let done = (200..300).contains(&answer.status) || answer.status == 409;
    let expect = match route.place() {
        Place::Somewhere if has => 0,
        Place::Somewhere => 403,
        _ if has && covered => 0,
        _ if covered || *scope == Scope::Everything => 403,
        _ => 404,
    };
    match expect {
        0 => assert!(done, "{} {what}", answer.status),
        status => assert_eq!(answer.status, status, "{what}"),
    }
}

/// Everything that names an organisation or what is in it.
fn names_of(world: &World, organisation: &Id) -> Vec<String> {
    let directory = world.governor.directory();
    let mut names = vec![organisation.to_string()];
    let here = |scope: &Scope| directory.organisation_of(scope) == Some(organisation);
    for team in directory.teams().filter(|team| team.organisation == *organisation) {
        names.extend([team.id.to_string(), team.name.clone()]);
    }
    for project in directory.projects().filter(|it| here(&Scope::Project(it.id.clone()))) {
        names.extend([project.id.to_string(), project.name.clone()]);
    }
    for user in directory.users().filter(|user| user.organisation == *organisation) {
        names.extend([user.id.to_string(), user.email.clone()]);
    }
    for key in directory.keys().filter(|key| key.organisation == *organisation) {
        names.extend([key.id.to_string(), key.prefix.clone(), key.label.clone()]);
    }
    for role in directory.roles().filter(|role| role.organisation == *organisation) {
        names.extend([role.id().to_string(), role.name.clone()]);
    }
    for budget in directory.budgets().filter(|it| it.organisation == *organisation) {
        names.extend([budget.id.to_string(), budget.name.clone()]);
    }
    let own = directory.organisation(organisation).expect("it is there");
    names.push(own.name.clone());
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_every_role_for_its_permission() {
    let world = World::new("rights").await;
    world
        .make(
            "POST /prices",
            json!({ "name": "sheet", "models": [{ "model": "*", "input": 0, "output": 0 }] }),
        )
        .await;
    let (ours, theirs) = (world.organisation("ours").await, world.organisation("theirs").await);
    let own = world.branch(&ours, "own").await;
    let other = world.branch(&ours, "neighbour").await;
    let foreign = world.branch(&theirs, "stranger").await;
    let table = routes();
    assert!(table.len() > 40, "the table is whole: {}", table.len());
    let mut answers: Vec<(String, String)> = Vec::new();
    for role in BUILT_IN {
        for at in
            [Scope::Team(own.team.clone()), Scope::Organisation(ours.clone()), Scope::Everything]
        {
            let key = world.key(&own.project, role.name, &at.to_string()).await;
            for route in &table {
                for branch in [&own, &other, &foreign] {
                    let (line, body, scope) = request(&world, route, branch).await;
                    let covered = world.governor.directory().covers(&at, &scope);
                    let answer = world.ask(&key, &line, &body).await;
                    check(route, role, covered, &scope, &answer, &line);
                    if at != Scope::Everything {
                        answers.push((line, answer.text));
                    }
                }
            }
        }
    }
    // No answer to a key of one organisation names anything of the other.
    let mut names = names_of(&world, &theirs);
    assert!(names.len() > 100, "{}", names.len());
    names.sort_by_key(String::len);
    for (line, text) in &answers {
        let found = names.iter().find_map(|name| text.find(name.as_str()).map(|at| (name, at)));
        if let Some((name, at)) = found {
            let around: String = text[..at].chars().rev().take(200).collect();
            let around: String = around.chars().rev().collect();
            panic!("{line} names {name}: {around}{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_grants_learns_nothing() {
    let world = World::new("plain").await;
    world
        .make(
            "POST /prices",
            json!({ "name": "sheet", "models": [{ "model": "*", "input": 0, "output": 0 }] }),
        )
        .await;
    let organisation = world.organisation("ours").await;
    let own = world.branch(&organisation, "own").await;
    let made = world.make("POST /keys", json!({ "label": "plain", "project": own.project }));
    let made = made.await;
    let key = made["key"].as_str().expect("a key");
    for route in routes() {
        let (line, body, scope) = request(&world, &route, &own).await;
        let answer = world.ask(key, &line, &body).await;
        let named = !matches!(route.place(), Place::Somewhere | Place::Everything);
        let expect = if named && scope != Scope::Everything { 404 } else { 403 };
        assert_eq!(answer.status, expect, "{line}: {}", answer.text);
    }
    // Its own usage it may see, and nobody else's.
    assert_eq!(world.ask(key, "GET /v1/usage", &Value::Null).await.expect(200)["data"], json!([]));
    world.ask(key, "GET /v1/usage?key=key_1", &Value::Null).await.refuses(400, "key");
    let nobody = world.ask("hk-0", "GET /teams", &Value::Null).await;
    nobody.code(401, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_answers_like_what_is_not_there() {
    let world = World::new("hidden").await;
    let (ours, theirs) = (world.organisation("ours").await, world.organisation("theirs").await);
    let own = world.branch(&ours, "own").await;
    let foreign = world.branch(&theirs, "stranger").await;
    let at = format!("organisation:{ours}");
    let key = world.key(&own.project, "owner", &at).await;
    for (kind, unknown) in [("teams", "team_0"), ("keys", "key_0"), ("budgets", "bud_0")] {
        let (hidden, _) = target(&world, kind, &foreign).await;
        for method in ["GET", "PATCH", "DELETE"] {
            let body = if method == "PATCH" { json!({ "name": "x" }) } else { Value::Null };
            if kind == "keys" && method == "DELETE" {
                continue;
            }
            let found = world.ask(&key, &format!("{method} /{kind}/{hidden}"), &body).await;
            let missing = world.ask(&key, &format!("{method} /{kind}/{unknown}"), &body).await;
            assert_eq!(found.status, 404, "{}", found.text);
            assert_eq!(found.text, missing.text);
        }
    }
    // Nor is anything learnt from what may be named in a body.
    let hidden = target(&world, "users", &foreign).await.0;
    let answers = [hidden.as_str(), "user_0"]
        .map(|user| json!({ "label": "k", "project": own.project, "user": user }));
    let first = world.ask(&key, "POST /keys", &answers[0]).await;
    let second = world.ask(&key, "POST /keys", &answers[1]).await;
    first.refuses(400, "user");
    assert_eq!(first.text, second.text);
    for scope in [format!("team:{}", foreign.team), "team:team_0".to_owned()] {
        let grants = json!([{ "role": "member", "scope": scope }]);
        let body = json!({ "label": "k", "project": own.project, "grants": grants });
        let answer = world.ask(&key, "POST /keys", &body).await;
        answer.refuses(403, "grants");
        let told = answer.text.replace(&scope, "SCOPE");
        assert!(told.contains("SCOPE is not yours to give anything in"), "{told}");
    }
    let teams = json!({ "email": "a", "organisation": ours, "teams": [foreign.team] });
    world.ask(&key, "POST /users", &teams).await.refuses(400, "teams[0]");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_more_than_they_have() {
    let world = World::new("wider").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let at = format!("organisation:{ours}");
    let admin = world.key(&own.project, "admin", &at).await;
    let owner = json!([{ "role": "owner", "scope": at }]);
    let body = json!({ "label": "k", "project": own.project, "grants": owner });
    let answer = world.ask(&admin, "POST /keys", &body).await;
    answer.refuses(403, "grants");
    assert!(answer.text.contains("users.provision"), "{}", answer.text);
    let body = json!({ "email": "a", "organisation": ours, "grants": owner });
    world.ask(&admin, "POST /users", &body).await.refuses(403, "grants");
    // Nor do they take on what somebody else has: a rotated key is shown to who rotates it.
    let wide = world
        .make(
            "POST /keys",
            json!({
        "label": "wide", "project": own.project, "grants": owner }),
        )
        .await;
    let path = |verb: &str| format!("POST /keys/{}/{verb}", id(&wide));
    world.ask(&admin, &path("rotate"), &json!({})).await.refuses(403, "id");
    let user = world
        .make(
            "POST /users",
            json!({
        "email": "o", "organisation": ours, "grants": owner }),
        )
        .await;
    let change = json!({ "external_id": "mine" });
    let line = format!("PATCH /users/{}", id(&user));
    world.ask(&admin, &line, &change).await.refuses(403, "id");
    // A key that leaked is stopped by whoever is there.
    assert!(
        world.ask(&admin, &path("revoke"), &json!({})).await.expect(200)["revoked_at"].is_i64()
    );
    // Roles are no wider than their maker.
    let maker = world.make(
        "POST /roles",
        json!({
        "name": "maker", "organisation": ours, "permissions": ["roles.write", "keys.read"] }),
    );
    maker.await;
    let maker = world.key(&own.project, "maker", &at).await;
    let role = |permissions: Value| json!({ "name": world.name("r"), "organisation": ours, "permissions": permissions });
    let wide = world.ask(&maker, "POST /roles", &role(json!(["keys.write"]))).await;
    wide.refuses(403, "permissions");
    let made = world.ask(&maker, "POST /roles", &role(json!(["keys.read"]))).await.expect(201);
    let line = format!("PATCH /roles/{}", id(&made));
    let wide = json!({ "permissions": ["keys.read", "keys.write"] });
    world.ask(&maker, &line, &wide).await.refuses(403, "permissions");
}

/// Ids of elsewhere put into requests of one's own: seeds are fixed, so a failure comes again.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_elsewhere_open_nothing() {
    let world = World::new("mixed").await;
    world
        .make(
            "POST /prices",
            json!({ "name": "sheet", "models": [{ "model": "*", "input": 0, "output": 0 }] }),
        )
        .await;
    let (ours, theirs) = (world.organisation("ours").await, world.organisation("theirs").await);
    let own = world.branch(&ours, "own").await;
    let foreign = world.branch(&theirs, "stranger").await;
    let mut ids: Vec<String> = vec![theirs.to_string(), foreign.team.to_string()];
    for kind in ["projects", "users", "roles", "keys", "budgets"] {
        ids.push(target(&world, kind, &foreign).await.0.to_string());
    }
    let key = world.key(&own.project, "owner", &format!("organisation:{ours}")).await;
    let names = names_of(&world, &theirs);
    let table = routes();
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        // Knuth's constants.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % below
    };
    for _ in 0..600 {
        let route = &table[random(table.len())];
        let (mut line, mut body, _) = request(&world, route, &own).await;
        let id = &ids[random(ids.len())];
        if let Some(fields) = body.as_object_mut() {
            // Names are anybody's to choose; these are not.
            const FIELDS: [&str; 8] =
                ["organisation", "team", "project", "user", "scope", "key", "teams", "grants"];
            let name = FIELDS[random(FIELDS.len())];
            let kinds = ["organisation", "team", "project", "user", "key"];
            let scope = format!("{}:{id}", kinds[random(kinds.len())]);
            let value = match name {
                "scope" => json!(scope),
                "teams" => json!([id]),
                "grants" => json!([{ "role": "member", "scope": scope }]),
                _ => json!(id),
            };
            fields.insert(name.to_owned(), value);
        } else if let Some((name, _)) = route.query().get(random(route.query().len().max(1))) {
            let mark = if line.contains('?') { '&' } else { '?' };
            line = format!("{line}{mark}{name}={id}");
        }
        let sent = format!("{line} {body}");
        let answer = world.ask(&key, &line, &body).await;
        let new =
            |name: &&String| answer.text.contains(name.as_str()) && !sent.contains(name.as_str());
        assert_eq!(names.iter().find(new), None, "{sent}: {}", answer.text);
        assert!(answer.status < 500, "{sent}: {}", answer.text);
    }
    // Nothing of theirs has changed.
    assert_eq!(names_of(&world, &theirs), names);
}
