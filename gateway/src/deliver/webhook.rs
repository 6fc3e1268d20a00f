//! What is posted says who posted it: signatures after Standard Webhooks
//! (<https://www.standardwebhooks.com>), for which receivers find libraries in many languages.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use govern::Millis;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use ring::hmac;

use super::Failed;
use super::http::Address;
use super::settings;
use super::target;
use crate::config::Secret;
use crate::outbound::Proxies;

/// What a secret of that standard begins with.
const PREFIX: &str = "whsec_";

/// A webhook.
pub(super) struct Webhook {
    address: Address,
    key: Option<hmac::Key>,
}

impl Webhook {
    pub(super) fn open(webhook: &settings::Webhook, proxies: &Proxies) -> Result<Self, String> {
        let url: Url = target::http(webhook.url.reveal())?;
        let address = Address::new(url, proxies)?;
        Ok(Self { address, key: webhook.secret.as_ref().map(key).transpose()? })
    }

    /// Posts an alert. The receiver knows by the id whether it has it already.
    pub(super) async fn send(&self, id: &str, body: &str, now: Millis) -> Result<(), Failed> {
        let seconds = now.div_euclid(1000);
        let mut headers = HeaderMap::new();
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| Failed::new("the alert has no plain id"))
        };
        headers.insert("webhook-id", value(id)?);
        headers.insert("webhook-timestamp", HeaderValue::from(seconds));
        if let Some(key) = &self.key {
            headers.insert("webhook-signature", value(&sign(key, id, seconds, body))?);
        }
        let body = body.as_bytes().to_vec();
        self.address.post("application/json", headers, body).await.map(drop)
    }
}

/// The key in a secret.
///
/// # Errors
/// It begins like one of the standard, and is none.
pub(crate) fn key(secret: &Secret) -> Result<hmac::Key, String> {
    let bytes = match secret.reveal().strip_prefix(PREFIX) {
        Some(text) => BASE64_STANDARD
            .decode(text)
            .map_err(|_| format!("a secret that begins with {PREFIX} goes on in base64"))?,
        None => secret.reveal().as_bytes().to_vec(),
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn sign(key: &hmac::Key, id: &str, seconds: i64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by the standard's own Python library, `standardwebhooks` 1.0.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let body = r#"{"test": 2432232314}"#;
        let found =
            sign(&key(&secret).expect("a key"), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body);
        assert_eq!(found, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let plain = Secret::new("31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0".to_owned());
        assert_ne!(sign(&key(&plain).expect("a key"), "a", 1, body), found);
        assert!(key(&Secret::new("whsec_*".to_owned())).is_err());
    }
}
