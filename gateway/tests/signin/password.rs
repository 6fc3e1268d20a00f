//! Passwords, one-time codes, links, cookies, and what other sites' pages may have a browser do.

use std::time::Instant;

use govern::Scope;
use govern::entity::{Grant, User};
use govern::identity::password::verify;
use govern::identity::totp::{Totp, step_of};
use reqwest::Method;
use serde_json::{Value, json};

use super::browser::{Browser, With};
use super::world::{PASSWORD, World, login};

const SESSION: &str = "hearth";

#[tokio::test]
async fn a_password_opens_a_session() {
    let world = World::plain().await;
    world.person("ann@example.org").await;
    let mut browser = world.browser();
    let page = browser.get("/signin?return_to=/admin/v1").await;
    assert!(page.body.contains("name=\"return_to\" value=\"/admin/v1\""), "{}", page.body);
    for (name, expect) in [
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.header(name), Some(expect), "{name}");
    }
    let form = [("email", "Ann@Example.org"), ("password", PASSWORD), ("return_to", "/admin/v1")];
    let answer = browser.form("/signin/password", &form).await;
    assert_eq!((answer.status, answer.location()), (303, "/admin/v1"), "{answer:?}");
    let [cookie] = answer.cookies()[..] else { panic!("{answer:?}") };
    let (token, rest) = cookie.split_once("; ").expect("attributes");
    assert_eq!(token.len(), "hearth=".len() + 43);
    assert_eq!(rest, "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax");
    let me = browser.get("/signin/me").await.json();
    assert_eq!((&me["user"]["email"], &me["way"]), (&json!("ann@example.org"), &json!("password")));
    assert_eq!(me["totp"], false);
    let probe = browser.get("/probe").await.json();
    assert_eq!((&probe["who"], &probe["project"]), (&json!("ann@example.org"), &Value::Null));
    // JSON is answered with JSON.
    let mut program = world.browser();
    let body = json!({ "email": "ann@example.org", "password": PASSWORD });
    let answer = program.json("/signin/password", body).await;
    assert_eq!((answer.status, answer.json()["signed_in"].clone()), (200, json!(true)));
    // Twelve hours, or one without use.
    world.later(3_600_000);
    let over = browser.get("/probe").await;
    assert_eq!((over.status, over.code().as_str()), (401, "invalid_api_key"));
}

#[tokio::test]
async fn nobody_learns_who_has_an_account() {
    let world = World::plain().await;
    let bare = world.person("bob@example.org").await;
    world.put(&User { password: None, ..bare }).await;
    world.person("ann@example.org").await;
    let people = ["eve@example.org", "ann@example.org", "bob@example.org", "' OR 1=1 --"];
    let (mut browser, mut answers) = (world.browser(), Vec::new());
    // The least seconds of each, and of the work alone, taken in turns: on a busy machine all of
    // them may take long at times.
    let (mut times, mut work) = ([f64::MAX; 4], f64::MAX);
    for _ in 0..10 {
        for (email, least) in people.iter().zip(&mut times) {
            // Nobody is slowed down here.
            world.later(24 * 3_600_000);
            let body = json!({ "email": email, "password": "wrong but long" });
            let begin = Instant::now();
            let answer = browser.json("/signin/password", body).await;
            *least = least.min(begin.elapsed().as_secs_f64());
            assert_eq!(answer.status, 401);
            assert!(answer.cookies().is_empty());
            answers.push(answer.body);
        }
        let begin = Instant::now();
        assert!(!verify(PASSWORD, None));
        work = work.min(begin.elapsed().as_secs_f64());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    println!("{work:.4} s for a password, {times:.4?} s for an answer");
    assert!(times.iter().all(|time| *time > work / 3.0), "{work} {times:?}");
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let world = World::plain().await;
    world.person("ann@example.org").await;
    for _ in 0..5 {
        let answer =
            world.browser().form("/signin/password", &login("ann@example.org", "no")).await;
        assert_eq!(answer.status, 401);
    }
    for password in ["no", PASSWORD] {
        let answer =
            world.browser().form("/signin/password", &login("ann@example.org", password)).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.body.contains("too many attempts"), "{}", answer.body);
    }
    let stranger = world.browser().form("/signin/password", &login("eve@x.org", "no")).await;
    assert_eq!(stranger.status, 401, "others are not");
    world.later(1000);
    let _ = world.signed_in("ann@example.org").await;
    let answer = world.browser().form("/signin/password", &login("ann@example.org", "no")).await;
    assert_eq!(answer.status, 401, "it begins anew");
}

/// Enrols an app; its secret.
async fn enrol(browser: &mut Browser, world: &World, code: Option<&str>) -> Totp {
    let body = code.map_or_else(|| json!({}), |code| json!({ "code": code }));
    let answer = browser.act("/signin/totp/enrol", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let made = answer.json();
    let secret = Totp::of_base32(made["secret"].as_str().expect("a secret")).expect("base32");
    assert!(made["uri"].as_str().expect("a URI").starts_with("otpauth://totp/Hearth%20default:"));
    let confirm = |code: String| json!({ "enrolment": made["enrolment"], "code": code });
    let now = world.governor.now();
    let wrong = secret.code(step_of(now) + 100);
    let refused = browser.act("/signin/totp/enrol/confirm", confirm(wrong)).await;
    assert_eq!(refused.status, 401, "{refused:?}");
    let right = secret.code(step_of(now));
    let answer = browser.act("/signin/totp/enrol/confirm", confirm(right)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    secret
}

#[tokio::test]
async fn one_time_codes() {
    let world = World::plain().await;
    let user = world.person("ann@example.org").await;
    let mut browser = world.signed_in("ann@example.org").await;
    let secret = enrol(&mut browser, &world, None).await;
    let kept = world.user("ann@example.org").and_then(|user| user.totp).expect("sealed");
    assert!(kept.starts_with("v1.") && !kept.contains(&secret.base32()));
    let place = govern::identity::session::totp_place(&user.id);
    assert!(world.keyring.open(&kept, &place).is_ok());
    let code = |world: &World| secret.code(step_of(world.governor.now()));
    // The password alone is not enough any more.
    let mut second = world.browser();
    let answer = second.form("/signin/password", &login("ann@example.org", PASSWORD)).await;
    assert_eq!((answer.status, answer.location()), (303, "/signin/totp"));
    assert_eq!(second.cookie(SESSION), None);
    assert_eq!(second.get("/probe").await.json()["who"], Value::Null);
    assert_eq!(second.get("/signin/totp").await.status, 200);
    let used = second.form("/signin/totp", &[("code", &code(&world))]).await;
    assert_eq!(used.status, 401, "the enrolment used it");
    world.later(30_000);
    let right = code(&world);
    let answer = second.form("/signin/totp", &[("code", &right)]).await;
    assert_eq!((answer.status, answer.location()), (303, "/"), "{answer:?}");
    assert!(second.cookie(SESSION).is_some() && second.cookie("hearth-second").is_none());
    let mut third = world.browser();
    third.form("/signin/password", &login("ann@example.org", PASSWORD)).await;
    let half = third.cookie("hearth-second").expect("half in");
    let again = third.form("/signin/totp", &[("code", &right)]).await;
    assert_eq!(again.status, 401, "a code counts once");
    // Guessing codes is slowed down, and a right password does not help.
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(third.form("/signin/totp", &[("code", "000000")]).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 429, 429]);
    // Being half in ends by itself, and belongs to nobody else.
    world.later(5 * 60_000);
    let late = third.form("/signin/totp", &[("code", &code(&world))]).await;
    assert_eq!(late.status, 401, "too late");
    let mut forger = world.browser();
    forger.put("hearth-second", &half.replace(&half[half.len() - 6..], "AAAAAA"));
    assert_eq!(forger.form("/signin/totp", &[("code", &code(&world))]).await.status, 401);
    assert_eq!(world.browser().form("/signin/totp", &[("code", "000000")]).await.status, 401);
}

#[tokio::test]
async fn another_app_needs_the_first_ones_code() {
    let world = World::plain().await;
    world.person("ann@example.org").await;
    world.person("bob@example.org").await;
    let mut browser = world.signed_in("ann@example.org").await;
    let first = enrol(&mut browser, &world, None).await;
    let refused = browser.act("/signin/totp/enrol", json!({})).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "permission_denied"));
    world.later(60_000);
    let code = first.code(step_of(world.governor.now()));
    world.later(1000);
    let made = browser.act("/signin/totp/enrol", json!({ "code": code })).await;
    assert_eq!(made.status, 200, "{made:?}");
    // An enrolment is its person's.
    let enrolment = made.json()["enrolment"].clone();
    let secret = Totp::of_base32(made.json()["secret"].as_str().expect("one")).expect("base32");
    let mut bob = world.signed_in("bob@example.org").await;
    let body = json!({
        "enrolment": enrolment, "code": secret.code(step_of(world.governor.now())),
    });
    let refused = bob.act("/signin/totp/enrol/confirm", body).await;
    assert_eq!(refused.status, 403, "{refused:?}");
}

#[tokio::test]
async fn other_sites_change_nothing() {
    let world = World::plain().await;
    world.person("ann@example.org").await;
    let mut browser = world.signed_in("ann@example.org").await;
    let csrf = browser.get("/signin/me").await.json()["csrf"].as_str().expect("one").to_owned();
    let mut other = world.signed_in("ann@example.org").await;
    let foreign = other.get("/signin/me").await.json()["csrf"].as_str().expect("one").to_owned();
    let ours = world.origin.clone();
    let evil = "http://evil.example".to_owned();
    let cases = [
        (None, Some(csrf.clone()), 403),
        (Some("null".to_owned()), Some(csrf.clone()), 403),
        (Some(evil.clone()), Some(csrf.clone()), 403),
        (Some(format!("{ours}.evil.example")), Some(csrf.clone()), 403),
        (Some(ours.replace("http:", "https:")), Some(csrf.clone()), 403),
        (Some(ours.clone()), None, 403),
        (Some(ours.clone()), Some(String::new()), 403),
        (Some(ours.clone()), Some(foreign), 403),
        (Some(ours.clone()), Some(csrf.clone()), 200),
    ];
    for (origin, proof, status) in cases {
        for path in ["/probe", "/signin/totp/enrol", "/signout"] {
            if path == "/signout" && status == 200 {
                continue;
            }
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                if method != Method::POST && path != "/probe" {
                    continue;
                }
                let headers = proof.iter().map(|proof| ("x-hearth-csrf", proof.clone())).collect();
                let origin = Some(origin.clone());
                let with = With { json: Some(json!({})), headers, origin, ..With::default() };
                let answer = browser.send(method, path, with).await;
                assert_eq!(answer.status, status, "{path} {proof:?} {answer:?}");
            }
        }
    }
    assert_eq!(browser.get("/probe").await.status, 200, "reading needs no proof");
    // Nor may other sites sign somebody in.
    for origin in [None, Some(evil)] {
        let form = login("ann@example.org", PASSWORD);
        let form = form.map(|(name, value)| (name, value.to_owned())).to_vec();
        let with = With { form: Some(form), origin: Some(origin), ..With::default() };
        let mut victim = world.browser();
        let answer = victim.send(Method::POST, "/signin/password", with).await;
        assert_eq!((answer.status, victim.cookie(SESSION)), (403, None));
    }
    // A key or token beside a cookie counts alone.
    let headers = vec![("authorization", format!("Bearer {}", world.owner_key))];
    let with = With { headers, ..With::default() };
    let answer = browser.send(Method::POST, "/probe", with).await;
    assert_eq!((answer.status, answer.json()["who"].clone()), (200, Value::Null));
}

#[tokio::test]
async fn signing_out_ends_it() {
    let world = World::plain().await;
    world.person("ann@example.org").await;
    let mut browser = world.signed_in("ann@example.org").await;
    let mut other = world.signed_in("ann@example.org").await;
    let token = browser.cookie(SESSION).expect("a session");
    let page = browser.get("/signin").await.body;
    let proof = page.split("name=\"csrf\" value=\"").nth(1).expect("a proof");
    let proof = proof.split('"').next().expect("its end").to_owned();
    let answer = browser.form("/signout", &[("csrf", &proof)]).await;
    assert_eq!((answer.status, answer.location()), (303, "/signin"), "{answer:?}");
    assert_eq!(browser.cookie(SESSION), None);
    let mut thief = world.browser();
    thief.put(SESSION, &token);
    assert_eq!(thief.get("/probe").await.status, 401, "the token is void");
    assert_eq!(other.get("/probe").await.status, 200, "another session goes on");
    assert_eq!(other.act("/signout", json!({})).await.json()["signed_out"], true);
}

#[tokio::test]
async fn whoever_is_disabled_is_out_at_once() {
    let world = World::plain().await;
    let user = world.person("ann@example.org").await;
    let mut browser = world.signed_in("ann@example.org").await;
    world.put(&User { disabled: true, ..user.clone() }).await;
    let out = browser.get("/probe").await;
    assert_eq!((out.status, out.code().as_str()), (401, "user_disabled"));
    let answer =
        world.browser().form("/signin/password", &login("ann@example.org", PASSWORD)).await;
    assert_eq!(answer.status, 401);
    world.put(&user).await;
    assert_eq!(browser.get("/probe").await.status, 401, "that session is over");
    let mut fresh = world.signed_in("ann@example.org").await;
    world.signin.sessions().end_all(&user.id).await.expect("ended");
    assert_eq!(fresh.get("/probe").await.status, 401, "ended by an administrator");
}

/// A link for this person, made with a key.
async fn link(world: &World, key: &str, user: &Value) -> (u16, String) {
    let headers = vec![("authorization", format!("Bearer {key}"))];
    let with = With { json: Some(json!({ "user": user })), headers, ..With::default() };
    let answer = world.browser().send(Method::POST, "/signin/link", with).await;
    let url = answer.json()["url"].as_str().unwrap_or("").to_owned();
    (answer.status, url)
}

#[tokio::test]
async fn a_link_sets_a_password_once() {
    let world = World::plain().await;
    let user = world.person("ann@example.org").await;
    let mut before = world.signed_in("ann@example.org").await;
    let (status, url) = link(&world, &world.owner_key, &json!(user.id)).await;
    assert_eq!(status, 200);
    let mut browser = world.browser();
    let page = browser.get(&url).await;
    assert!(page.status == 200 && page.body.contains("ann@example.org"), "{page:?}");
    let short = browser.form(&url, &[("password", "too short")]).await;
    assert_eq!(short.status, 400, "{short:?}");
    let new = "another long password";
    let answer = browser.form(&url, &[("password", new)]).await;
    assert_eq!((answer.status, answer.location()), (303, "/signin"), "{answer:?}");
    assert_eq!(before.get("/probe").await.status, 401, "what was begun before is over");
    let again = browser.form(&url, &[("password", "mine from now on")]).await;
    assert_eq!(again.status, 404, "used");
    assert_eq!(browser.get(&url).await.status, 404);
    let old = browser.form("/signin/password", &login("ann@example.org", PASSWORD)).await;
    assert_eq!(old.status, 401);
    let answer = browser.form("/signin/password", &login("ann@example.org", new)).await;
    assert_eq!(answer.status, 303);
    let (_, url) = link(&world, &world.owner_key, &json!(user.id)).await;
    world.later(24 * 3_600_000);
    assert_eq!(browser.get(&url).await.status, 404, "a day is over");
}

#[tokio::test]
async fn who_may_make_links() {
    let world = World::plain().await;
    let ann = world.person("ann@example.org").await;
    let admin = world.person("admin@example.org").await;
    let home = Scope::Organisation(world.home.clone());
    let grants =
        |role: &str, scope: &Scope| vec![Grant { role: role.into(), scope: scope.clone() }];
    world.put(&User { grants: grants("admin", &home), ..admin.clone() }).await;
    let owner = world.person("owner@example.org").await;
    world.put(&User { grants: grants("owner", &Scope::Everything), ..owner.clone() }).await;
    let bot = world.person("bot").await;
    world.put(&User { service: true, grants: Vec::new(), ..bot.clone() }).await;
    let mut browser = world.signed_in("admin@example.org").await;
    for (user, status) in [
        (json!(ann.id), 200),
        (json!(owner.id), 403),
        (json!(bot.id), 403),
        (json!("user_nobody"), 404),
        (json!("'; DROP TABLE links; --"), 404),
        (json!(7), 400),
    ] {
        let answer = browser.act("/signin/link", json!({ "user": user })).await;
        assert_eq!(answer.status, status, "{user}: {answer:?}");
    }
    // A developer may not, and learns nothing of who is there.
    let mut browser = world.signed_in("ann@example.org").await;
    for user in [json!(owner.id), json!("user_nobody")] {
        let answer = browser.act("/signin/link", json!({ "user": user })).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{user}");
    }
    assert_eq!(link(&world, "hk-wrong", &json!(ann.id)).await.0, 401);
    let answer = world.browser().json("/signin/link", json!({ "user": ann.id })).await;
    assert_eq!(answer.status, 401, "nobody at all");
    let answer = world.browser().json("/signin/link", json!({ "user": 7, "more": true })).await;
    assert_eq!(answer.status, 401, "strangers learn nothing of bodies");
}

#[tokio::test]
async fn bodies_are_bounded_and_strict() {
    let world = World::plain().await;
    for (body, status) in [
        (json!({ "email": "x", "password": "x".repeat(20 << 10) }), 400),
        (json!({ "email": "x", "password": "x", "admin": true }), 400),
        (json!({ "email": "x" }), 400),
        (json!([]), 400),
    ] {
        let answer = world.browser().json("/signin/password", body).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}
