//! What the operator named, ready to be opened.

use std::time::Duration;

use super::target::Target;
use crate::config::{Config, Secret};
use crate::outbound::Proxies;

/// Where alerts and the audit go.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Addresses that alerts are posted to.
    pub webhooks: Vec<Webhook>,
    /// Where alerts are mailed to.
    pub mail: Option<Mail>,
    /// Where the audit goes.
    pub sinks: Vec<Sink>,
    /// How they are reached over HTTP.
    pub proxies: Proxies,
    /// How fast.
    pub pace: Pace,
}

/// A webhook for alerts.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its address; addresses of chat services are secrets by themselves.
    pub url: Secret,
    /// What signs.
    pub secret: Option<Secret>,
}

/// How alerts are mailed.
#[derive(Debug, Clone)]
pub struct Mail {
    /// `smtps://USER@HOST:PORT` or `smtp://...`
    pub server: Secret,
    /// The user's password.
    pub password: Option<Secret>,
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
}

/// A place for the audit.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Where.
    pub target: Target,
    /// What signs requests to S3.
    pub s3: Option<S3Key>,
}

/// A key of S3.
#[derive(Debug, Clone)]
pub struct S3Key {
    /// Its name.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// What temporary keys come with.
    pub session_token: Option<Secret>,
}

/// How fast things go. Tests are less patient.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Between two looks at the database.
    pub poll: Duration,
    /// The first pause after a failure.
    pub pause: Duration,
    /// The longest pause between two tries of a sink.
    pub pause_max: Duration,
    /// The longest pause between two tries of an alert.
    pub alert_pause_max: Duration,
    /// How long the database may be away before people are told.
    pub away: Duration,
    /// How long the rest of another gateway's chain lies before this gateway exports it.
    pub adopt: Duration,
    /// How long records wait for company on the way to S3; `None`: as long as usual.
    pub linger: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            pause: Duration::from_secs(2),
            pause_max: Duration::from_secs(60),
            alert_pause_max: Duration::from_secs(15 * 60),
            away: Duration::from_secs(60),
            adopt: Duration::from_secs(10 * 60),
            linger: None,
        }
    }
}

impl Settings {
    /// What a configuration says, and the variables that Amazon's own tools read.
    ///
    /// # Errors
    /// In words: a key for S3 is missing.
    pub fn of(config: &Config, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let alerts = &config.alerts;
        let webhook = |url: &Secret| Webhook { url: url.clone(), secret: alerts.secret.clone() };
        let mail = alerts.smtp.as_ref().map(|server| Mail {
            server: server.clone(),
            password: alerts.smtp_password.clone(),
            from: alerts.from.clone(),
            to: alerts.to.clone(),
        });
        let set = |name: &str| env(name).filter(|text| !text.is_empty());
        let access_key = config.audit.s3_access_key.clone().or_else(|| set("AWS_ACCESS_KEY_ID"));
        let own_secret = config.audit.s3_secret_key.clone();
        let secret_key =
            own_secret.clone().or_else(|| set("AWS_SECRET_ACCESS_KEY").map(Secret::new));
        // A token belongs to the key that it came with.
        let token = set("AWS_SESSION_TOKEN").filter(|_| own_secret.is_none()).map(Secret::new);
        let mut sinks = Vec::new();
        for target in config.audit.export.iter().cloned() {
            let s3 = match (&target, &access_key, &secret_key) {
                (Target::S3(_), Some(access_key), Some(secret_key)) => Some(S3Key {
                    access_key: access_key.clone(),
                    secret_key: secret_key.clone(),
                    session_token: token.clone(),
                }),
                (Target::S3(_), ..) => {
                    return Err("audit.export: S3 needs audit.s3_access_key and \
                                audit.s3_secret_key, or AWS_ACCESS_KEY_ID and \
                                AWS_SECRET_ACCESS_KEY"
                        .to_owned());
                }
                _ => None,
            };
            sinks.push(Sink { target, s3 });
        }
        Ok(Self {
            webhooks: alerts.webhook.iter().map(webhook).collect(),
            mail,
            sinks,
            proxies: alerts.proxies.clone(),
            pace: Pace::default(),
        })
    }
}
