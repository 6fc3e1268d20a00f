//! Signing in at an OpenID Connect provider: authorization code with PKCE, state and nonce. What is
//! remembered between the way there and the way back lies sealed in the browser that went, so any
//! gateway can take it up and nobody else's browser can.
//!
//! `openidconnect` knows the provider's words; the ID token is verified as every other token is
//! (`govern::identity::jwt`).

use std::sync::Arc;

use govern::identity::jwt::{Claims, Fetch, Keys, text, verify};
use govern::{Denied, Millis, Rule};
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreProviderMetadata,
};
use openidconnect::{
    AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
};
use serde::{Deserialize, Serialize};

use super::fetch::Http;
use super::settings::Provider;

/// A discovery document is read again after this time.
const REFRESH_MS: u64 = 3_600_000;
/// One that cannot be had is asked for again after this time.
const RETRY_MS: u64 = 10_000;
/// Longest time that somebody may take at the provider.
pub(super) const FLOW_MS: Millis = 10 * 60_000;

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What the browser keeps for us on its way, sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) state: String,
    nonce: String,
    verifier: String,
    pub(super) return_to: String,
    pub(super) expires_at: Millis,
}

/// What the provider's discovery document says.
struct Known {
    metadata: CoreProviderMetadata,
    keys: Arc<Keys>,
}

/// What was found last, and when it was last looked for.
#[derive(Default)]
struct Found {
    known: Option<Arc<Known>>,
    at: Option<Millis>,
    tried: Option<Millis>,
}

/// One provider.
pub(super) struct Oidc {
    pub(super) provider: Provider,
    redirect: RedirectUrl,
    http: Http,
    found: tokio::sync::Mutex<Found>,
}

impl Oidc {
    pub(super) fn new(provider: Provider, origin: &str, http: &Http) -> Self {
        let redirect = format!("{origin}/signin/oidc/{}/callback", provider.name);
        let redirect = RedirectUrl::new(redirect).expect("an origin and plain letters");
        Self { provider, redirect, http: http.clone(), found: tokio::sync::Mutex::default() }
    }

    /// Where to send a browser, and what it is to keep.
    pub(super) async fn start(
        &self,
        return_to: String,
        now: Millis,
    ) -> Result<(String, Flow), Denied> {
        let known = self.known(now).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = self.client(&known);
        let mut request = client.authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            CsrfToken::new_random,
            Nonce::new_random,
        );
        for scope in &self.provider.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, state, nonce) = request.set_pkce_challenge(challenge).url();
        let flow = Flow {
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
            return_to,
            expires_at: now.saturating_add(FLOW_MS),
        };
        Ok((url.to_string(), flow))
    }

    /// What the provider says of whoever came back with this code.
    pub(super) async fn finish(
        &self,
        code: String,
        flow: &Flow,
        now: Millis,
    ) -> Result<Claims, Denied> {
        let known = self.known(now).await?;
        let client = self.client(&known);
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| self.refused(&error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(flow.verifier.clone()));
        let call = |request| {
            let http = self.http.clone();
            async move { http.call(request).await }
        };
        let answer =
            request.request_async(&call).await.map_err(|error| self.refused(&words(&error)))?;
        let id_token = answer.extra_fields().id_token().map(ToString::to_string);
        let id_token = id_token.ok_or_else(|| self.refused("no ID token came"))?;
        let key = known.keys.find(&id_token, now).await?;
        let (issuer, us) = (self.provider.issuer.as_str(), self.provider.client_id.as_str());
        let claims = verify(&id_token, &key, issuer, us, now)?;
        if text(&claims, "nonce") != Some(&flow.nonce) {
            return Err(self.refused("the ID token is not the answer to this sign-in"));
        }
        // Where a token is for several, it says who asked for it.
        let several = claims.get("aud").and_then(|aud| aud.as_array()).is_some_and(|a| a.len() > 1);
        let asked_by = text(&claims, "azp");
        if asked_by.is_some_and(|by| by != us) || (several && asked_by.is_none()) {
            return Err(self.refused("the ID token was made for another client"));
        }
        Ok(claims)
    }

    fn refused(&self, why: &str) -> Denied {
        tracing::warn!(provider = %self.provider.name, %why, "a sign-in failed");
        // What went wrong between two servers is not for the person between them.
        let message = format!("signing in at {} did not work; try again", self.provider.title);
        Denied::new(Rule::UnknownKey, message)
    }

    fn client(&self, known: &Known) -> Client {
        let secret = self.provider.client_secret.as_ref();
        let secret = secret.map(|secret| ClientSecret::new(secret.expose().clone()));
        let id = ClientId::new(self.provider.client_id.clone());
        let ways = known.metadata.token_endpoint_auth_methods_supported();
        let has = |way| ways.is_some_and(|ways| ways.contains(&way));
        let post_only = has(CoreClientAuthMethod::ClientSecretPost)
            && !has(CoreClientAuthMethod::ClientSecretBasic);
        let way = if post_only { AuthType::RequestBody } else { AuthType::BasicAuth };
        CoreClient::from_provider_metadata(known.metadata.clone(), id, secret)
            .set_redirect_uri(self.redirect.clone())
            .set_auth_type(way)
    }

    /// The discovery document, from memory where it is young; the last one while the provider is
    /// away.
    async fn known(&self, now: Millis) -> Result<Arc<Known>, Denied> {
        let mut found = self.found.lock().await;
        let older = |at: Option<Millis>, ms| at.is_none_or(|at| now.abs_diff(at) >= ms);
        if older(found.at, REFRESH_MS) && older(found.tried, RETRY_MS) {
            found.tried = Some(now);
            match self.discover(found.known.as_deref()).await {
                Ok(known) => (found.known, found.at) = (Some(Arc::new(known)), Some(now)),
                Err(error) => {
                    tracing::warn!(provider = %self.provider.name, %error, "it cannot be reached");
                }
            }
        }
        found.known.clone().ok_or_else(|| {
            let message = format!("{} cannot be reached; try again", self.provider.title);
            Denied::new(Rule::Unavailable, message).after(RETRY_MS / 1000)
        })
    }

    async fn discover(&self, before: Option<&Known>) -> Result<Known, String> {
        let issuer = &self.provider.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.http.get(&url).await.map_err(|error| error.to_string())?;
        let metadata: CoreProviderMetadata =
            serde_json::from_slice(&document).map_err(|error| error.to_string())?;
        // Letter by letter, or another provider could speak in this one's name.
        if metadata.issuer().as_str() != issuer {
            return Err(format!("it calls itself '{}'", metadata.issuer().as_str()));
        }
        let url = metadata.jwks_uri().as_str();
        let same = before.filter(|before| before.metadata.jwks_uri().as_str() == url);
        let keys = same.map_or_else(
            || {
                let fetch: Arc<dyn Fetch> = Arc::new(self.http.clone());
                Keys::new(url, &fetch)
            },
            |before| Arc::clone(&before.keys),
        );
        Ok(Known { metadata, keys })
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}
