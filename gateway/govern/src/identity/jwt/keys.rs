//! The keys of an issuer (JWKS, RFC 7517), kept in memory. They change: a name that is not known
//! yet is asked for once, at most every ten seconds, and all are asked for again every ten minutes,
//! so that a key that was taken back is gone soon. While the issuer is away the last ones serve for
//! a day. How they are fetched is not known here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{Refused, head};
use crate::Millis;

/// Most keys that are read of an issuer.
const KEYS_MAX: usize = 64;

/// No two fetches are nearer to each other.
const RETRY_MS: u64 = 10_000;

/// Keys as old as this are fetched again, while they serve.
const REFRESH_MS: u64 = 10 * 60_000;

/// Keys older than this do not serve.
const STALE_MS: u64 = 24 * 3_600_000;

/// Shortest modulus of an RSA key, in bytes: 2,048 bits.
const MODULUS_BYTES_MIN: usize = 256;

/// A fetch under way: the body, or why there is none.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

/// Gets what lies at an address.
pub trait Fetch: Send + Sync {
    /// The body; within bounds of time and size that whoever implements it sets.
    fn get<'a>(&'a self, url: &'a str) -> Fetching<'a>;
}

/// A key that verifies signatures.
#[derive(Clone)]
pub struct PublicKey {
    name: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {:?})", self.name, self.algorithms)
    }
}

impl PublicKey {
    /// Reads one key; `None` for one that is not for signatures, is symmetric, too short, or of a
    /// kind that is not known.
    #[must_use]
    pub fn read(key: &Value) -> Option<Self> {
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let common = &key.common;
        let for_signatures =
            common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature)
                && common
                    .key_operations
                    .as_ref()
                    .is_none_or(|all| all.contains(&KeyOperations::Verify));
        use Algorithm as A;
        let of_kind: &[A] = match &key.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
                let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
                if bytes < MODULUS_BYTES_MIN {
                    return None;
                }
                &[A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512]
            }
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &[A::ES256],
                EllipticCurve::P384 => &[A::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) => match pair.curve {
                EllipticCurve::Ed25519 => &[A::EdDSA],
                _ => return None,
            },
            _ => return None,
        };
        let own = |a: &&A| common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(**a));
        let algorithms: Vec<A> = of_kind.iter().filter(own).copied().collect();
        let decoding = DecodingKey::from_jwk(&key).ok()?;
        let usable = for_signatures && !algorithms.is_empty();
        usable.then(|| Self { name: key.common.key_id.clone(), algorithms, key: decoding })
    }

    /// Reads a set of keys, without those that are of no use here.
    ///
    /// # Errors
    /// It is no set of keys.
    pub fn read_all(set: &[u8]) -> Result<Vec<Self>, String> {
        let set: Value = serde_json::from_slice(set).map_err(|error| error.to_string())?;
        let keys = set["keys"].as_array().ok_or("there is no list called 'keys'")?;
        Ok(keys.iter().take(KEYS_MAX).filter_map(Self::read).collect())
    }
}

/// What was fetched last.
#[derive(Debug, Default)]
struct Kept {
    keys: Vec<Arc<PublicKey>>,
    /// When that was.
    at: Option<Millis>,
    /// When it was last tried.
    tried: Option<Millis>,
}

impl Kept {
    fn older(at: Option<Millis>, now: Millis, than_ms: u64) -> bool {
        // A clock that was set back makes them old, not eternal.
        at.is_none_or(|at| now.abs_diff(at) >= than_ms)
    }

    /// The key of a token: by its name, or the only one.
    fn find(&self, name: Option<&str>, algorithm: Algorithm) -> Result<Arc<PublicKey>, Refused> {
        let named = |key: &&Arc<PublicKey>| name.is_none() || key.name.as_deref() == name;
        let mut found = self.keys.iter().filter(named).peekable();
        if found.peek().is_none() || (name.is_none() && self.keys.len() > 1) {
            return Err(Refused::UnknownKey);
        }
        let fits = found.find(|key| key.algorithms.contains(&algorithm));
        fits.cloned().ok_or(Refused::Algorithm)
    }
}

/// The keys of one issuer.
pub struct Keys {
    url: String,
    fetch: Arc<dyn Fetch>,
    kept: RwLock<Kept>,
    /// One fetch at a time.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.url)
    }
}

impl Keys {
    /// The keys at an address. Nothing is fetched yet.
    #[must_use]
    pub fn new(url: &str, fetch: &Arc<dyn Fetch>) -> Arc<Self> {
        Arc::new(Self {
            url: url.to_owned(),
            fetch: Arc::clone(fetch),
            kept: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The key that a token names.
    ///
    /// # Errors
    /// There is none, or none can be had.
    pub async fn find(
        self: &Arc<Self>,
        token: &str,
        now: Millis,
    ) -> Result<Arc<PublicKey>, Refused> {
        let (name, algorithm) = head(token)?;
        let (found, old, stale) = self.look(name.as_deref(), algorithm, now);
        if !(stale || matches!(found, Err(Refused::UnknownKey))) {
            if old {
                // Nobody waits for it: what is kept is good for now.
                let keys = Arc::clone(self);
                tokio::spawn(async move { keys.refresh(now).await });
            }
            return found;
        }
        self.refresh(now).await;
        let (found, _, stale) = self.look(name.as_deref(), algorithm, now);
        if stale { Err(Refused::Unavailable) } else { found }
    }

    /// What is found, whether that is old, and whether it is too old.
    fn look(
        &self,
        name: Option<&str>,
        algorithm: Algorithm,
        now: Millis,
    ) -> (Result<Arc<PublicKey>, Refused>, bool, bool) {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let older = |than_ms| Kept::older(kept.at, now, than_ms);
        let old = older(REFRESH_MS) && Kept::older(kept.tried, now, RETRY_MS);
        (kept.find(name, algorithm), old, older(STALE_MS))
    }

    /// Fetches them, unless that was tried a moment ago.
    async fn refresh(&self, now: Millis) {
        let _turn = self.turn.lock().await;
        {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            if !Kept::older(kept.tried, now, RETRY_MS) {
                return;
            }
            kept.tried = Some(now);
        }
        let fetched = self.fetch.get(&self.url).await;
        match fetched.and_then(|set| PublicKey::read_all(&set)) {
            Ok(keys) => {
                let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
                kept.keys = keys.into_iter().map(Arc::new).collect();
                kept.at = Some(now);
            }
            Err(error) => tracing::warn!(url = %self.url, %error, "an issuer's keys are kept"),
        }
    }
}
