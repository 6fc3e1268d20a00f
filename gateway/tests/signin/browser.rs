//! A browser as far as signing in needs one: cookies by host and path, and an `Origin` on forms.

use reqwest::header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};
use serde_json::Value;

/// A cookie, and where it is sent.
#[derive(Debug, Clone)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn location(&self) -> &str {
        self.header(LOCATION.as_str()).unwrap_or_else(|| panic!("no redirect: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The cookies that it sets, whole.
    pub(super) fn cookies(&self) -> Vec<&str> {
        let all = self.headers.get_all(SET_COOKIE).iter();
        all.map(|value| value.to_str().expect("a text")).collect()
    }

    /// The rule that said no.
    pub(super) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

/// A browser whose pages come from `origin`.
pub(super) struct Browser {
    http: Client,
    pub(super) origin: String,
    jar: Vec<Cookie>,
}

/// What a request has beside its address.
#[derive(Default, Clone)]
pub(super) struct With {
    pub(super) form: Option<Vec<(&'static str, String)>>,
    pub(super) json: Option<Value>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// No `Origin`, or another one.
    pub(super) origin: Option<Option<String>>,
}

impl Browser {
    pub(super) fn new(origin: &str) -> Self {
        let http = Client::builder().redirect(Policy::none()).build().expect("a client");
        Self { http, origin: origin.to_owned(), jar: Vec::new() }
    }

    pub(super) async fn get(&mut self, url: &str) -> Answer {
        self.send(Method::GET, url, With::default()).await
    }

    pub(super) async fn form(&mut self, url: &str, form: &[(&'static str, &str)]) -> Answer {
        let form = form.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.send(Method::POST, url, With { form: Some(form), ..With::default() }).await
    }

    pub(super) async fn json(&mut self, url: &str, json: Value) -> Answer {
        self.send(Method::POST, url, With { json: Some(json), ..With::default() }).await
    }

    /// JSON with the proof of the session that the jar holds.
    pub(super) async fn act(&mut self, url: &str, json: Value) -> Answer {
        let csrf = self.get("/signin/me").await.json()["csrf"].as_str().expect("csrf").to_owned();
        let headers = vec![("x-hearth-csrf", csrf)];
        let with = With { json: Some(json), headers, ..With::default() };
        self.send(Method::POST, url, with).await
    }

    pub(super) async fn send(&mut self, method: Method, url: &str, with: With) -> Answer {
        let url = Url::parse(&self.origin).expect("a URL").join(url).expect("a URL");
        let mut request = self.http.request(method.clone(), url.clone());
        let With { form, json, headers, origin } = with;
        if let Some(form) = form {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(encoded(&form));
        }
        if let Some(json) = json {
            request = request.json(&json);
        }
        let page = if host(&url) == host(&Url::parse(&self.origin).expect("a URL")) {
            self.origin.clone()
        } else {
            url.origin().ascii_serialization()
        };
        let origin = origin.unwrap_or_else(|| (method != Method::GET).then_some(page));
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let sent = self
            .jar
            .iter()
            .filter(|cookie| cookie.host == host(&url) && url.path().starts_with(&cookie.path));
        let sent: Vec<_> = sent.map(|c| format!("{}={}", c.name, c.value)).collect();
        if !sent.is_empty() {
            request = request.header(COOKIE, sent.join("; "));
        }
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.text().await.expect("a body");
        let answer = Answer { status, headers, body };
        for cookie in answer.cookies() {
            self.keep(&url, cookie);
        }
        answer
    }

    fn keep(&mut self, url: &Url, cookie: &str) {
        let mut parts = cookie.split("; ");
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a pair");
        let attributes: Vec<&str> = parts.collect();
        let is_path = |a: &&str| a.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("path="));
        let path = attributes.iter().copied().find(is_path).map_or("/", |path| &path[5..]);
        let made = Cookie {
            host: host(url),
            path: path.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let same =
            |old: &Cookie| old.host == made.host && old.path == made.path && old.name == made.name;
        self.jar.retain(|old| !same(old));
        let over = attributes.iter().any(|a| *a == "Max-Age=0" || a.contains("01 Jan 1970"));
        if !over {
            self.jar.push(made);
        }
    }

    /// What our server has this browser keep under a name.
    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        let host = host(&Url::parse(&self.origin).expect("a URL"));
        let found = self.jar.iter().find(|cookie| cookie.host == host && cookie.name == name);
        found.map(|cookie| cookie.value.clone())
    }

    /// Puts a cookie of our server into the jar.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        let url = Url::parse(&self.origin).expect("a URL");
        self.keep(&url, &format!("{name}={value}; Path=/"));
    }

    /// Signs in at the provider as this person; where that sends the browser back to.
    pub(super) async fn visit(&mut self, start: &str, person: &str) -> String {
        let mut at = Url::parse(&self.origin).expect("a URL").join(start).expect("a URL");
        let mut answer = self.get(start).await;
        for _ in 0..8 {
            at = at.join(answer.location()).expect("a URL");
            if at.as_str().starts_with(&self.origin) {
                return at.to_string();
            }
            answer = self.get(at.as_str()).await;
            if answer.status == 200 && at.path().starts_with("/interaction/") {
                let form = [("prompt", "login"), ("login", person), ("password", "any")];
                answer = self.form(at.as_str(), &form).await;
            }
        }
        panic!("the provider does not come to an end: {answer:?}");
    }
}

fn host(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or(""), url.port_or_known_default().unwrap_or(0))
}

fn encoded(form: &[(&'static str, String)]) -> String {
    let mut url = Url::parse("http://form.example").expect("a URL");
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or("").to_owned()
}
