//! Proofs of who asks that are made for each request, or fetched: Amazon's and Google's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use gateway::sigv4;
use gateway::upstream::{About, Call, Provider};
use hearth_tests::rsa::key;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json as value};
use wire::{Dialect, ErrorKind};

use super::far::{Asked, Far, Folder, call, json, provider};

const MODEL: &str = "us.anthropic.claude:0/x";

#[tokio::test]
async fn amazon_s_requests_are_signed_as_they_arrive() {
    let server = Far::new(|_| json(200, "{}")).await;
    let lines = format!(
        "kind = \"bedrock\"\nbase_url = \"http://127.0.0.1:{}\"\nregion = \"eu-west-1\"\n\
         key = \"AKIDEXAMPLE\"\nsecret_key = \"the-secret\"\nsession_token = \"the-token\"",
        server.port
    );
    let provider = provider(&lines).expect("a provider");
    provider.ask(call(Dialect::Converse, MODEL)).await.expect("an answer");
    let trouble = provider.ask(Call { stream: true, ..call(Dialect::Converse, MODEL) }).await;
    assert_eq!(trouble.expect_err("no stream").about, About::Ill);
    let asked = server.asked();
    assert_eq!(asked[0].path, "/model/us.anthropic.claude%3A0%2Fx/converse");
    assert_eq!(asked[1].path, "/model/us.anthropic.claude%3A0%2Fx/converse-stream");
    assert_eq!(asked[1].header("accept"), "application/vnd.amazon.eventstream");
    for asked in asked {
        assert_eq!(asked.header("x-amz-security-token"), "the-token");
        // The same of what has arrived: nothing that was signed has changed on the way.
        let time = asked.header("x-amz-date");
        let parsed = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", time).expect("a time");
        let parsed = parsed.to_datetime().expect("a time").to_zoned(jiff::tz::TimeZone::UTC);
        let again = sigv4::sign(
            &sigv4::Credentials {
                access_key: "AKIDEXAMPLE",
                secret_key: "the-secret",
                session_token: Some("the-token"),
            },
            &sigv4::Request {
                region: "eu-west-1",
                service: "bedrock",
                method: "POST",
                path: &asked.path,
                query: &[],
                headers: &[
                    ("content-type", asked.header("content-type")),
                    ("host", asked.header("host")),
                ],
                body: &sigv4::hash(&asked.body),
            },
            parsed.expect("a time").timestamp().as_millisecond(),
        );
        let (_, expect) = again.last().expect("a signature");
        assert_eq!(asked.header("authorization"), expect);
    }
}

#[tokio::test]
async fn a_key_alone_is_sent_to_amazon_as_it_is() {
    let server = Far::new(|_| json(200, "{}")).await;
    let lines = |more: &str| {
        let port = server.port;
        let base = format!("base_url = \"http://127.0.0.1:{port}\"\nregion = \"eu-west-1\"");
        provider(&format!("kind = \"bedrock\"\n{base}\n{more}"))
    };
    let alone = lines("key = \"a-bedrock-key\"").expect("a provider");
    alone.ask(call(Dialect::Converse, MODEL)).await.expect("an answer");
    let asked = server.asked().remove(0);
    assert_eq!(asked.header("authorization"), "Bearer a-bedrock-key");
    assert!(asked.headers.get("x-amz-date").is_none());
    for more in ["key = \"AKIAIOSFODNN7EXAMPLE\"", "key = \"k\"\nsession_token = \"t\""] {
        let error = lines(more).err().expect("half a pair");
        assert!(error.contains("secret_key is missing"), "{error}");
    }
    for (more, part) in [
        ("secret_key = \"s\"", "key = \"env:AWS_ACCESS_KEY_ID\""),
        ("key = \"a b\"\nsecret_key = \"s\"", "holds what a header cannot"),
        ("key = \"a\"\nsecret_key = \"s\"\nsession_token = \"\\n\"", "holds what a header cannot"),
    ] {
        let error = lines(more).err().expect("refused");
        assert!(error.contains(part), "{error}");
    }
    let nowhere = "kind = \"bedrock\"\nkey = \"k\"\nsecret_key = \"s\"";
    assert_eq!(provider(nowhere).err().expect("refused"), "region is missing");
}

/// Google: gives tokens, numbered, and answers whoever shows the last one.
struct Google {
    far: Far,
    given: Arc<AtomicUsize>,
}

impl Google {
    async fn new(expires_in: u64, refuses: Option<(u16, &'static str)>) -> Self {
        let given = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&given);
        let far = Far::new(move |asked| {
            if asked.path == "/token" {
                let number = shared.fetch_add(1, Ordering::SeqCst) + 1;
                return match refuses {
                    Some((status, body)) => json(status, body),
                    None => json(
                        200,
                        value!({ "access_token": format!("token-{number}"),
                            "expires_in": expires_in, "token_type": "Bearer" })
                        .to_string(),
                    ),
                };
            }
            let last = format!("Bearer token-{}", shared.load(Ordering::SeqCst));
            json(if asked.header("authorization") == last { 200 } else { 401 }, "{}")
        })
        .await;
        Self { far, given }
    }

    /// Through the file of a service account, as an operator would have it.
    fn provider(&self) -> Provider {
        let port = self.far.port;
        let account = value!({
            "type": "service_account",
            "client_email": "me@my-project.iam.gserviceaccount.com",
            "private_key_id": "key-1",
            "private_key": key(),
            "token_uri": format!("http://127.0.0.1:{port}/token"),
        });
        let account = toml::Value::String(account.to_string());
        let lines = format!(
            "kind = \"vertex\"\nproject = \"my-project\"\nregion = \"europe-west4\"\n\
             base_url = \"http://127.0.0.1:{port}/v1/{{project}}/{{region}}/google\"\n\
             key = {account}"
        );
        provider(&lines).expect("a provider")
    }

    fn asked(&self, token: bool) -> Vec<Asked> {
        let mut asked = self.far.asked();
        asked.retain(|asked| (asked.path == "/token") == token);
        asked
    }
}

fn gemini() -> Call<'static> {
    call(Dialect::Gemini, "gemini-pro")
}

#[tokio::test]
async fn google_s_token_is_fetched_once_and_kept() {
    let google = Google::new(3_599, None).await;
    let provider = google.provider();
    for answer in join_all((0..20).map(|_| provider.ask(gemini()))).await {
        answer.expect("an answer");
    }
    assert_eq!(google.given.load(Ordering::SeqCst), 1);
    let asked = google.asked(false);
    assert_eq!(asked.len(), 20);
    assert_eq!(
        asked[0].path,
        "/v1/my-project/europe-west4/google/models/gemini-pro:generateContent"
    );

    let asked = google.asked(true).remove(0);
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    let form = std::str::from_utf8(&asked.body).expect("text");
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let token = form.strip_prefix(grant).expect("a form");
    let (text, signature) = token.rsplit_once('.').expect("three parts");
    let (header, claims) = text.split_once('.').expect("three parts");
    let plain = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let read = |part: &str| serde_json::from_slice::<Value>(&plain(part)).expect("JSON");
    assert_eq!(read(header), value!({ "alg": "RS256", "typ": "JWT", "kid": "key-1" }));
    let claims = read(claims);
    assert_eq!(claims["iss"], "me@my-project.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(claims["aud"], format!("http://127.0.0.1:{}/token", google.far.port));
    let at = claims["iat"].as_i64().expect("a time");
    assert!((jiff::Timestamp::now().as_second() - at).abs() < 60);
    assert_eq!(claims["exp"], at + 3_600);
    let der = PrivatePkcs8KeyDer::from_pem_slice(key().as_bytes()).expect("PEM");
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public().as_ref());
    public.verify(text.as_bytes(), &plain(signature)).expect("signed");
}

#[tokio::test]
async fn a_token_that_ends_or_is_not_taken_is_fetched_anew() {
    // It is as good as over when it comes.
    let google = Google::new(5, None).await;
    let provider = google.provider();
    for number in 1..=3 {
        provider.ask(gemini()).await.expect("an answer");
        assert_eq!(google.given.load(Ordering::SeqCst), number);
    }

    let google = Google::new(3_599, None).await;
    let provider = google.provider();
    provider.ask(gemini()).await.expect("an answer");
    // Somebody else has been given one, and this one's counts no more.
    google.given.fetch_add(1, Ordering::SeqCst);
    let trouble = provider.ask(gemini()).await.expect_err("an old token");
    assert_eq!((trouble.about, trouble.failure.error.kind), (About::Ours, ErrorKind::Upstream));
    provider.ask(gemini()).await.expect("an answer");
    assert_eq!(google.given.load(Ordering::SeqCst), 3);
}

/// Who is refused a token is not asked about it by every request; and no caller reads why.
#[tokio::test]
async fn without_a_token_nobody_is_asked() {
    for refusal in [
        (400, "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid JWT\"}"),
        (500, "<html>"),
        (200, "{\"access_token\":\"a\\nb\",\"expires_in\":3599}"),
        (200, "{\"id_token\":\"x\"}"),
        (302, ""),
    ] {
        let google = Google::new(0, Some(refusal)).await;
        let provider = google.provider();
        for answer in join_all((0..5).map(|_| provider.ask(gemini()))).await {
            let trouble = answer.expect_err("no token");
            assert_eq!(trouble.about, About::Ours);
            let message = trouble.failure.error.message;
            assert_eq!(message, "The provider 'far' cannot be asked.");
        }
        assert_eq!((google.asked(true).len(), google.asked(false).len()), (1, 0), "{refusal:?}");
    }
}

/// The key is a file's text, by reference, like any other.
#[test]
fn a_file_may_hold_the_account() {
    let folder = Folder::new();
    let account = value!({ "type": "service_account", "client_email": "a", "private_key": key() });
    let file = folder.file("account.json", &account.to_string());
    let lines = |key: &str| {
        format!("[providers.vertex]\nproject = \"p\"\nregion = \"us-central1\"\nkey = \"{key}\"\n")
    };
    for (key, part) in [
        (format!("file:{file}"), ""),
        ("metadata".to_owned(), ""),
        (file, "no service account"),
        ("env:HOME".to_owned(), "no service account"),
    ] {
        let config = folder.file("hearth.toml", &lines(&key));
        let said = super::served::refusal(&config);
        assert_eq!(said.is_empty(), part.is_empty(), "{key}: {said}");
        assert!(said.contains(part), "{key}: {said}");
    }
}
