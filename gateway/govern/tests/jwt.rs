//! Tokens that others issue: which are taken and which are not, and how an issuer's keys come and
//! go. RSA keys and a real provider are in the gateway's tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use govern::directory::{Change, Directory};
use govern::entity::{Entity, Grant, Organisation, Project, Team, User};
use govern::identity::jwt::{BYTES_MAX, Fetch, Fetching, Issuer, Issuers, Refused};
use govern::identity::mapping::{self, ProjectOf, Services, UserOf, external_id};
use govern::{Denied, Id, Millis, Principal, Rule, Scope};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

/// 2026, to the second.
const NOW: Millis = 1_790_000_000_000;
const NOW_S: i64 = NOW / 1000;
const ISSUER: &str = "https://login.example.org";
const AUDIENCE: &str = "hearth";

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair: what signs, and what is published of it.
struct Pair {
    name: &'static str,
    algorithm: Algorithm,
    signs: EncodingKey,
    public: Vec<u8>,
    published: Value,
}

impl Pair {
    fn ec(name: &'static str, algorithm: Algorithm) -> Self {
        let (ring, curve): (&EcdsaSigningAlgorithm, _) = match algorithm {
            Algorithm::ES256 => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        };
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(ring, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(ring, der.as_ref(), &random).expect("a key");
        let public = pair.public_key().as_ref().to_vec();
        let (x, y) = public[1..].split_at(public.len() / 2);
        let published =
            json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y), "kid": name });
        Self { name, algorithm, signs: EncodingKey::from_ec_der(der.as_ref()), public, published }
    }

    fn ed(name: &'static str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).expect("a key");
        let public = pair.public_key().as_ref().to_vec();
        let published =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(&public), "kid": name });
        let signs = EncodingKey::from_ed_der(der.as_ref());
        Self { name, algorithm: Algorithm::EdDSA, signs, public, published }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.signs).expect("a token")
    }
}

/// An address that answers what a test says.
#[derive(Default)]
struct Shelf {
    answer: Mutex<Option<Value>>,
    asked: AtomicUsize,
}

impl Shelf {
    fn put(&self, keys: &[&Value]) {
        *self.answer.lock().expect("a lock") = Some(json!({ "keys": keys }));
    }

    fn burn(&self) {
        *self.answer.lock().expect("a lock") = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Fetch for Shelf {
    fn get<'a>(&'a self, _: &'a str) -> Fetching<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answer.lock().expect("a lock").clone();
            answer.map(|set| set.to_string().into_bytes()).ok_or_else(|| "away".to_owned())
        })
    }
}

fn issuer(services: Services) -> Issuer {
    Issuer {
        name: "corp".to_owned(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        jwks_url: format!("{ISSUER}/keys"),
        services,
    }
}

fn nowhere() -> Services {
    Services { organisation: Id::default(), project: ProjectOf::One(Id::default()), user: None }
}

fn issuers(shelf: &Arc<Shelf>) -> Issuers {
    let fetch: Arc<dyn Fetch> = Arc::<Shelf>::clone(shelf);
    Issuers::new(vec![issuer(nowhere())], &fetch)
}

/// Good claims, with some of them replaced, or taken away by `null`.
fn claims(other: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ci", "iat": NOW_S, "exp": NOW_S + 300,
    });
    for (name, value) in other.as_object().expect("an object") {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn claims_are_checked() {
    let (pair, shelf) = (Pair::ec("a", Algorithm::ES256), Arc::new(Shelf::default()));
    shelf.put(&[&pair.published]);
    let issuers = issuers(&shelf);
    let cases = [
        (json!({}), Ok(())),
        (json!({ "aud": ["else", AUDIENCE] }), Ok(())),
        (json!({ "iat": null }), Ok(())),
        (json!({ "exp": NOW_S as f64 + 0.5 }), Ok(())),
        (json!({ "exp": NOW_S - 59 }), Ok(())),
        (json!({ "exp": NOW_S - 60 }), Err(Refused::Expired)),
        (json!({ "exp": NOW_S - 90_000 }), Err(Refused::Expired)),
        (json!({ "exp": null }), Err(Refused::Claim("exp"))),
        (json!({ "exp": "soon" }), Err(Refused::Claim("exp"))),
        (json!({ "exp": -1 }), Err(Refused::Claim("exp"))),
        (json!({ "exp": 1e300 }), Err(Refused::Claim("exp"))),
        (json!({ "exp": i64::MAX }), Err(Refused::Lifetime)),
        (json!({ "exp": NOW_S + 86_400 }), Ok(())),
        (json!({ "exp": NOW_S + 86_401 }), Err(Refused::Lifetime)),
        (json!({ "iat": null, "exp": NOW_S + 90_000 }), Err(Refused::Lifetime)),
        (json!({ "iat": NOW_S - 86_400 }), Err(Refused::Lifetime)),
        (json!({ "iat": NOW_S + 60 }), Ok(())),
        (json!({ "iat": NOW_S + 61 }), Err(Refused::NotYet)),
        (json!({ "nbf": NOW_S + 60 }), Ok(())),
        (json!({ "nbf": NOW_S + 61 }), Err(Refused::NotYet)),
        (json!({ "nbf": "later" }), Err(Refused::Claim("nbf"))),
        (json!({ "iss": null }), Err(Refused::Claim("iss"))),
        (json!({ "iss": "https://login.example.org/" }), Err(Refused::Issuer)),
        (json!({ "iss": "HTTPS://LOGIN.EXAMPLE.ORG" }), Err(Refused::Issuer)),
        (json!({ "iss": [ISSUER] }), Err(Refused::Claim("iss"))),
        (json!({ "aud": null }), Err(Refused::Audience)),
        (json!({ "aud": "hearth2" }), Err(Refused::Audience)),
        (json!({ "aud": [] }), Err(Refused::Audience)),
        (json!({ "aud": { "hearth": true } }), Err(Refused::Audience)),
    ];
    for (other, expect) in cases {
        let token = pair.sign(&claims(&other));
        assert_eq!(issuers.claims(&token, NOW).await.map(|_| ()), expect, "{other}");
    }
    assert_eq!(shelf.asked(), 1, "keys are kept");
}

/// A token whose parts are given, as they are.
fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), base64(signature))
}

#[tokio::test]
async fn no_algorithm_is_taken_but_the_keys_own() {
    let pairs =
        [Pair::ec("es256", Algorithm::ES256), Pair::ec("es384", Algorithm::ES384), Pair::ed("ed")];
    let shelf = Arc::new(Shelf::default());
    let secret = json!({ "kty": "oct", "k": base64(b"a shared secret"), "kid": "shared" });
    let mut all: Vec<&Value> = pairs.iter().map(|pair| &pair.published).collect();
    all.push(&secret);
    shelf.put(&all);
    let issuers = issuers(&shelf);
    let good = claims(&json!({}));
    for pair in &pairs {
        let taken = issuers.claims(&pair.sign(&good), NOW).await;
        assert!(taken.is_ok(), "{}: {taken:?}", pair.name);
        let whole = json!({ "keys": [pair.published] }).to_string();
        let public = base64(&pair.public);
        for bytes in [&pair.public, whole.as_bytes(), public.as_bytes()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let header = Header { kid: Some(pair.name.into()), ..Header::new(algorithm) };
                let key = EncodingKey::from_secret(bytes);
                let token = encode(&header, &good, &key).expect("a token");
                let refused = issuers.claims(&token, NOW).await.map(|_| ());
                assert_eq!(refused, Err(Refused::Algorithm), "{} {algorithm:?}", pair.name);
            }
        }
        for other in ["none", "None", "NONE", "", "HS256 ", "ES512", "ES256K"] {
            let header = json!({ "alg": other, "kid": pair.name });
            for signature in [&b""[..], b"x"] {
                let refused = issuers.claims(&raw(&header, &good, signature), NOW).await;
                assert_eq!(refused.map(|_| ()), Err(Refused::Malformed), "{other:?}");
            }
        }
    }
    // Signed by one key, in another's name.
    let [first, second, third] = &pairs;
    for (by, named) in [(first, second), (second, first), (third, first), (first, third)] {
        let header = Header { kid: Some(named.name.to_owned()), ..Header::new(by.algorithm) };
        let token = encode(&header, &good, &by.signs).expect("a token");
        assert_eq!(issuers.claims(&token, NOW).await.map(|_| ()), Err(Refused::Algorithm));
    }
    // A symmetric key that somebody publishes is none.
    let header = Header { kid: Some("shared".to_owned()), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(b"a shared secret");
    let token = encode(&header, &good, &key).expect("a token");
    assert_eq!(issuers.claims(&token, NOW).await.map(|_| ()), Err(Refused::UnknownKey));
}

#[tokio::test]
async fn what_is_altered_or_too_long_or_no_token_is_refused() {
    let (pair, shelf) = (Pair::ed("a"), Arc::new(Shelf::default()));
    shelf.put(&[&pair.published]);
    let issuers = issuers(&shelf);
    let good = pair.sign(&claims(&json!({})));
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let other = pair.sign(&claims(&json!({ "sub": "root" })));
    let altered = other.split('.').nth(1).expect("claims");
    let of_another = Pair::ed("a").sign(&claims(&json!({})));
    let long = pair.sign(&claims(&json!({ "pad": "x".repeat(BYTES_MAX) })));
    let critical = json!({ "alg": "EdDSA", "kid": "a", "crit": ["b64"], "b64": false });
    let embedded = json!({ "alg": "EdDSA", "kid": "mine", "jwk": pair.published });
    let cases = [
        (format!("{header}.{altered}.{signature}"), Refused::Signature),
        (format!("{header}.{body}."), Refused::Signature),
        (format!("{header}.{body}.{}", base64(&[0; 64])), Refused::Signature),
        (of_another, Refused::Signature),
        (long, Refused::TooLong),
        (raw(&critical, &claims(&json!({})), b"x"), Refused::Malformed),
        (raw(&embedded, &claims(&json!({})), b"x"), Refused::UnknownKey),
        (format!("{header}.{body}"), Refused::Malformed),
        (format!("{good}.{good}"), Refused::Malformed),
        (String::new(), Refused::Malformed),
        ("a.b.c".to_owned(), Refused::Malformed),
        ("..".to_owned(), Refused::Malformed),
    ];
    for (token, expect) in cases {
        let short: String = token.chars().take(60).collect();
        assert_eq!(issuers.claims(&token, NOW).await.map(|_| ()), Err(expect), "{short}");
    }
    assert!(issuers.claims(&good, NOW).await.is_ok(), "the whole one is good");
}

#[tokio::test]
async fn several_keys_need_a_name() {
    let (one, two) = (Pair::ed("one"), Pair::ed("two"));
    let shelf = Arc::new(Shelf::default());
    let nameless = encode(&Header::new(Algorithm::EdDSA), &claims(&json!({})), &one.signs);
    let nameless = nameless.expect("a token");
    for (keys, expect) in [
        (vec![&one.published], Ok(())),
        (vec![&one.published, &two.published], Err(Refused::UnknownKey)),
        (vec![], Err(Refused::UnknownKey)),
    ] {
        shelf.put(&keys);
        let fresh = issuers(&shelf);
        assert_eq!(fresh.claims(&nameless, NOW).await.map(|_| ()), expect, "{}", keys.len());
    }
    // Keys for something else are none, nor are RSA keys of 1,024 bits.
    let mut sealed = one.published.clone();
    sealed["use"] = json!("enc");
    let mut signs = one.published.clone();
    signs["key_ops"] = json!(["sign"]);
    let mut other = one.published.clone();
    other["alg"] = json!("ES256");
    let short = json!({ "kty": "RSA", "kid": "one", "e": "AQAB", "n": base64(&[0xff; 128]) });
    for key in [&sealed, &signs, &other, &short, &json!("key"), &json!({ "kid": "one" })] {
        shelf.put(&[key]);
        let fresh = issuers(&shelf);
        let refused = fresh.claims(&one.sign(&claims(&json!({}))), NOW).await;
        assert_eq!(refused.map(|_| ()), Err(Refused::UnknownKey), "{key}");
    }
}

#[tokio::test]
async fn keys_come_and_go() {
    let (old, new) = (Pair::ed("old"), Pair::ed("new"));
    let shelf = Arc::new(Shelf::default());
    shelf.put(&[&old.published]);
    let issuers = issuers(&shelf);
    let at = |now: Millis| {
        let now_s = now / 1000;
        claims(&json!({ "iat": now_s, "exp": now_s + 60 }))
    };
    let taken = async |pair: &Pair, now: Millis| {
        issuers.claims(&pair.sign(&at(now)), now).await.map(|_| ())
    };
    assert_eq!(taken(&old, NOW).await, Ok(()));
    assert_eq!(shelf.asked(), 1);
    // A name that nobody knows makes one question in ten seconds.
    for ms in 0..9 {
        assert_eq!(taken(&new, NOW + ms * 1000).await, Err(Refused::UnknownKey));
    }
    assert_eq!(shelf.asked(), 1, "the first fetch was a moment ago");
    shelf.put(&[&old.published, &new.published]);
    assert_eq!(taken(&new, NOW + 10_000).await, Ok(()), "a new key is found");
    assert_eq!(shelf.asked(), 2);
    // A key that is not published any more is gone after the next look, which nobody waits for.
    shelf.put(&[&new.published]);
    let later = NOW + 10_000 + 600_000;
    assert_eq!(taken(&old, later).await, Ok(()), "the look is under way");
    while shelf.asked() < 3 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(taken(&old, later + 1).await, Err(Refused::UnknownKey));
    // The provider is away: what is known serves for a day.
    shelf.burn();
    let day = 86_400_000;
    assert_eq!(taken(&new, later + day - 1000).await, Ok(()));
    assert_eq!(taken(&new, later + day).await, Err(Refused::Unavailable));
    assert_eq!(taken(&new, later + day + 3000).await, Err(Refused::Unavailable));
    shelf.put(&[&new.published]);
    assert_eq!(taken(&new, later + day + 20_000).await, Ok(()), "it is back");
}

/// A directory of two organisations, with a project in each.
fn directory() -> (Directory, [Project; 2], Organisation) {
    let mut directory = Directory::default();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Organisation::new(name, NOW));
    let mut projects = Vec::new();
    for organisation in [&ours, &theirs] {
        let team = Team {
            id: Id::new(Team::KIND, NOW),
            organisation: organisation.id.clone(),
            name: "team".to_owned(),
            ..Team::default()
        };
        let project = Project {
            id: Id::new(Project::KIND, NOW),
            team: team.id.clone(),
            name: "bots".to_owned(),
            ..Project::default()
        };
        put(&mut directory, organisation);
        put(&mut directory, &team);
        put(&mut directory, &project);
        projects.push(project);
    }
    let projects = <[Project; 2]>::try_from(projects).expect("two of them");
    (directory, projects, ours)
}

fn put<E: Entity>(directory: &mut Directory, entity: &E) {
    let body = serde_json::to_string(entity).expect("plain data");
    let change = Change { kind: E::KIND.to_owned(), id: entity.id().clone(), body: Some(body) };
    directory.apply(&change).expect("a good document");
}

#[test]
fn claims_lead_to_projects_of_one_organisation() {
    let (directory, [ours, theirs], home) = directory();
    let table = ProjectOf::Table {
        claim: "repo.name".to_owned(),
        projects: BTreeMap::from([
            ("bots".to_owned(), ours.id.clone()),
            ("spy".to_owned(), theirs.id.clone()),
        ]),
    };
    let by_claim = ProjectOf::Claim("project".to_owned());
    let cases = [
        (ProjectOf::One(ours.id.clone()), json!({}), true),
        (ProjectOf::One(theirs.id.clone()), json!({}), false),
        (by_claim.clone(), json!({ "project": ours.id }), true),
        (by_claim.clone(), json!({ "project": theirs.id }), false),
        (by_claim.clone(), json!({ "project": "' OR 1=1 --" }), false),
        (by_claim.clone(), json!({ "project": [ours.id] }), false),
        (by_claim, json!({}), false),
        (table.clone(), json!({ "repo": { "name": "bots" } }), true),
        (table.clone(), json!({ "repo.name": "bots" }), true),
        (table.clone(), json!({ "repo": { "name": "spy" } }), false),
        (table.clone(), json!({ "repo": { "name": "Bots" } }), false),
        (table, json!({ "repo": "bots" }), false),
    ];
    for (project, claims, expect) in cases {
        let services = Services { organisation: home.id.clone(), project, user: None };
        let found = service(&directory, services, &claims);
        match found {
            Ok(principal) => {
                assert!(expect, "{claims}");
                assert_eq!(principal.organisation.id, home.id);
                assert_eq!(principal.project.as_ref().map(|p| &p.id), Some(&ours.id));
                assert!(principal.key.is_none() && principal.grants.is_empty());
            }
            Err(denied) => {
                assert!(!expect, "{claims}: {denied}");
                assert_eq!(denied.rule, Rule::NoProject);
            }
        }
    }
}

fn service(directory: &Directory, services: Services, claims: &Value) -> Result<Principal, Denied> {
    let claims = claims.as_object().expect("an object");
    mapping::service(directory, &issuer(services), claims, None, NOW)
}

#[test]
fn services_act_for_users_whom_their_issuer_vouches_for() {
    let (mut directory, [project, _], home) = directory();
    let grant = Grant { role: "developer".to_owned(), scope: Scope::Organisation(home.id.clone()) };
    let user = User {
        id: Id::new(User::KIND, NOW),
        organisation: home.id.clone(),
        email: "Ann@Example.org".to_owned(),
        external_id: Some(external_id("corp", "ann")),
        grants: vec![grant.clone()],
        ..User::default()
    };
    put(&mut directory, &user);
    let services = |user| Services {
        organisation: home.id.clone(),
        project: ProjectOf::One(project.id.clone()),
        user: Some(user),
    };
    let cases = [
        (UserOf::Email, json!({ "email": "ann@example.org", "email_verified": true }), true),
        (UserOf::Email, json!({ "email": "ann@example.org" }), false),
        (UserOf::Email, json!({ "email": "ann@example.org", "email_verified": false }), false),
        (UserOf::Email, json!({ "email": "bob@example.org", "email_verified": true }), false),
        (UserOf::Subject, json!({ "sub": "ann" }), true),
        (UserOf::Subject, json!({ "sub": "Ann" }), false),
        (UserOf::Subject, json!({}), false),
    ];
    for (user_of, claims, expect) in &cases {
        let principal = service(&directory, services(*user_of), claims).expect("a service");
        assert_eq!(principal.user.is_some(), *expect, "{claims}");
        assert_eq!(principal.grants.contains(&grant), *expect, "{claims}");
    }
    put(&mut directory, &User { disabled: true, ..user });
    for (user_of, claims, found) in &cases {
        let refused = service(&directory, services(*user_of), claims).err().map(|d| d.rule);
        assert_eq!(refused, found.then_some(Rule::DisabledUser), "{claims}");
    }
}
