//! People who sign in, by password and at a provider, and services that show tokens.

use std::collections::BTreeMap;

use hearth_tests::http::Answer;
use serde_json::{Value, json};

use super::house::{JSON, exchange, parsed, text};
use super::office::{ORIGIN, Office, now_s};
use super::{CHAT, chat};

/// The cookie's name under an origin of HTTPS.
const COOKIE: &str = "__Host-hearth=";

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const FROM_US: (&str, &str) = ("origin", ORIGIN);

/// The cookies that an answer sets, whole.
fn cookies(answer: &Answer) -> impl Iterator<Item = &str> {
    answer.headers.iter().filter_map(|line| line.strip_prefix("set-cookie: "))
}

#[test]
fn a_person_gets_in_by_a_link_and_a_password() {
    let office = Office::open();
    let house = &office.house;
    let link = office.link();
    let page = house.ask(&[], &format!("GET {link}"), "");
    assert!(page.status == 200 && page.body.contains("eve@example.org"), "{page:?}");
    let password = "password=correct+horse+battery";
    let set = format!("POST {link}");
    assert_eq!(house.ask(&[FORM], &set, password).status, 403, "not from a page of ours");
    assert_eq!(house.ask(&[FORM, FROM_US], &set, password).status, 303);
    let again = house.ask(&[FORM, FROM_US], &set, "password=another+horse+battery");
    assert_eq!(again.status, 404, "once: {again:?}");
    let sign_in = |password: &str| {
        let form = format!("email=eve%40example.org&{password}");
        house.ask(&[FORM, FROM_US], "POST /signin/password", &form)
    };
    let wrong = sign_in("password=another+horse+battery");
    assert_eq!((wrong.status, cookies(&wrong).count()), (401, 0), "{wrong:?}");
    let right = sign_in(password);
    assert_eq!(right.status, 303, "{right:?}");
    let set: Vec<_> = cookies(&right).collect();
    assert!(set.len() == 1 && set[0].starts_with(COOKIE), "{set:?}");
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
        assert!(set[0].split("; ").any(|one| one == attribute), "{attribute}: {set:?}");
    }
    let cookie = set[0].split(';').next().expect("the pair");
    let people = house.ask(&[("cookie", cookie)], "GET /admin/v1/users", "");
    assert_eq!(people.status, 200, "{people:?}");
    assert_eq!(parsed(&people)["data"][0]["id"], json!(office.eve));
    let nobody = [COOKIE, &"A".repeat(43)].concat();
    assert_eq!(house.ask(&[("cookie", &nobody)], "GET /admin/v1/users", "").status, 401);
    // Whoever is disabled is out at the next request.
    let eve = format!("PATCH /admin/v1/users/{}", office.eve);
    house.admin(&eve, &json!({ "disabled": true }));
    let over = house.ask(&[("cookie", cookie)], "GET /admin/v1/users", "");
    assert_eq!(over.status, 401, "{over:?}");
}

#[test]
fn a_cookie_alone_changes_nothing() {
    let office = Office::open();
    let house = &office.house;
    let password = "password=correct+horse+battery";
    house.ask(&[FORM, FROM_US], &format!("POST {}", office.link()), password);
    let session = || {
        let form = format!("email=eve%40example.org&{password}");
        let answer = house.ask(&[FORM, FROM_US], "POST /signin/password", &form);
        let set = cookies(&answer).next().unwrap_or_else(|| panic!("{answer:?}"));
        set.split(';').next().expect("the pair").to_owned()
    };
    let proof = |cookie: &str| text(&parsed(&office.me(cookie))["csrf"]);
    let (own, other) = (session(), session());
    let (of_own, of_other) = (proof(&own), proof(&other));
    let (cookie, csrf) = (("cookie", own.as_str()), ("x-hearth-csrf", of_own.as_str()));
    let make = |headers: &[(&str, &str)]| {
        house.ask(&[&[JSON], headers].concat(), "POST /admin/v1/teams", r#"{"name": "new"}"#)
    };
    for (what, headers) in [
        ("the cookie alone", &[cookie][..]),
        ("no proof", &[cookie, FROM_US]),
        ("an empty proof", &[cookie, FROM_US, ("x-hearth-csrf", "")]),
        ("another session's proof", &[cookie, FROM_US, ("x-hearth-csrf", &of_other)]),
        ("no origin", &[cookie, csrf]),
        ("another origin", &[cookie, csrf, ("origin", "https://evil.example.org")]),
    ] {
        let answer = make(headers);
        assert_eq!(answer.status, 403, "{what}: {answer:?}");
        assert_eq!(parsed(&answer)["error"]["code"], "permission_denied", "{what}");
    }
    assert_eq!(make(&[csrf, FROM_US]).status, 401, "the proof without the cookie");
    let teams = || {
        let found = house.admin("GET /admin/v1/teams?name=new", &Value::Null);
        found["data"].as_array().expect("a list").len()
    };
    assert_eq!(teams(), 0, "nothing was made");
    let made = make(&[cookie, csrf, FROM_US]);
    assert_eq!((made.status, teams()), (201, 1), "{made:?}");
    assert_eq!(house.ask(&[cookie, FROM_US], "POST /signout", "").status, 403);
    assert_eq!(house.ask(&[cookie, csrf, FROM_US], "POST /signout", "").status, 200);
    assert_eq!(house.ask(&[cookie], "GET /admin/v1/users", "").status, 401, "it has ended");
}

/// A browser between our server and the provider: what each of them has it keep.
#[derive(Default)]
struct Browser(BTreeMap<String, BTreeMap<String, String>>);

impl Browser {
    fn go(&mut self, url: &str, line: &str, form: &str) -> Answer {
        let jar = self.0.entry(url.to_owned()).or_default();
        let sent: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = exchange(url, &[FORM, ("cookie", &sent.join("; "))], line, form);
        for cookie in cookies(&answer) {
            let pair = cookie.split(';').next().and_then(|pair| pair.split_once('='));
            let (name, value) = pair.expect("a pair");
            jar.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// Goes to the provider and back as this person; what our server says then.
    fn visit(&mut self, office: &Office, person: &str) -> Answer {
        let (ours, issuer) = (&office.house.server.url, &office.provider.issuer);
        let mut answer = self.go(ours, "GET /signin/oidc/corp", "");
        for _ in 0..8 {
            let to = answer.header("location").unwrap_or_else(|| panic!("{answer:?}"));
            if let Some(back) = to.strip_prefix(ORIGIN) {
                return self.go(ours, &format!("GET {back}"), "");
            }
            let path = to.strip_prefix(issuer.as_str()).unwrap_or(to).to_owned();
            answer = self.go(issuer, &format!("GET {path}"), "");
            if answer.status == 200 {
                let login = format!("prompt=login&login={person}&password=any");
                answer = self.go(issuer, &format!("POST {path}"), &login);
            }
        }
        panic!("the provider does not come to an end: {answer:?}");
    }
}

#[test]
fn a_person_gets_in_at_the_provider_with_the_groups_of_the_page() {
    let office = Office::open();
    let ways = office.house.ask(&[], "GET /signin", "");
    assert!(ways.status == 200 && ways.body.contains("/signin/oidc/corp"), "{ways:?}");
    let enter = |claims: Value| {
        office.provider.ask("person", &claims);
        let mut browser = Browser::default();
        let answer = browser.visit(&office, &text(&claims["sub"]));
        let session = cookies(&answer).find(|cookie| cookie.starts_with(COOKIE));
        (answer.status, session.map(|cookie| text(&json!(cookie.split(';').next()))))
    };
    let ann = |email: &str, groups: &[&str]| {
        json!({
            "sub": "ann-1", "email": email, "email_verified": true, "name": "Ann Lee",
            "groups": groups,
        })
    };
    let elsewhere = enter(ann("ann@elsewhere.org", &["ml-team"]));
    assert_eq!(elsewhere, (403, None), "her domain is not the page's");
    let (status, cookie) = enter(ann("ann@example.org", &["ml-team", "platform"]));
    assert_eq!(status, 303);
    let me = parsed(&office.me(&cookie.expect("a session")));
    let grant =
        json!({ "role": "admin", "scope": format!("organisation:{}", office.organisation) });
    assert_eq!(
        (&me["user"]["email"], &me["way"]),
        (&json!("ann@example.org"), &json!("oidc:corp"))
    );
    assert_eq!((&me["teams"], &me["grants"]), (&json!([office.team]), &json!([grant])));
    let (_, cookie) = enter(ann("ann@example.org", &["chess"]));
    let me = parsed(&office.me(&cookie.expect("a session")));
    assert_eq!((&me["teams"], &me["grants"]), (&json!([]), &json!([])), "groups also take");
}

#[test]
fn a_service_gets_in_by_its_token() {
    let office = Office::open();
    let (house, provider) = (&office.house, &office.provider);
    let show = |token: &str| house.ask_as(token, CHAT, &chat("Hello!"));
    let good = provider.token(&json!({}));
    let answer = show(&good);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(parsed(&answer)["choices"][0]["message"]["role"], "assistant");
    // Booked on the page's project, and on the person whose address the token has.
    let ledger = house.admin("GET /admin/v1/ledger?limit=2", &Value::Null);
    let lines = ledger["data"].as_array().expect("lines");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["project"], json!(office.project));
    assert_eq!(lines[0]["user"], json!(office.eve));
    let now = now_s();
    for (other, code) in [
        (json!({ "aud": "elsewhere" }), "invalid_api_key"),
        (json!({ "aud": "Hearth-Services" }), "invalid_api_key"),
        (json!({ "iss": "https://ci.example.org" }), "invalid_api_key"),
        (json!({ "exp": now - 61 }), "key_expired"),
        (json!({ "exp": now + 90_000 }), "invalid_api_key"),
    ] {
        let answer = show(&provider.token(&other));
        assert_eq!(answer.status, 401, "{other}: {answer:?}");
        assert_eq!(parsed(&answer)["error"]["code"], code, "{other}");
    }
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let turned: String = signature.chars().rev().collect();
    assert_eq!(show(&format!("{signed}.{turned}")).status, 401, "another signature");
    let ledger = house.admin("GET /admin/v1/ledger?limit=2", &Value::Null);
    assert_eq!(ledger["data"].as_array().expect("lines").len(), 1, "nobody else was served");
}
