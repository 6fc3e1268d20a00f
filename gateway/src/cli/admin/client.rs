//! The admin API from outside: requests, pages, and things by their names.

use std::io::Write as _;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use reqwest::{Method, Response, Url};
use serde_json::Value;

use crate::cli::exit::{self, Failure, Outcome};
use crate::config::Secret;

/// A server, and the key to show it.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
    pub(super) json: bool,
}

/// Parameters of a request.
pub(super) type Query<'a> = Vec<(&'a str, String)>;

/// Things on a page: the most that the server gives.
const PAGE: &str = "200";

impl Client {
    pub(super) fn new(url: &str, key: Option<&Secret>, json: bool) -> Result<Self, Failure> {
        let key = key.map(Secret::reveal).unwrap_or_default().to_owned();
        if key.is_empty() {
            return Err(exit::usage(
                "no key: set HEARTH_ADMIN_KEY to one that may administer; the first start of \
                 `hearth serve` prints it",
            ));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| exit::internal(format!("no HTTP client: {error}")))?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { http, url, key, json })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        body: Option<&Value>,
    ) -> Result<Response, Failure> {
        // Signing in has a path of its own.
        let base = if path.starts_with("/signin/") { "" } else { "/admin/v1" };
        let address = format!("{}{base}{path}", self.url);
        let wrong = |error| exit::usage(format!("--url {}: {error}", self.url));
        let address = match query.as_slice() {
            [] => Url::parse(&address),
            query => Url::parse_with_params(&address, query),
        };
        let request = self.http.request(method, address.map_err(wrong)?).bearer_auth(&self.key);
        let request = match body {
            Some(body) if !body.is_null() => request.json(body),
            _ => request,
        };
        let answer = request.send().await.map_err(|error| self.not_there(&error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refused(answer).await) }
    }

    fn not_there(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() {
            return exit::unavailable(format!(
                "no server answers at {}. Start one with `hearth serve`, or name yours with --url",
                self.url
            ));
        }
        exit::unavailable(format!("{}: {error}", self.url))
    }

    async fn refused(&self, answer: Response) -> Failure {
        let code = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let told = body["error"]["message"].as_str().unwrap_or(&text);
        let told: String = told.chars().take(500).collect();
        match code {
            401 => exit::unavailable(format!(
                "{told}. Set HEARTH_ADMIN_KEY to a key of {} that works",
                self.url
            )),
            403 => exit::unavailable(format!(
                "{told} Ask somebody who has it, or use a key with a wider role"
            )),
            404 if body["error"]["code"] == "unknown_url" => exit::unavailable(format!(
                "{} has no admin API: start it with --data FOLDER, so that it keeps keys and budgets",
                self.url
            )),
            400..=499 => exit::usage(told),
            _ => exit::unavailable(format!("{} answered {code}: {told}", self.url)),
        }
    }

    async fn value(&self, answer: Response) -> Result<Value, Failure> {
        answer.json().await.map_err(|error| {
            exit::unavailable(format!("{} does not answer as an admin API: {error}", self.url))
        })
    }

    pub(super) async fn get(&self, path: &str, query: &Query<'_>) -> Result<Value, Failure> {
        self.value(self.send(Method::GET, path, query, None).await?).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.value(self.send(Method::POST, path, &Vec::new(), Some(body)).await?).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.value(self.send(Method::PATCH, path, &Vec::new(), Some(body)).await?).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.delete_where(path, &Vec::new()).await
    }

    pub(super) async fn delete_where(
        &self,
        path: &str,
        query: &Query<'_>,
    ) -> Result<Value, Failure> {
        self.value(self.send(Method::DELETE, path, query, None).await?).await
    }

    /// Prints an answer as it comes.
    pub(super) async fn print(&self, path: &str, query: &Query<'_>) -> Outcome {
        let mut pieces = self.send(Method::GET, path, query, None).await?.bytes_stream();
        let broken = |error| exit::unavailable(format!("the answer broke off: {error}"));
        while let Some(piece) = pieces.try_next().await.map_err(broken)? {
            let mut out = std::io::stdout().lock();
            match out.write_all(&piece).and_then(|()| out.flush()) {
                // A reader that went away (`| head`) is no failure.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(exit::cannot_write(format!("standard output: {error}"))),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// All pages of a list as one.
    pub(super) async fn list(&self, path: &str, query: Query<'_>) -> Result<Value, Failure> {
        let mut after: Option<String> = None;
        let mut all: Option<Value> = None;
        loop {
            let mut query = query.clone();
            query.push(("limit", PAGE.to_owned()));
            query.extend(after.take().map(|after| ("after", after)));
            let mut page = self.get(path, &query).await?;
            let data = page["data"].take();
            after = page["last_id"].as_str().map(str::to_owned);
            let all = all.get_or_insert(page);
            match (all["data"].as_array_mut(), data) {
                (Some(all), Value::Array(data)) => all.extend(data),
                (_, data) => all["data"] = data,
            }
            if after.is_none() {
                all["has_more"] = Value::Bool(false);
                all["last_id"] = Value::Null;
                return Ok(std::mem::take(all));
            }
        }
    }

    /// The id of a thing that is called by its id or its name.
    pub(super) async fn id(
        &self,
        kind: &Kind,
        called: &str,
        within: Query<'_>,
    ) -> Result<String, Failure> {
        match self.find(kind, called, within).await? {
            Some(id) => Ok(id),
            None => Err(exit::usage(format!(
                "there is no {} '{called}'. `hearth admin {} list` shows them",
                kind.one, kind.path
            ))),
        }
    }

    /// The same, if there is one.
    pub(super) async fn find(
        &self,
        kind: &Kind,
        called: &str,
        mut within: Query<'_>,
    ) -> Result<Option<String>, Failure> {
        if called.starts_with(kind.mark) {
            return Ok(Some(called.to_owned()));
        }
        let field = if called.starts_with("hk-") { "prefix" } else { "name" };
        within.push((field, called.to_owned()));
        let path = format!("/{}", kind.path);
        let found = self.list(&path, within).await?;
        let found: Vec<&Value> = found["data"].as_array().into_iter().flatten().collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(one["id"].as_str().map(str::to_owned)),
            several => {
                let ids: Vec<&str> = several.iter().filter_map(|one| one["id"].as_str()).collect();
                Err(exit::usage(format!(
                    "several {} are called '{called}': name one by its id, {}",
                    kind.path,
                    ids.join(" or ")
                )))
            }
        }
    }

    /// The kinds and ids of what is called of a tree: an organisation, a team, a project, a user
    /// and a key, in this order.
    pub(super) async fn tree(
        &self,
        called: [&Option<String>; 5],
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        let kinds = [&ORGANISATION, &TEAM, &PROJECT, &USER, &KEY];
        let mut found = Vec::new();
        for (kind, called) in kinds.into_iter().zip(called) {
            if let Some(called) = called {
                found.push((kind.one, self.id(kind, called, Vec::new()).await?));
            }
        }
        Ok(found)
    }
}

/// A kind of thing: the word of its path, one of it, and how its ids begin.
pub(super) struct Kind {
    pub(super) path: &'static str,
    pub(super) one: &'static str,
    mark: &'static str,
}

const fn kind(path: &'static str, one: &'static str, mark: &'static str) -> Kind {
    Kind { path, one, mark }
}

pub(super) const ORGANISATION: Kind = kind("organisations", "organisation", "org_");
pub(super) const TEAM: Kind = kind("teams", "team", "team_");
pub(super) const PROJECT: Kind = kind("projects", "project", "proj_");
pub(super) const USER: Kind = kind("users", "user", "user_");
pub(super) const KEY: Kind = kind("keys", "key", "key_");
pub(super) const BUDGET: Kind = kind("budgets", "budget", "bud_");
