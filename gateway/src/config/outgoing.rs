//! Options of what leaves this machine by itself: alerts and the audit.

use super::options::{Opt, one};
use super::{Config, Secret, values};
use crate::deliver::target::{self, Target};
use crate::deliver::{mailbox, server};
pub use crate::outbound::Proxies;

/// Who is told of budgets and troubles.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alerts {
    /// Addresses that alerts are posted to.
    pub webhook: Vec<Secret>,
    /// What signs them.
    pub secret: Option<Secret>,
    /// The mail server.
    pub smtp: Option<Secret>,
    /// The password for it.
    pub smtp_password: Option<Secret>,
    /// Who writes the mails.
    pub from: String,
    /// Who gets them.
    pub to: Vec<String>,
    /// Who passes on what goes out over HTTP, alerts and audit.
    pub proxies: Proxies,
}

/// Where the audit goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// Places.
    pub export: Vec<Target>,
    /// Name of the key for S3.
    pub s3_access_key: Option<String>,
    /// The key for S3.
    pub s3_secret_key: Option<Secret>,
}

/// What must hold between these options; an error names the option.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, &'static str)> {
    let Config { alerts, audit, data, .. } = config;
    let tells = !alerts.webhook.is_empty() || alerts.smtp.is_some();
    if data.is_none() && tells {
        return Err(("alerts", "store.data is missing: without it there are no budgets"));
    }
    if data.is_none() && !audit.export.is_empty() {
        return Err(("audit.export", "store.data is missing: without it there is no audit"));
    }
    if alerts.smtp.is_some() && (alerts.from.is_empty() || alerts.to.is_empty()) {
        return Err(("alerts.smtp", "alerts.from and alerts.to are needed too"));
    }
    let mails = !alerts.from.is_empty() || !alerts.to.is_empty() || alerts.smtp_password.is_some();
    if alerts.smtp.is_none() && mails {
        return Err(("alerts.smtp", "it is missing, so nobody gets mails"));
    }
    if alerts.secret.is_some() && alerts.webhook.is_empty() {
        return Err(("alerts.webhook", "it is missing, so there is nothing to sign"));
    }
    let mut names: Vec<String> = audit.export.iter().map(Target::name).collect();
    names.sort();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(("audit.export", "two places are the same"));
    }
    Ok(())
}

/// Texts that may hold a secret: an error says which of them is wrong, and never what it says.
fn each<T>(texts: &[&str], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let nth = |(at, text): (usize, &&str)| {
        parse(text).map_err(|why| match texts.len() {
            1 => why,
            _ => format!("number {}: {why}", at + 1),
        })
    };
    texts.iter().enumerate().map(nth).collect()
}

fn proxies(text: &str) -> Result<Proxies, String> {
    match text {
        "none" => Ok(Proxies::None),
        "environment" => Ok(Proxies::Environment),
        _ => match target::proxy(text) {
            Ok(()) => Ok(Proxies::One(Secret::new(text.to_owned()))),
            Err(why) => Err(format!("write none, environment or a URL: {why}")),
        },
    }
}

pub(super) const WEBHOOK: Opt = Opt {
    key: "alerts.webhook",
    env: "HEARTH_ALERTS_WEBHOOK",
    flag: "alerts-webhook",
    value: "URL",
    default: "",
    list: true,
    doc: "Addresses that alerts are posted to as JSON (docs/govern.md). A password alone \
          (`https://:TOKEN@HOST/`) is sent as bearer token.",
    set: |c, t| {
        c.alerts.webhook = each(t, |s| target::http(s).map(|_| Secret::new(s.trim().to_owned())))?;
        Ok(())
    },
};

pub(super) const WEBHOOK_SECRET: Opt = Opt {
    key: "alerts.webhook_secret",
    env: "HEARTH_ALERTS_WEBHOOK_SECRET",
    flag: "alerts-webhook-secret",
    value: "SECRET",
    default: "",
    list: false,
    doc: "Signs what is posted, after Standard Webhooks: any text, or `whsec_` and base64. Prefer \
          the variable or the file.",
    set: |c, t| {
        one(&mut c.alerts.secret, t, values::secret_or_none)?;
        c.alerts.secret.as_ref().map_or(Ok(()), |secret| crate::deliver::key(secret).map(drop))
    },
};

pub(super) const SMTP: Opt = Opt {
    key: "alerts.smtp",
    env: "HEARTH_ALERTS_SMTP",
    flag: "alerts-smtp",
    value: "URL",
    default: "",
    list: false,
    doc: "Mail server for alerts: `smtps://USER@HOST:465` (TLS) or `smtp://USER@HOST:587` \
          (STARTTLS, required unless the server is on this machine and asks no password).",
    set: |c, t| {
        one(&mut c.alerts.smtp, t, |s| match s {
            "" => Ok(None),
            s => server(s).map(|_| Some(Secret::new(s.to_owned()))),
        })
    },
};

pub(super) const SMTP_PASSWORD: Opt = Opt {
    key: "alerts.smtp_password",
    env: "HEARTH_ALERTS_SMTP_PASSWORD",
    flag: "alerts-smtp-password",
    value: "PASSWORD",
    default: "",
    list: false,
    doc: "Password of that user. Prefer the variable or the file.",
    set: |c, t| one(&mut c.alerts.smtp_password, t, values::secret_or_none),
};

pub(super) const FROM: Opt = Opt {
    key: "alerts.from",
    env: "HEARTH_ALERTS_FROM",
    flag: "alerts-from",
    value: "ADDRESS",
    default: "",
    list: false,
    doc: "Sender of the mails: `hearth@example.org` or `Hearth <hearth@example.org>`.",
    set: |c, t| {
        one(&mut c.alerts.from, t, |s| match s {
            "" => Ok(String::new()),
            s => mailbox(s).map(|_| s.to_owned()),
        })
    },
};

pub(super) const TO: Opt = Opt {
    key: "alerts.to",
    env: "HEARTH_ALERTS_TO",
    flag: "alerts-to",
    value: "ADDRESS",
    default: "",
    list: true,
    doc: "Recipients of the mails.",
    set: |c, t| {
        c.alerts.to = each(t, |s| mailbox(s).map(|_| s.to_owned()))?;
        Ok(())
    },
};

pub(super) const PROXY: Opt = Opt {
    key: "alerts.proxy",
    env: "HEARTH_ALERTS_PROXY",
    flag: "alerts-proxy",
    value: "none|environment|URL",
    default: "none",
    list: false,
    doc: "Proxy for alerts and exports over HTTP; `environment`: what HTTPS_PROXY and its like say.",
    set: |c, t| one(&mut c.alerts.proxies, t, proxies),
};

pub(super) const EXPORT: Opt = Opt {
    key: "audit.export",
    env: "HEARTH_AUDIT_EXPORT",
    flag: "audit-export",
    value: "PLACE",
    default: "",
    list: true,
    doc: "Places that get every record of the audit: `syslog:udp://HOST:514`, `syslog:tcp://...`, \
          `syslog:tls://...`, `file:/PATH` (JSON lines), `https://HOST/PATH` (JSON lines), \
          `otlp:https://HOST:4318`, `s3://BUCKET/PREFIX?region=NAME&endpoint=URL`.",
    set: |c, t| {
        c.audit.export = each(t, target::parse)?;
        Ok(())
    },
};

pub(super) const S3_ACCESS_KEY: Opt = Opt {
    key: "audit.s3_access_key",
    env: "HEARTH_AUDIT_S3_ACCESS_KEY",
    flag: "audit-s3-access-key",
    value: "NAME",
    default: "",
    list: false,
    doc: "Name of the key for S3. Empty: AWS_ACCESS_KEY_ID.",
    set: |c, t| {
        one(&mut c.audit.s3_access_key, t, |s| Ok(Some(s.to_owned()).filter(|s| !s.is_empty())))
    },
};

pub(super) const S3_SECRET_KEY: Opt = Opt {
    key: "audit.s3_secret_key",
    env: "HEARTH_AUDIT_S3_SECRET_KEY",
    flag: "audit-s3-secret-key",
    value: "KEY",
    default: "",
    list: false,
    doc: "The key for S3. Empty: AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN. Prefer the variable \
          or the file.",
    set: |c, t| one(&mut c.audit.s3_secret_key, t, values::secret_or_none),
};
