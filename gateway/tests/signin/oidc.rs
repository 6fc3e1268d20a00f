//! Signing in at a provider, and everything that goes wrong on that way.

use govern::identity::jwt::BYTES_MAX;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::browser::{Browser, With};
use super::world::World;

const START: &str = "/signin/oidc/corp";
const FLOW: &str = "hearth-flow";
const SESSION: &str = "hearth";

/// A person at the provider.
async fn ann(world: &World, other: Value) {
    let mut claims = json!({
        "sub": "ann-1", "email": "ann@example.org", "email_verified": true, "name": "Ann Lee",
        "groups": ["lab"],
    });
    for (name, value) in other.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    world.corp().ask("person", claims).await;
}

/// What the server has a browser keep, opened.
fn flow(world: &World, browser: &Browser) -> Value {
    let sealed = browser.cookie(FLOW).expect("a flow");
    let opened = world.keyring.open(&sealed, "signin/oidc/corp").expect("sealed by us");
    serde_json::from_slice(opened.expose()).expect("JSON")
}

fn put_flow(world: &World, browser: &mut Browser, flow: &Value) {
    let sealed = world.keyring.seal(flow.to_string().as_bytes(), "signin/oidc/corp");
    browser.put(FLOW, &sealed);
}

#[tokio::test]
async fn a_whole_sign_in() {
    let world = World::with_provider().await;
    ann(&world, json!({})).await;
    let mut browser = world.browser();
    let page = browser.get("/signin?return_to=/admin/v1").await;
    assert_eq!(page.status, 200);
    let link = "<a href=\"/signin/oidc/corp?return_to=/admin/v1\">Sign in with Corp &lt;&amp;&gt;";
    assert!(page.body.contains(link), "{}", page.body);
    let begun = browser.get("/signin/oidc/corp?return_to=/admin/v1").await;
    let url = Url::parse(begun.location()).expect("a URL");
    let asked: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(asked["response_type"], "code");
    assert_eq!(asked["code_challenge_method"], "S256");
    assert_eq!(asked["scope"], "openid email profile groups");
    assert!(asked["state"].len() >= 22 && asked["nonce"].len() >= 22);
    assert!(!begun.cookies()[0].contains(&asked["state"]), "it is sealed");
    let back = browser.visit("/signin/oidc/corp?return_to=/admin/v1", "ann-1").await;
    let answer = browser.get(&back).await;
    assert_eq!((answer.status, answer.location()), (303, "/admin/v1"), "{answer:?}");
    let me = browser.get("/signin/me").await.json();
    assert_eq!(me["user"]["email"], "ann@example.org");
    assert_eq!((&me["user"]["name"], &me["way"]), (&json!("Ann Lee"), &json!("oidc:corp")));
    assert_eq!(me["teams"], json!([world.research]));
    assert_eq!(browser.cookie(FLOW), None, "good for one way only");
    let page = browser.get("/signin").await;
    assert!(page.body.contains("You are ann@example.org"), "{}", page.body);
    // The groups are other ones now.
    ann(&world, json!({ "groups": ["chess"], "name": "Ann Li" })).await;
    let mut second = world.browser();
    let back = second.visit(START, "ann-1").await;
    assert_eq!(second.get(&back).await.location(), "/");
    let user = world.user("ann@example.org").expect("an account");
    assert!(user.teams.is_empty() && user.grants.is_empty(), "{user:?}");
    assert_eq!((user.name.as_str(), user.external_id.as_deref()), ("Ann Li", Some("corp:ann-1")));
    assert_eq!(browser.get("/signin/me").await.json()["grants"], json!([]), "and at once");
}

#[tokio::test]
async fn who_stays_out() {
    let world = World::with_provider().await;
    let refused = async |rule: &str| {
        let mut browser = world.browser();
        let back = browser.visit(START, "ann-1").await;
        let answer = browser.get(&back).await;
        assert_eq!(answer.status, 403 - 2 * u16::from(rule == "disabled"), "{rule}: {answer:?}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.contains("html")));
        assert_eq!(browser.cookie(SESSION), None, "{rule}");
    };
    ann(&world, json!({ "email": "ann@elsewhere.org" })).await;
    refused("another domain").await;
    ann(&world, json!({ "email_verified": false })).await;
    refused("not verified").await;
    assert!(world.user("ann@example.org").is_none() && world.user("ann@elsewhere.org").is_none());
    ann(&world, json!({})).await;
    let mut browser = world.browser();
    let back = browser.visit(START, "ann-1").await;
    assert_eq!(browser.get(&back).await.status, 303);
    let mut user = world.user("ann@example.org").expect("an account");
    user.disabled = true;
    world.put(&user).await;
    refused("disabled").await;
    let over = browser.get("/signin/me").await;
    assert_eq!((over.status, over.code().as_str()), (401, "user_disabled"), "out at once");
    user.disabled = false;
    world.put(&user).await;
    let over = browser.get("/signin/me").await;
    assert_eq!((over.status, over.code().as_str()), (401, "invalid_api_key"), "and for good");
}

#[tokio::test]
async fn the_way_back_is_the_same_browsers_and_taken_once() {
    let world = World::with_provider().await;
    ann(&world, json!({})).await;
    let mut browser = world.browser();
    let back = browser.visit(START, "ann-1").await;
    let kept = browser.cookie(FLOW).expect("a flow");
    let mut url = Url::parse(&back).expect("a URL");
    let good: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let with = |name: &str, value: Option<&str>| {
        let mut url = url.clone();
        url.query_pairs_mut().clear().extend_pairs(good.iter().filter_map(|(n, v)| {
            let other = if n == name { value } else { Some(v.as_str()) };
            other.map(|v| (n.as_str(), v.to_owned()))
        }));
        url.to_string()
    };
    for (what, url, status) in [
        ("another state", with("state", Some("x")), 403),
        ("no state", with("state", None), 403),
        ("an empty state", with("state", Some("")), 403),
        ("another provider", with("iss", Some("https://evil.example")), 403),
        ("no code", with("code", None), 403),
        ("another code", with("code", Some("x")), 401),
    ] {
        let mut attacked = world.browser();
        attacked.put(FLOW, &kept);
        let answer = attacked.get(&url).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(attacked.cookie(SESSION), None, "{what}");
        assert_eq!(attacked.cookie(FLOW), None, "{what}: begin anew");
    }
    // A link that somebody sends to somebody else, to sign them in as the sender.
    let mut victim = world.browser();
    assert_eq!(victim.get(&back).await.status, 403);
    victim.get(START).await;
    assert_eq!(victim.get(&back).await.status, 403, "the victim's own flow is another");
    let mut altered = world.browser();
    altered.put(FLOW, &kept.replace(&kept[kept.len() - 8..], "AAAAAAAA"));
    assert_eq!(altered.get(&back).await.status, 403);
    // Once it works, and not again.
    assert_eq!(browser.get(&back).await.status, 303);
    let mut again = world.browser();
    again.put(FLOW, &kept);
    assert_eq!(again.get(&back).await.status, 401, "a code is good once");
    assert_eq!(again.cookie(SESSION), None);
    url.set_query(Some("error=access_denied&state=x"));
    assert_eq!(again.get(url.as_str()).await.status, 403);
}

#[tokio::test]
async fn nonce_verifier_and_time_are_checked() {
    let world = World::with_provider().await;
    ann(&world, json!({})).await;
    for (field, value, status) in [
        ("nonce", json!("x"), 401),
        ("verifier", json!("x".repeat(43)), 401),
        ("expires_at", json!(1), 403),
        ("return_to", json!("//evil.example"), 303),
    ] {
        let mut browser = world.browser();
        let back = browser.visit(START, "ann-1").await;
        let mut flow = flow(&world, &browser);
        flow[field] = value;
        put_flow(&world, &mut browser, &flow);
        let answer = browser.get(&back).await;
        assert_eq!(answer.status, status, "{field}: {answer:?}");
        assert_eq!(browser.cookie(SESSION).is_some(), status == 303, "{field}");
        if status == 303 {
            assert_eq!(answer.location(), "/", "{field}");
        }
    }
    let mut slow = world.browser();
    let back = slow.visit(START, "ann-1").await;
    world.later(10 * 60_000);
    assert_eq!(slow.get(&back).await.status, 403, "too slow");
}

#[tokio::test]
async fn no_open_redirect() {
    let world = World::with_provider().await;
    for (to, expect) in [
        ("/admin/v1", "/admin/v1"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/%5Cevil.example", "/"),
        ("%2F%09%2Fevil.example", "/"),
        ("javascript:alert(1)", "/"),
    ] {
        let mut browser = world.browser();
        assert_eq!(browser.get(&format!("{START}?return_to={to}")).await.status, 303);
        assert_eq!(flow(&world, &browser)["return_to"], expect, "{to}");
        let page = browser.get(&format!("/signin?return_to={to}")).await;
        assert!(!page.body.contains("evil"), "{}", page.body);
    }
}

#[tokio::test]
async fn signing_in_makes_a_new_session() {
    let world = World::with_provider().await;
    ann(&world, json!({})).await;
    world.person("eve@example.org").await;
    // Eve puts her own session, and one that nobody has, into Ann's browser.
    let eve = world.signed_in("eve@example.org").await.cookie(SESSION).expect("a session");
    for planted in [eve, "x".repeat(43)] {
        let mut browser = world.browser();
        browser.put(SESSION, &planted);
        let back = browser.visit(START, "ann-1").await;
        assert_eq!(browser.get(&back).await.status, 303);
        let fresh = browser.cookie(SESSION).expect("a session");
        assert_ne!(fresh, planted);
        assert_eq!(browser.get("/signin/me").await.json()["user"]["email"], "ann@example.org");
        let mut planter = world.browser();
        planter.put(SESSION, &planted);
        assert_eq!(planter.get("/signin/me").await.status, 401, "the planted one is void");
    }
}

#[tokio::test]
async fn keys_rotate_and_providers_go_away() {
    let world = World::with_provider().await;
    ann(&world, json!({})).await;
    let sign_in = async || {
        let mut browser = world.browser();
        let back = browser.visit(START, "ann-1").await;
        browser.get(&back).await.status
    };
    assert_eq!(sign_in().await, 303);
    world.corp().ask("rotate", json!({})).await;
    ann(&world, json!({})).await;
    world.later(11_000);
    assert_eq!(sign_in().await, 303, "a new key is found");
    world.corp().ask("keys", json!({ "away": true })).await;
    world.later(60_000);
    assert_eq!(sign_in().await, 303, "known keys go on");
    let with = With { headers: vec![("authorization", "Bearer x.y.z".into())], ..With::default() };
    let probe = world.browser().send(Method::GET, "/probe", with).await;
    assert_eq!((probe.status, probe.code().as_str()), (401, "invalid_api_key"));
    let long = format!("/signin/oidc/corp/callback?code={}&state=x", "c".repeat(BYTES_MAX));
    assert_eq!(world.browser().get(&long).await.status, 403);
    assert_eq!(world.browser().get("/signin/oidc/none").await.status, 404);
    assert_eq!(world.browser().get("/signin/oidc/none/callback?code=x").await.status, 404);
}
