//! Google's tokens: the key of a service account, or the account of the machine itself, is changed
//! for a token that holds for about an hour. One request at a time fetches one, all others use
//! what it got; while an old one holds, nobody waits for the new one.
//!
//! Sources: <https://developers.google.com/identity/protocols/oauth2/service-account>,
//! <https://cloud.google.com/compute/docs/access/authenticate-workloads>.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use reqwest::Url;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::client::{Client, Options};
use crate::outbound::is_private;

/// What a token is good for: Vertex AI has no narrower word.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Where tokens are had, where the account's file does not say.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// Where a machine of Google's finds the token of its own account.
const METADATA: &str =
    "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";

/// A new token is fetched so long before the old one ends. Google's machines hand the old one out
/// until five minutes before.
const EARLY: Duration = Duration::from_secs(240);

/// A token is given up so long before its end: a request is on its way for a while.
const MARGIN: Duration = Duration::from_secs(10);

/// Seconds that a signed assertion holds: what Google takes at most.
const ASSERTION_S: i64 = 3_600;

/// Longest wait for a token.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Longest answer with a token in it.
const BYTES_MAX: usize = 64 << 10;

/// After a failure nobody is asked again for so long.
const PAUSE: Duration = Duration::from_secs(2);

/// A source of tokens, and the one that holds.
pub(super) struct Google {
    source: Source,
    client: Client,
    state: Mutex<State>,
    /// Held by whoever fetches.
    turn: tokio::sync::Mutex<()>,
}

enum Source {
    Account(Box<Account>),
    /// The address of a machine's own account.
    Metadata(String),
}

struct Account {
    email: String,
    key_id: Option<String>,
    token_uri: Url,
    key: RsaKeyPair,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failed: Option<(Instant, String)>,
}

#[derive(Clone)]
struct Token {
    value: HeaderValue,
    /// A new one is wanted from then on.
    stale: Instant,
    ends: Instant,
}

/// The file of a service account, as far as it is needed.
#[derive(Deserialize)]
struct File {
    r#type: String,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

/// What a token comes in.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

/// Why none comes.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

impl Google {
    /// Tokens for what `key` says: the text of a service account's file, or `metadata`.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn new(key: &str, options: &Options) -> Result<Self, String> {
        if key == "metadata" {
            return Self::metadata(METADATA, options);
        }
        let source = Source::Account(Box::new(Account::read(key)?));
        Ok(Self::of(source, Client::new(options)?))
    }

    /// It is at an address that only this machine reaches, whatever stands between it and others.
    fn metadata(url: &str, options: &Options) -> Result<Self, String> {
        let options = Options { connect: options.connect, internal: true, proxy: None, ca: None };
        Ok(Self::of(Source::Metadata(url.to_owned()), Client::new(&options)?))
    }

    fn of(source: Source, client: Client) -> Self {
        Self { source, client, state: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<Token> {
        self.state().token.clone().filter(|token| Instant::now() < token.ends)
    }

    /// What a request shows.
    ///
    /// # Errors
    /// There is no token, and none is given.
    pub(super) async fn bearer(&self) -> Result<HeaderValue, String> {
        let turn = match self.held() {
            Some(token) if token.is_fresh() => return Ok(token.value),
            Some(token) => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(token.value),
            },
            None => self.turn.lock().await,
        };
        // Whoever waited finds what the one before it got, or how it failed.
        let old = self.held();
        let failed = self.state().failed.clone().filter(|(at, _)| at.elapsed() < PAUSE);
        let fetched = match (&old, failed) {
            (Some(token), _) if token.is_fresh() => return Ok(token.value.clone()),
            (_, Some((_, why))) => Err(why),
            (_, None) => self.fetch().await,
        };
        let mut state = self.state();
        let value = match fetched {
            Ok(token) => {
                let value = token.value.clone();
                *state = State { token: Some(token), failed: None };
                Ok(value)
            }
            Err(why) => {
                if state.failed.as_ref().is_none_or(|(at, _)| at.elapsed() >= PAUSE) {
                    tracing::warn!(why, "no new token from Google");
                    state.failed = Some((Instant::now(), why.clone()));
                }
                old.map(|token| token.value).ok_or(why)
            }
        };
        drop(turn);
        value
    }

    /// A token was not taken: the next request fetches another one.
    pub(super) fn forget(&self) {
        self.state().token = None;
    }

    async fn fetch(&self) -> Result<Token, String> {
        let request = self.source.request(Timestamp::now().as_second())?;
        let asked = Instant::now();
        let answer = async {
            let answer = self.client.send(request, TIME_MAX).await;
            let answer = answer.map_err(|why| format!("no token: {why}"))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
            let body = body.map_err(|error| format!("no token: its answer: {error}"))?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let (status, body) = timeout(TIME_MAX, answer)
            .await
            .map_err(|_| format!("no token within {} s", TIME_MAX.as_secs()))??;
        if status != 200 {
            return Err(refused(status, &body));
        }
        // What was granted is a secret, so an error may not repeat the answer.
        let granted: Granted = serde_json::from_slice(&body)
            .map_err(|_| "no token: its answer is not of the form that was agreed on".to_owned())?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", granted.access_token))
            .map_err(|_| "no token: what came cannot stand in a header".to_owned())?;
        value.set_sensitive(true);
        // A day is longer than any of them holds.
        let holds = Duration::from_secs(granted.expires_in.min(86_400)).saturating_sub(MARGIN);
        let stale = asked + holds.saturating_sub(EARLY).max(holds / 2);
        Ok(Token { value, stale, ends: asked + holds })
    }
}

impl Token {
    fn is_fresh(&self) -> bool {
        Instant::now() < self.stale
    }
}

impl Source {
    /// What is asked at a time in seconds since 1970.
    fn request(&self, now: i64) -> Result<Request<Bytes>, String> {
        let request = match self {
            Self::Metadata(url) => {
                Request::get(url).header("metadata-flavor", "Google").body(Bytes::new())
            }
            Self::Account(account) => {
                let form = format!(
                    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}",
                    account.assertion(now)?
                );
                Request::post(account.token_uri.as_str())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Bytes::from(form))
            }
        };
        request.map_err(|error| error.to_string())
    }
}

impl Account {
    /// Reads the text of an account's file. No error repeats any of it but the account's type.
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "key: {why}; write key = \"file:PATH\" with the JSON file of a service account, or \
                 key = \"metadata\" on a machine of Google's"
            )
        };
        let file: File =
            serde_json::from_str(text).map_err(|_| wrong("it is no service account"))?;
        if file.r#type != "service_account" {
            let kind: String = file.r#type.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(wrong(&format!("it is a credential of type `{kind}`")));
        }
        let (Some(email), Some(pem)) = (file.client_email, file.private_key) else {
            return Err(wrong("client_email or private_key is missing in it"));
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| wrong("private_key is not PEM of PKCS#8"))?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der());
        let key = key.map_err(|error| wrong(&format!("private_key: {error}")))?;
        let uri = file.token_uri.as_deref().unwrap_or(TOKEN_URI);
        let token_uri = uri.parse::<Url>().ok().filter(is_private);
        let token_uri = token_uri.ok_or_else(|| wrong("token_uri is not https"))?;
        Ok(Self { email, key_id: file.private_key_id, token_uri, key })
    }

    /// A signed assertion: a JWT as RFC 7523 wants it.
    fn assertion(&self, now: i64) -> Result<String, String> {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri.as_str(),
            "iat": now,
            "exp": now + ASSERTION_S,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = SystemRandom::new();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
            .map_err(|_| "the key of the service account does not sign".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Why no token is given, in Google's words.
fn refused(status: u16, body: &[u8]) -> String {
    let Ok(said) = serde_json::from_slice::<Refused>(body) else {
        return format!("no token: status {status}");
    };
    let words = format!("{} {}", said.error, said.error_description.unwrap_or_default());
    let words: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("no token: status {status}: {}", words.trim_end())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A machine's own account: asked with the header that keeps strangers' pages away.
    #[tokio::test]
    async fn metadata_gives_a_token_that_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).expect("a line") > 0, "{head}");
            }
            let body =
                r#"{"access_token":"of-the-machine","expires_in":3599,"token_type":"Bearer"}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            reader.get_mut().write_all(answer.as_bytes()).expect("written");
            head.to_ascii_lowercase()
        });
        let connect = Duration::from_secs(5);
        let options = Options { connect, internal: false, proxy: None, ca: None };
        let google = Google::metadata(&url, &options).expect("a source");
        // The server answers once: the second time it is the one that was kept.
        for _ in 0..2 {
            assert_eq!(google.bearer().await.expect("a token"), "Bearer of-the-machine");
        }
        let head = server.join().expect("an answer");
        assert!(head.starts_with("get /token "), "{head}");
        assert!(head.contains("metadata-flavor: google\r\n"), "{head}");
    }

    #[test]
    fn what_is_no_service_account_is_refused_without_a_word_of_it() {
        for (text, part) in [
            ("AIza-secret", "no service account"),
            ("{\"type\":\"authorized_user\",\"refresh_token\":\"secret\"}", "`authorized_user`"),
            (
                "{\"type\":\"service_account\",\"client_email\":\"secret\"}",
                "private_key is missing",
            ),
            (
                "{\"type\":\"service_account\",\"client_email\":\"a\",\"private_key\":\"secret\"}",
                "private_key is not PEM",
            ),
        ] {
            let error = Account::read(text).err().expect("refused");
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
    }
}
