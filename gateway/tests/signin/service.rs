//! Tokens that services show, signed by a real provider's RSA key.

use reqwest::Method;
use serde_json::{Value, json};

use super::browser::{Answer, With};
use super::world::World;

async fn show(world: &World, token: &str) -> Answer {
    let headers = vec![("authorization", format!("Bearer {token}"))];
    let with = With { headers, ..With::default() };
    world.browser().send(Method::POST, "/probe", with).await
}

/// A token with some claims and a header replaced.
async fn signed(world: &World, header: Value, other: Value) -> String {
    let now = world.governor.now() / 1000;
    let mut claims = json!({
        "iss": world.corp().issuer, "aud": "hearth-services", "sub": "ci",
        "iat": now, "exp": now + 300,
    });
    for (name, value) in other.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    let made = world.corp().ask("sign", json!({ "header": header, "claims": claims })).await;
    made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

#[tokio::test]
async fn services_come_in_by_their_tokens() {
    let world = World::with_provider().await;
    let good = signed(&world, json!({}), json!({})).await;
    let answer = show(&world, &good).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), json!({ "who": null, "project": world.project, "grants": [] }));
    let now = world.governor.now() / 1000;
    for (other, code) in [
        (json!({ "aud": "hearth" }), "invalid_api_key"),
        (json!({ "iss": "https://evil.example" }), "invalid_api_key"),
        (json!({ "exp": now - 61 }), "key_expired"),
        (json!({ "exp": now + 100_000 }), "invalid_api_key"),
        (json!({ "nbf": now + 1000 }), "invalid_api_key"),
        (json!({ "pad": "x".repeat(8 << 10) }), "invalid_api_key"),
    ] {
        let answer = show(&world, &signed(&world, json!({}), other.clone()).await).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, code), "{other}");
    }
    let unknown = signed(&world, json!({ "kid": "of-nobody" }), json!({})).await;
    assert_eq!(show(&world, &unknown).await.status, 401);
    // The key says RS256; what it signs otherwise is not its own.
    for algorithm in ["RS384", "RS512"] {
        let token = signed(&world, json!({ "alg": algorithm }), json!({})).await;
        assert_eq!(show(&world, &token).await.status, 401, "{algorithm}");
    }
    // One that says nothing is good for all that RSA can do.
    world.corp().ask("rotate", json!({ "bare": true })).await;
    world.later(10_000);
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let token = signed(&world, json!({ "alg": algorithm }), json!({})).await;
        assert_eq!(show(&world, &token).await.status, 200, "{algorithm}");
        let headers = vec![("x-api-key", token)];
        let with = With { headers, ..With::default() };
        let answer = world.browser().send(Method::POST, "/probe", with).await;
        assert_eq!(answer.status, 200, "{algorithm}");
    }
    // Keys of ours are not for this hook.
    let answer = show(&world, &world.owner_key).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "who": null })));
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let world = World::with_provider().await;
    let public = world.corp().ask("public", json!({})).await;
    let pem = public["pem"].as_str().expect("a PEM");
    let modulus = public["n"].as_str().expect("a modulus");
    let good = signed(&world, json!({}), json!({})).await;
    let claims = good.split('.').nth(1).expect("claims");
    let part = |value: &Value| base64(value.to_string().as_bytes());
    for secret in [pem, pem.trim_end(), modulus] {
        let header = part(&json!({ "alg": "HS256", "typ": "JWT", "kid": public["kid"] }));
        let text = format!("{header}.{claims}");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, text.as_bytes());
        let answer = show(&world, &format!("{text}.{}", base64(tag.as_ref()))).await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    for algorithm in ["none", "NONE", "None"] {
        let header = part(&json!({ "alg": algorithm, "kid": public["kid"] }));
        let answer = show(&world, &format!("{header}.{claims}.")).await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
}

#[tokio::test]
async fn keys_rotate_under_services() {
    let world = World::with_provider().await;
    let asked =
        async || world.corp().ask("keys", json!({})).await["asked"].as_u64().expect("a number");
    let old = signed(&world, json!({}), json!({})).await;
    assert_eq!(show(&world, &old).await.status, 200);
    assert_eq!(asked().await, 1);
    world.corp().ask("rotate", json!({})).await;
    let new = signed(&world, json!({}), json!({})).await;
    for _ in 0..5 {
        assert_eq!(show(&world, &new).await.status, 401, "the keys were fetched a moment ago");
    }
    assert_eq!(asked().await, 1, "strangers' names make no traffic");
    world.later(10_000);
    assert_eq!(show(&world, &new).await.status, 200);
    assert_eq!(show(&world, &old).await.status, 401, "and the old key is gone");
    assert_eq!(asked().await, 2);
}

/// Base64 for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let chunk = |three: &[u8]| {
        let all = three.iter().fold(0_u32, |all, byte| (all << 8) | u32::from(*byte));
        let all = all << (8 * (3 - three.len()));
        let letter = move |at: usize| {
            let index = usize::try_from((all >> (18 - 6 * at)) & 63).unwrap_or(0);
            char::from(LETTERS[index])
        };
        (0..=three.len()).map(letter).collect::<Vec<_>>()
    };
    bytes.chunks(3).flat_map(chunk).collect()
}
