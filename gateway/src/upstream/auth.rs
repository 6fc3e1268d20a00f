//! What a provider is shown. A key is a secret: it stands in no error and no log.

use bytes::Bytes;
use govern::Millis;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use jiff::Timestamp;

use super::client::Options;
use super::google::Google;
use super::kinds::{self, Kind};
use crate::config::Secret;
use crate::config::routing::ProviderConfig;
use crate::sigv4::{self, Credentials};

/// How requests are signed.
pub(super) enum Auth {
    /// With nothing.
    None,
    /// With the same header each time.
    Header(HeaderName, HeaderValue),
    /// Each one by itself, for AWS.
    Aws(Box<Aws>),
    /// With a token of Google's.
    Google(Box<Google>),
}

/// A key of AWS's, and where it is good.
pub(super) struct Aws {
    access_key: String,
    secret_key: Secret,
    session_token: Option<Secret>,
    region: String,
}

impl Auth {
    /// As a kind wants it.
    ///
    /// # Errors
    /// The key is missing or cannot be used, or there is one too many.
    pub(super) fn new(
        kind: &Kind,
        config: &ProviderConfig,
        options: &Options,
    ) -> Result<Self, String> {
        let key = config.key.as_ref().map(|key| key.reveal().trim());
        if key == Some("") {
            return Err("key is empty".to_owned());
        }
        if kind.auth != kinds::Auth::Aws {
            let own =
                [("secret_key", &config.secret_key), ("session_token", &config.session_token)];
            if let Some((name, _)) = own.iter().find(|(_, value)| value.is_some()) {
                return Err(format!("{name}: kind {} has no use for it", kind.name));
            }
        }
        let missing = || format!("key is missing; write key = \"env:{}\"", kind.key_env);
        match kind.auth {
            kinds::Auth::Bearer => match key {
                Some(key) => bearer(key),
                None if kind.key_env.is_empty() => Ok(Self::None),
                None => Err(missing()),
            },
            kinds::Auth::Header(name) => {
                header(HeaderName::from_static(name), key.ok_or_else(missing)?)
            }
            kinds::Auth::Aws => aws(key.ok_or_else(missing)?, config),
            kinds::Auth::Google => {
                let key = key.ok_or(
                    "key is missing; write key = \"file:PATH\" with the JSON file of a service \
                     account, or key = \"metadata\" on a machine of Google's",
                )?;
                Ok(Self::Google(Box::new(Google::new(key, options)?)))
            }
        }
    }

    /// The request with what proves who asks.
    ///
    /// # Errors
    /// There is no proof now.
    pub(super) async fn sign(&self, mut request: Request<Bytes>) -> Result<Request<Bytes>, String> {
        match self {
            Self::None => {}
            Self::Header(name, value) => {
                request.headers_mut().insert(name.clone(), value.clone());
            }
            Self::Aws(aws) => aws.sign(&mut request, Timestamp::now().as_millisecond())?,
            Self::Google(google) => {
                let value = google.bearer().await?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
        }
        Ok(request)
    }

    /// The header that carries the proof, if it is one.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::None => None,
            Self::Header(name, _) => Some(name),
            Self::Aws(_) | Self::Google(_) => Some(&AUTHORIZATION),
        }
    }

    /// The proof was not taken: one that can be had anew is given up.
    pub(super) fn refused(&self) {
        if let Self::Google(google) = self {
            google.forget();
        }
    }
}

fn bearer(key: &str) -> Result<Auth, String> {
    header(AUTHORIZATION, &format!("Bearer {key}"))
}

fn header(name: HeaderName, value: &str) -> Result<Auth, String> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| "key holds what a header cannot".to_owned())?;
    value.set_sensitive(true);
    Ok(Auth::Header(name, value))
}

/// A pair of keys signs; a key alone is a Bedrock API key.
fn aws(key: &str, config: &ProviderConfig) -> Result<Auth, String> {
    let Some(secret) = &config.secret_key else {
        // The name of half a pair is not to go out as if it were a key.
        let half = key.len() == 20 && (key.starts_with("AKIA") || key.starts_with("ASIA"));
        if half || config.session_token.is_some() {
            return Err("secret_key is missing; write \
                        secret_key = \"env:AWS_SECRET_ACCESS_KEY\""
                .to_owned());
        }
        return bearer(key);
    };
    let trimmed = |secret: &Secret| Secret::new(secret.reveal().trim().to_owned());
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let session_token = config.session_token.as_ref().map(trimmed);
    if !visible(key) || session_token.as_ref().is_some_and(|token| !visible(token.reveal())) {
        return Err("key or session_token holds what a header cannot".to_owned());
    }
    Ok(Auth::Aws(Box::new(Aws {
        access_key: key.to_owned(),
        secret_key: trimmed(secret),
        session_token,
        region: config.region.clone().ok_or("region is missing")?,
    })))
}

impl Aws {
    fn sign(&self, request: &mut Request<Bytes>, now: Millis) -> Result<(), String> {
        let credentials = Credentials {
            access_key: &self.access_key,
            secret_key: self.secret_key.reveal(),
            session_token: self.session_token.as_ref().map(Secret::reveal),
        };
        let host = host(request.uri()).ok_or("the address has no host")?;
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let added = sigv4::sign(
            &credentials,
            &sigv4::Request {
                region: &self.region,
                service: "bedrock",
                method: request.method().as_str(),
                path: request.uri().path(),
                query: &[],
                headers: &[("host", &host), ("content-type", kind.unwrap_or_default())],
                body: &sigv4::hash(request.body()),
            },
            now,
        );
        for (name, value) in added {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| "a signature that cannot stand in a header".to_owned())?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Ok(())
    }
}

/// The host as the client sends it: without a port that goes without saying.
fn host(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some(match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signatures as botocore 1.44.5 makes them of the same requests at the same time. The colons
    /// and slashes of the model's name are encoded once on the way, and twice in what is signed.
    #[test]
    fn the_same_signatures_as_amazon_s_own_client() {
        for (token, names, signature) in [
            (
                None,
                "content-type;host;x-amz-date",
                "a9fac81dd4c07dcd8ff139239de45b3c50ad71f41756710b82d6ce06043bc6b4",
            ),
            (
                Some("the-token"),
                "content-type;host;x-amz-date;x-amz-security-token",
                "d1d674683c981e96c9e236c22135e77341c8abaf0fb4cd2fbdb3f92455601bf9",
            ),
        ] {
            let aws = Aws {
                access_key: "AKIDEXAMPLE".to_owned(),
                secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
                session_token: token.map(|token| Secret::new(token.to_owned())),
                region: "us-east-1".to_owned(),
            };
            let model = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude:0";
            let model = sigv4::encode(model, false);
            let url =
                format!("https://bedrock-runtime.us-east-1.amazonaws.com/model/{model}/converse");
            let body = Bytes::from_static(b"{\"messages\":[]}");
            let request = Request::post(url).header(CONTENT_TYPE, "application/json").body(body);
            let mut request = request.expect("a request");
            let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
            aws.sign(&mut request, now.as_millisecond()).expect("signed");
            let found = request.headers()[AUTHORIZATION].to_str().expect("text");
            let scope = "AKIDEXAMPLE/20261121/us-east-1/bedrock/aws4_request";
            let expect = format!(
                "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
            );
            assert_eq!(found, expect);
        }
    }

    #[test]
    fn a_port_that_goes_without_saying_is_not_signed() {
        for (url, expect) in [
            ("https://a.example/x", "a.example"),
            ("https://a.example:443/x", "a.example"),
            ("https://a.example:80/x", "a.example:80"),
            ("http://a.example:80/x", "a.example"),
            ("http://[::1]:9/x", "[::1]:9"),
        ] {
            assert_eq!(host(&url.parse().expect(url)).as_deref(), Some(expect), "{url}");
        }
    }
}
