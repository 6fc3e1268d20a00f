//! What signing in is set up with.

use std::sync::Arc;

use govern::identity::jwt::Issuer;
use govern::identity::mapping::People;
use govern::secret::{Keyring, Secret};
use reqwest::Url;

use crate::outbound::is_private;

/// Who may sign in, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where people reach this server: `https://hearth.example.org`. Cookies go nowhere else.
    pub origin: String,
    /// Whose tokens services may show.
    pub issuers: Vec<Issuer>,
    /// Where people may sign in.
    pub providers: Vec<Provider>,
    /// Whether people may sign in with passwords kept here.
    pub passwords: bool,
    /// Seals what browsers keep for us, and the secrets of one-time codes.
    pub keyring: Arc<Keyring>,
}

/// An OpenID Connect provider.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in paths and in people's external ids: small letters, digits and `-`.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Its address, as its discovery document repeats it.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
    /// Our secret there; `None`: PKCE is all there is.
    pub client_secret: Option<Secret<String>>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// What it says of people, and what that means.
    pub people: People,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The origin.
    #[error("signin.origin '{0}' is no https://HOST (or http:// on this machine) without a path")]
    Origin(String),
    /// An address of somebody else.
    #[error("'{0}' of '{1}' is no https:// address (or http:// on this machine)")]
    Address(String, String),
    /// A provider's name.
    #[error("'{0}' is no name: small letters, digits and '-', and each only once")]
    Name(String),
    /// An issuer whose tokens are those of people.
    #[error(
        "service '{0}' has the issuer and as audience the client_id of provider '{1}': whoever \
         holds a person's ID token would be that service; give services an audience of their own"
    )]
    SameAudience(String, String),
    /// No HTTP client can be had.
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Settings {
    /// The origin as browsers write it, and whether it is HTTPS.
    pub(super) fn check(&self) -> Result<(String, bool), SettingsError> {
        let wrong = || SettingsError::Origin(self.origin.clone());
        let url: Url = self.origin.parse().map_err(|_| wrong())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !is_private(&url) || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong());
        }
        let mut names = Vec::new();
        for provider in &self.providers {
            address(&provider.issuer, &provider.name)?;
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let name = provider.name.as_str();
            if name.is_empty() || !name.bytes().all(plain) || names.contains(&name) {
                return Err(SettingsError::Name(name.to_owned()));
            }
            names.push(name);
        }
        for issuer in &self.issuers {
            address(&issuer.jwks_url, &issuer.name)?;
            let same = |provider: &&Provider| {
                provider.issuer == issuer.issuer && provider.client_id == issuer.audience
            };
            if let Some(provider) = self.providers.iter().find(same) {
                let (service, provider) = (issuer.name.clone(), provider.name.clone());
                return Err(SettingsError::SameAudience(service, provider));
            }
        }
        Ok((url.origin().ascii_serialization(), url.scheme() == "https"))
    }
}

fn address(url: &str, of: &str) -> Result<(), SettingsError> {
    let parsed: Option<Url> = url.parse().ok();
    let fits = parsed.is_some_and(|url| is_private(&url));
    fits.then_some(()).ok_or_else(|| SettingsError::Address(url.to_owned(), of.to_owned()))
}

#[cfg(test)]
mod tests {
    use govern::Id;
    use govern::identity::mapping::{ProjectOf, Services};
    use govern::secret::Master;

    use super::*;

    #[test]
    fn services_have_an_audience_of_their_own() {
        let check = |issuer: &str, audience: &str| {
            let master = Master::parse(Master::generate().expose()).expect("a key");
            let settings = Settings {
                origin: "https://hearth.example.org".to_owned(),
                issuers: vec![Issuer {
                    name: "ci".to_owned(),
                    issuer: issuer.to_owned(),
                    audience: audience.to_owned(),
                    jwks_url: "https://id.example.org/jwks".to_owned(),
                    services: Services {
                        organisation: Id::default(),
                        project: ProjectOf::One(Id::default()),
                        user: None,
                    },
                }],
                providers: vec![Provider {
                    name: "corp".to_owned(),
                    title: "Corp".to_owned(),
                    issuer: "https://id.example.org".to_owned(),
                    client_id: "hearth".to_owned(),
                    client_secret: None,
                    scopes: Vec::new(),
                    people: People::default(),
                }],
                passwords: false,
                keyring: Arc::new(Keyring { current: master, old: Vec::new() }),
            };
            settings.check().map(drop).map_err(|error| error.to_string())
        };
        let said = check("https://id.example.org", "hearth").expect_err("both are 'hearth'");
        assert!(said.contains("'ci'") && said.contains("'corp'"), "{said}");
        assert_eq!(check("https://id.example.org", "hearth-services"), Ok(()));
        assert_eq!(check("https://ci.example.org", "hearth"), Ok(()));
    }
}
