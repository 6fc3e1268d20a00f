//! HashiCorp Vault, as far as the configuration needs it: one value of a secret in a key-value
//! store of version 2, read once at start. The variables are those of Vault's own tools
//! (<https://developer.hashicorp.com/vault/docs/commands#configure-environment-variables>), and
//! `VAULT_TOKEN_FILE` beside them.
//!
//! The token goes to `VAULT_ADDR` and nowhere else: over HTTPS, or in clear within this machine,
//! and no redirect is followed. What Vault says is not repeated, since it may hold secrets.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use govern::secret::reference::{Sources, VaultAnswer};
use govern::secret::{Reference, Secret, Vault};
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Url};
use serde_json::Value;

use crate::outbound::{self, Options, Proxies, is_private};

/// Longest wait for an answer.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Longest answer. Vault itself stores no secret of more than a megabyte.
const BYTES_MAX: usize = 2 << 20;

/// Where variables come from.
pub(crate) type Env<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// A Vault.
pub(crate) struct Http {
    client: Client,
    address: Url,
    token: HeaderValue,
    namespace: Option<HeaderValue>,
    /// What an operator should mend.
    pub(crate) warning: Option<String>,
}

impl Http {
    /// The one that the environment names.
    ///
    /// # Errors
    /// A variable is missing or cannot be used.
    pub(crate) async fn from_env(env: Env<'_>) -> Result<Self, String> {
        let set = |name: &str| env(name).filter(|text| !text.is_empty());
        let address = set("VAULT_ADDR").ok_or("VAULT_ADDR is not set")?;
        let address = address.parse::<Url>().map_err(|_| "VAULT_ADDR is not a URL")?;
        if !is_private(&address) {
            return Err("VAULT_ADDR is neither https nor on this machine".to_owned());
        }
        let (token, warning) = match (set("VAULT_TOKEN"), set("VAULT_TOKEN_FILE")) {
            (Some(token), _) => (Secret::new(token), None),
            (None, Some(path)) => {
                let file = Reference::File(PathBuf::from(path));
                let read = file.resolve(Sources { env, vault: None }).await;
                let read = read.map_err(|error| format!("VAULT_TOKEN_FILE: {error}"))?;
                (read.value, read.warning)
            }
            (None, None) => return Err("VAULT_TOKEN or VAULT_TOKEN_FILE is not set".to_owned()),
        };
        let mut token = HeaderValue::from_str(token.expose())
            .map_err(|_| "the token for Vault holds what no token has")?;
        token.set_sensitive(true);
        let namespace = set("VAULT_NAMESPACE").map(|name| HeaderValue::from_str(&name));
        let namespace = namespace.transpose().map_err(|_| "VAULT_NAMESPACE is not a name")?;
        let client = client(set("VAULT_CACERT"))?;
        Ok(Self { client, address, token, namespace, warning })
    }

    async fn fetch(&self, path: &str, key: &str) -> Result<Secret<String>, String> {
        let mut request = self.client.get(self.url(path)?).header("x-vault-token", &self.token);
        request = request.header("x-vault-request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        let answer = request.send().await.map_err(told)?;
        match answer.status().as_u16() {
            200 => {}
            403 => return Err("Vault says 403: the token is not good, or may not read it".into()),
            404 => {
                return Err("Vault says 404: there is no such secret in a key-value store of \
                            version 2, or it was deleted"
                    .into());
            }
            503 => return Err("Vault says 503: it is sealed".into()),
            status @ 300..=399 => {
                return Err(format!("Vault says {status}: VAULT_ADDR has to be the active node's"));
            }
            status => return Err(format!("Vault says {status}")),
        }
        let mut body = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(told)? {
            if body.len() + chunk.len() > BYTES_MAX {
                return Err("Vault's answer is too long".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Value =
            serde_json::from_slice(&body).map_err(|_| "Vault's answer is not JSON".to_owned())?;
        match &answer["data"]["data"][key] {
            Value::String(text) => Ok(Secret::new(text.clone())),
            Value::Null => Err("the secret has no such key".to_owned()),
            _ => Err("the value is not a text".to_owned()),
        }
    }

    /// `secret/a/b` is `v1/secret/data/a/b`: the mount is the first part.
    fn url(&self, path: &str) -> Result<Url, String> {
        let parts: Vec<&str> = path.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && *part != "." && *part != "..";
        if parts.len() < 2 || !parts.iter().all(plain) {
            return Err("a path is MOUNT/SECRET".to_owned());
        }
        let mut url = self.address.clone();
        let mut segments = url.path_segments_mut().map_err(|()| "VAULT_ADDR is not a URL")?;
        segments.pop_if_empty().extend(["v1", parts[0], "data"]).extend(&parts[1..]);
        drop(segments);
        Ok(url)
    }
}

impl Vault for Http {
    fn read<'a>(&'a self, path: &'a str, key: &'a str) -> VaultAnswer<'a> {
        Box::pin(self.fetch(path, key))
    }
}

fn client(authorities: Option<String>) -> Result<Client, String> {
    let mut options = Options {
        connect: TIME_MAX,
        total: TIME_MAX,
        authorities: Vec::new(),
        proxies: Proxies::Environment,
    };
    if let Some(path) = authorities {
        let wrong = |why: String| format!("VAULT_CACERT: {path}: {why}");
        let pem = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        options.authorities =
            Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
        if options.authorities.is_empty() {
            return Err(wrong("there is no certificate in it".to_owned()));
        }
    }
    outbound::client(options).map_err(|error| format!("no connection to Vault: {error}"))
}

/// Why there is no answer, down to the cause.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = "Vault cannot be reached".to_owned();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
