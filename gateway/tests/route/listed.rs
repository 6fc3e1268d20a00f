//! Models of providers in the lists of models: those that are known, of those that a key may ask.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::caller::{Answer, Inbound, provider, request, send};
use crate::fake::Setup;
use crate::governed::House;
use crate::upstream::Upstream;

async fn get(router: &Router, key: &str, path: &str, anthropic: bool) -> Answer {
    let get = Request::get(path).header("authorization", format!("Bearer {key}"));
    let get = if anthropic { get.header("anthropic-version", "2023-06-01") } else { get };
    send(router, get.body(Body::empty()).expect("one")).await
}

fn names(got: &Answer, of: &str, name: &str) -> Vec<String> {
    let list: Value = serde_json::from_slice(&got.bytes).expect("JSON");
    let all = list[of].as_array().unwrap_or_else(|| panic!("{}", got.text())).iter();
    all.map(|card| card[name].as_str().expect("a name").to_owned()).collect()
}

/// What this process serves itself is no provider's, whatever it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_here_comes_before_a_provider_of_its_name() {
    let far = Upstream::well("far").await;
    let house = House::new().await;
    let fake = house.gateway(&provider("org", "compatible", &far.url, ""), Setup::default());
    let key = house.key(&fake.router, "all", json!({})).await;
    for inbound in Inbound::ALL {
        let (path, mut body) = inbound.request("org/fake", false, "hi");
        if inbound != Inbound::Gemini {
            body["max_tokens"] = 3.into();
        }
        if inbound == Inbound::Responses {
            body.as_object_mut().expect("fields").remove("max_tokens");
        }
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!((got.status, far.count()), (200, 0), "{inbound:?} {}", got.text());
    }
    let card = get(&fake.router, &key, "/v1/models/org/fake", false).await;
    assert!(card.text().contains("\"owned_by\":\"hearth\""), "{}", card.text());
    let (path, body) = Inbound::Chat.request("org/other", false, "hi");
    assert_eq!(send(&fake.router, request(&key, &path, &body)).await.status, 200);
    assert_eq!(far.count(), 1);
    // A key whose words no provider may see is shown none of their models.
    let secret = house.key(&fake.router, "secret", json!({ "label": "confidential" })).await;
    let path = "/v1/models/org/other";
    assert_eq!(get(&fake.router, &key, path, false).await.status, 200);
    assert_eq!(get(&fake.router, &secret, path, false).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_providers_are_listed_as_far_as_they_may_be_asked() {
    let well = Upstream::well("x").await;
    let few = "models = [\"gpt-4o*\", \"text-embedding-3-small\", \"mine\", \"any-*\"]\n";
    let config = format!(
        "{}{}{}[pools.\"work/gpt-4o\"]\ntargets = [\"org/fake\"]\n",
        provider("work", "openai", &well.url, few),
        provider("bare", "groq", &well.url, "models = []\n"),
        provider("far", "deepseek", &well.url, ""),
    );
    let house = House::new().await;
    let fake = house.gateway(&config, Setup::default());
    let router = &fake.router;
    let all = house.key(router, "all", json!({})).await;
    let own = ["org/fake", "work/gpt-4o"];
    let far = ["far/deepseek-flash", "far/deepseek-v4-flash"];
    let work = ["work/gpt-4o-mini", "work/text-embedding-3-small", "work/mine"];
    let listed = names(&get(router, &all, "/v1/models", false).await, "data", "id");
    assert_eq!(listed, [&own[..], &far, &work].concat());
    // Other dialects list what chats.
    let chats = [&own[..], &far, &[work[0], work[2]]].concat();
    let listed = names(&get(router, &all, "/v1/models", true).await, "data", "id");
    assert_eq!(listed, chats);
    let listed = names(&get(router, &all, "/v1beta/models", false).await, "models", "name");
    assert_eq!(listed, chats.iter().map(|name| format!("models/{name}")).collect::<Vec<_>>());

    // One that may be asked is there, known or not.
    let one = get(router, &all, "/v1/models/work/gpt-4o-mini", false).await;
    let card = json!({ "id": "work/gpt-4o-mini", "object": "model", "created": 0,
        "owned_by": "work", "max_model_len": 128_000 });
    assert_eq!(serde_json::from_slice::<Value>(&one.bytes).expect("JSON"), card);
    for (path, anthropic) in [
        ("/v1/models/work/any-thing", false),
        ("/v1/models/work/any-thing", true),
        ("/v1/models/far/some/where", false),
        ("/v1beta/models/far/some", false),
    ] {
        assert_eq!(get(router, &all, path, anthropic).await.status, 200, "{path}");
    }
    for path in
        ["/v1/models/work/other", "/v1/models/work/", "/v1/models/bare/x", "/v1/models/no/x"]
    {
        assert_eq!(get(router, &all, path, false).await.status, 404, "{path}");
    }

    what_a_key_may_not_ask_it_does_not_see(&house, router, &all).await;

    // Near names are among them.
    let models = house.key(router, "few", json!({ "models": ["org/*", "work/*mini"] })).await;
    for (key, near) in
        [(&all, "Available: 'far/deepseek-flash', "), (&models, "Available: 'org/fake'")]
    {
        let (path, body) = Inbound::Chat.request("deepseek-flash", false, "hi");
        let got = send(router, request(key, &path, &body)).await;
        assert_eq!(got.status, 404, "{}", got.text());
        assert!(got.text().contains(near), "{}", got.text());
        assert_eq!(got.text().contains("'far/"), key == &all, "{}", got.text());
    }
    assert_eq!(well.count(), 0, "no provider is asked what it has");
}

/// By models, and by providers; `all`: who may ask all of them.
async fn what_a_key_may_not_ask_it_does_not_see(house: &House, router: &Router, all: &str) {
    let models = house.key(router, "models", json!({ "models": ["org/*", "work/*mini"] })).await;
    let listed = names(&get(router, &models, "/v1/models", false).await, "data", "id");
    assert_eq!(listed, ["org/fake", "work/gpt-4o-mini"]);
    let providers = house.key(router, "providers", json!({ "providers": ["f*"] })).await;
    let listed = names(&get(router, &providers, "/v1/models", false).await, "data", "id");
    let far = ["far/deepseek-flash", "far/deepseek-v4-flash"];
    assert_eq!(listed, [&["org/fake", "work/gpt-4o"][..], &far].concat());
    let none = house.key(router, "none", json!({ "models": ["x"] })).await;
    for (key, name) in [
        (&models, "far/deepseek-flash"),
        (&providers, "work/mine"),
        // A pool, and a model of this server.
        (&models, "work/gpt-4o"),
        (&none, "org/fake"),
    ] {
        for (path, anthropic) in [("v1", false), ("v1", true), ("v1beta", false)] {
            let got = get(router, key, &format!("/{path}/models/{name}"), anthropic).await;
            assert_eq!(got.status, 404, "{path} {}", got.text());
            let all = get(router, all, &format!("/{path}/models/{name}"), anthropic).await;
            assert_eq!(all.status, 200, "{path} {}", all.text());
        }
    }
}
