//! Tokens that others issue: compact JWS (RFC 7515) with the claims of RFC 7519, verified against
//! the keys that the issuer publishes. `jsonwebtoken` verifies signatures; here it is decided which
//! key, which algorithm and which times are good enough.
//!
//! The algorithm is the key's, never the token's choice alone: a public key must not become the
//! secret of an HMAC. Keys come from the configured address only; a token's own `jku`, `x5u` and
//! `jwk` are not looked at.

mod keys;

use std::sync::Arc;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::mapping::Services;
use crate::{Denied, Millis, Rule};

pub use keys::{Fetch, Fetching, Keys, PublicKey};

/// Longest token that is looked at.
pub const BYTES_MAX: usize = 8 << 10;

/// How far two clocks may differ.
const LEEWAY_S: i64 = 60;

/// Longest life of a token: it cannot be taken back, so it must end.
const LIFETIME_MAX_S: i64 = 24 * 3600;

/// What a token says.
pub type Claims = Map<String, Value>;

/// Somebody whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name here.
    pub name: String,
    /// `iss`, letter by letter.
    pub issuer: String,
    /// `aud` must name it, letter by letter.
    pub audience: String,
    /// Where its keys lie.
    pub jwks_url: String,
    /// What its claims mean.
    pub services: Services,
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not three parts of base64 and JSON, or with a signature that nobody makes.
    #[error("the token is none of the signed kinds that are taken here")]
    Malformed,
    /// Longer than anybody's.
    #[error("the token is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// Not the key's algorithm.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// No key of this name, or no name where there are several keys.
    #[error("the token names no key of its issuer")]
    UnknownKey,
    /// Made by another key, or altered.
    #[error("the token's signature is wrong")]
    Signature,
    /// Somebody else's.
    #[error("the token comes from an issuer that is not known here")]
    Issuer,
    /// For somebody else.
    #[error("the token is meant for somebody else")]
    Audience,
    /// A claim is missing, or is not what it should be.
    #[error("the token's claim '{0}' is missing or wrong")]
    Claim(&'static str),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the token is not valid yet")]
    NotYet,
    /// It lives too long.
    #[error("the token lives for longer than 24 hours")]
    Lifetime,
    /// Its issuer's keys cannot be had.
    #[error("the keys of the token's issuer cannot be had at the moment; try again")]
    Unavailable,
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Expired => Self::new(Rule::ExpiredKey, message),
            Refused::Unavailable => Self::new(Rule::Unavailable, message).after(10),
            _ => Self::new(Rule::UnknownKey, message),
        }
    }
}

/// Whether this may be a token of this kind: three parts. Keys of ours have no dot.
#[must_use]
pub fn is_token(shown: &str) -> bool {
    shown.bytes().filter(|b| *b == b'.').count() == 2
}

/// The name of the key and the algorithm that a token claims.
///
/// # Errors
/// It is too long, no token, or asks for what is not understood here.
pub fn head(token: &str) -> Result<(Option<String>, Algorithm), Refused> {
    if token.len() > BYTES_MAX {
        return Err(Refused::TooLong);
    }
    let header = decode_header(token).map_err(|_| Refused::Malformed)?;
    // What a token says is critical must be understood; nothing of it is.
    if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
        return Err(Refused::Malformed);
    }
    Ok((header.kid, header.alg))
}

/// The claims of a token that this key made, for this audience, now.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(
    token: &str,
    key: &PublicKey,
    issuer: &str,
    audience: &str,
    now: Millis,
) -> Result<Claims, Refused> {
    let (_, algorithm) = head(token)?;
    if !key.algorithms.contains(&algorithm) {
        return Err(Refused::Algorithm);
    }
    let mut validation = Validation::new(algorithm);
    // Times are checked below, against the time that is given.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    let decoded = decode::<Claims>(token, &key.key, &validation).map_err(|error| {
        use jsonwebtoken::errors::ErrorKind as Kind;
        match error.kind() {
            Kind::InvalidSignature => Refused::Signature,
            Kind::InvalidIssuer => Refused::Issuer,
            Kind::InvalidAudience => Refused::Audience,
            Kind::InvalidAlgorithm => Refused::Algorithm,
            Kind::MissingRequiredClaim(claim) => Refused::Claim(match claim.as_str() {
                "iss" => "iss",
                "aud" => "aud",
                _ => "exp",
            }),
            _ => Refused::Malformed,
        }
    })?;
    let claims = decoded.claims;
    // A list of issuers would say that it comes from several.
    if text(&claims, "iss") != Some(issuer) {
        return Err(Refused::Issuer);
    }
    in_time(&claims, now.div_euclid(1000))?;
    Ok(claims)
}

/// Whether the time, in seconds, is a token's.
fn in_time(claims: &Claims, now: i64) -> Result<(), Refused> {
    let expires = seconds(claims, "exp")?.ok_or(Refused::Claim("exp"))?;
    let (issued, begins) = (seconds(claims, "iat")?, seconds(claims, "nbf")?);
    if now.saturating_sub(LEEWAY_S) >= expires {
        return Err(Refused::Expired);
    }
    let latest = now.saturating_add(LEEWAY_S);
    if issued.is_some_and(|at| at > latest) || begins.is_some_and(|at| at > latest) {
        return Err(Refused::NotYet);
    }
    // One that does not say when it was made may have been made now.
    let since = issued.unwrap_or(latest);
    if expires.saturating_sub(since) > LIFETIME_MAX_S {
        return Err(Refused::Lifetime);
    }
    Ok(())
}

/// A time of RFC 7519, which may have a fraction.
fn seconds(claims: &Claims, name: &'static str) -> Result<Option<i64>, Refused> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| (0.0..1e15).contains(number))?;
        #[allow(clippy::cast_possible_truncation, reason = "the fraction is to be cut")]
        Some(number as i64)
    });
    whole.filter(|seconds| *seconds >= 0).map(Some).ok_or(Refused::Claim(name))
}

/// A claim that is a text.
#[must_use]
pub fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// All issuers whose tokens services may show, with their keys.
#[derive(Debug, Default)]
pub struct Issuers(Vec<(Issuer, Arc<Keys>)>);

impl Issuers {
    /// These issuers; their keys are fetched when the first token comes.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>, fetch: &Arc<dyn Fetch>) -> Self {
        let with_keys = |issuer: Issuer| {
            let keys = Keys::new(&issuer.jwks_url, fetch);
            (issuer, keys)
        };
        Self(issuers.into_iter().map(with_keys).collect())
    }

    /// Who issued a token, and what it says.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub async fn claims(&self, token: &str, now: Millis) -> Result<(&Issuer, Claims), Refused> {
        let (issuer, keys) = self.of(token)?;
        let key = keys.find(token, now).await?;
        let claims = verify(token, &key, &issuer.issuer, &issuer.audience, now)?;
        Ok((issuer, claims))
    }

    /// Whose keys to try: so far a token only says where it comes from.
    fn of(&self, token: &str) -> Result<&(Issuer, Arc<Keys>), Refused> {
        if token.len() > BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let said: Claims = insecure_decode_claims(token).map_err(|_| Refused::Malformed)?;
        let named = text(&said, "iss").ok_or(Refused::Claim("iss"))?;
        let of_issuer = |(issuer, _): &&(Issuer, Arc<Keys>)| issuer.issuer == named;
        self.0.iter().find(of_issuer).ok_or(Refused::Issuer)?;
        let mut all = self.0.iter().filter(of_issuer);
        all.find(|(issuer, _)| is_for(&said, &issuer.audience)).ok_or(Refused::Audience)
    }
}

/// Whether `aud` is this audience, or names it among others.
fn is_for(claims: &Claims, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one == audience),
        _ => false,
    }
}
