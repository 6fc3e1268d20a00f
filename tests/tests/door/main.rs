//! The door of a governed server, in the real binary: who gets in with a session's cookie, with a
//! service's token, with a key and with nothing; and whose cached prompts are whose.

mod house;
mod office;
mod signin;

use serde_json::{Value, json};

use house::{House, JSON, parsed};
use office::Office;

const CHAT: &str = "POST /v1/chat/completions";

fn chat(content: &str) -> Value {
    json!({
        "model": "demo", "max_tokens": 4,
        "messages": [{ "role": "user", "content": content }],
    })
}

/// Every route that the server itself tells of, and some that nobody serves.
fn every_route(house: &House) -> Vec<String> {
    let index = house.ask_as(&house.root, "GET /", &Value::Null);
    let listed = index.body.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        path.starts_with('/').then(|| format!("{method} {path}"))
    });
    let mut routes: Vec<String> = listed.collect();
    assert!(routes.len() > 12, "{index:?}");
    let admin = house.admin("GET /admin/v1/openapi.json", &Value::Null);
    for (path, methods) in admin["paths"].as_object().expect("paths") {
        let methods = methods.as_object().expect("methods");
        routes.extend(methods.keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    assert!(routes.len() > 40, "{routes:?}");
    let more =
        ["GET /", "GET /nothing", "GET /admin/v1/openapi.json", "POST /health/", "GET //health"];
    routes.extend(more.map(str::to_owned));
    routes.iter().map(|route| route.replace("{id}", "one")).collect()
}

/// The routes that answer somebody who shows this, with what they say; all others ask for a key.
fn open_to(house: &House, shown: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut open = Vec::new();
    for route in every_route(house) {
        let body = if route.starts_with("GET ") { "" } else { "{}" };
        let answer = house.ask(shown, &route, body);
        match answer.status {
            401 => refused(&route, &parsed(&answer)["error"]),
            200 => open.push((route, answer.body)),
            _ => panic!("{route}: {answer:?}"),
        }
    }
    open
}

/// In the words of the route's dialect.
fn refused(route: &str, error: &Value) {
    let (field, word) = match route {
        _ if route.contains(" /v1/messages") => ("type", "authentication_error"),
        _ if route.contains(" /v1beta/") => ("status", "UNAUTHENTICATED"),
        _ => ("code", "invalid_api_key"),
    };
    assert_eq!(error[field], word, "{route}: {error}");
}

#[test]
fn without_a_key_only_probes_answer() {
    let (plain, office) = (House::new(), Office::open());
    let unknown = ("authorization", "Bearer hk-000000000000-nobody");
    let probes = [("GET /health", "ok\n"), ("GET /ready", "ready\n")];
    let probes = probes.map(|(route, says)| (route.to_owned(), says.to_owned()));
    for shown in [&[JSON][..], &[JSON, unknown]] {
        for house in [&plain, &office.house] {
            assert_eq!(open_to(house, shown), probes);
        }
        let link = r#"{"user": "user_1"}"#;
        assert_eq!(office.house.ask(shown, "POST /signin/link", link).status, 401);
        assert_eq!(plain.ask(shown, "GET /signin", "").status, 401, "nobody may sign in there");
    }
}

#[test]
fn figures_are_for_monitors() {
    let house = House::new();
    let team = house.make("teams", &json!({ "name": "ops" }));
    let project = house.make("projects", &json!({ "name": "watch", "team": team }));
    let figures = |key: &str| house.ask_as(key, "GET /metrics", &Value::Null);
    let monitor = |scope: &str| json!([{ "role": "monitor", "scope": scope }]);
    let refused = [json!([]), monitor(&format!("team:{team}"))];
    for grants in &refused {
        let answer = figures(&house.key(&project, grants));
        assert_eq!(answer.status, 403, "{grants}: {answer:?}");
        assert!(answer.body.contains("metrics.read"), "{grants}: {answer:?}");
    }
    let key = house.key(&project, &monitor("everything"));
    assert_eq!(house.ask_as(&key, CHAT, &chat("Hello!")).status, 200);
    assert_eq!(house.ask_as(&key, "GET /admin/v1/keys", &Value::Null).status, 403, "no more");
    let answer = figures(&key);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let said = |line: &str| answer.body.lines().any(|one| one == line);
    for (code, route, count) in [(403, "/metrics", 2), (200, "/v1/chat/completions", 1)] {
        let line =
            format!("hearth_http_requests_total{{code=\"{code}\",route=\"{route}\"}} {count}");
        assert!(said(&line), "{line} is not in\n{}", answer.body);
    }
    assert!(!answer.body.contains("hk-"), "keys are nobody's figures");
}

#[test]
fn cached_prompts_stay_in_their_team() {
    let house = House::new();
    let key = |team: &str, project: &str| {
        let project = house.make("projects", &json!({ "name": project, "team": team }));
        house.key(&project, &json!([]))
    };
    let [ours, theirs] =
        ["ours", "theirs"].map(|name| house.make("teams", &json!({ "name": name })));
    let body = chat(&"The code of the red door is 4711. ".repeat(30));
    let ask = |key: &str| {
        let answer = house.ask_as(key, CHAT, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let usage = parsed(&answer)["usage"].clone();
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
        (usage["prompt_tokens"].as_u64().expect("a number"), cached)
    };
    // Two projects of one team: it is the team that shares.
    let (prompt, first) = ask(&key(&ours, "one"));
    assert!(prompt > 300 && first == 0, "{first} of {prompt}");
    let (_, second) = ask(&key(&ours, "two"));
    assert!(second > prompt / 2, "{second} of {prompt} from our own cache");
    let stranger = key(&theirs, "three");
    assert_eq!(ask(&stranger).1, 0, "what we asked tells nothing");
    assert_eq!(ask(&stranger).1, second, "what they asked themselves is theirs");
}
