//! Alerts by e-mail. What is sent goes over TLS: from the first byte (`smtps:`), or after STARTTLS
//! (`smtp:`), which a server has to offer unless it is on this machine.

use std::net::IpAddr;
use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use reqwest::Url;
use serde::Deserialize;

use super::Failed;
use super::http::decoded;
use super::settings;

/// Longest wait for each answer of the server.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Longest time for a whole mail.
const MAIL_TIME_MAX: Duration = Duration::from_secs(20);

/// A mail server, and who writes to whom.
pub(super) struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// What an alert says in a mail.
#[derive(Deserialize)]
struct Letter {
    kind: String,
    title: String,
    text: String,
}

/// How a server is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Server {
    host: String,
    port: u16,
    user: String,
    /// TLS before anything else.
    wrapped: bool,
}

/// Reads `smtps://USER@HOST:PORT`.
///
/// # Errors
/// It is none; in words that do not repeat it.
pub(crate) fn server(text: &str) -> Result<Server, String> {
    let wrong = "write smtps://USER@HOST:465 or smtp://USER@HOST:587";
    let url: Url = text.trim().parse().map_err(|_| wrong)?;
    let (wrapped, usual) = match url.scheme() {
        "smtps" => (true, 465),
        "smtp" => (false, 587),
        _ => return Err(wrong.to_owned()),
    };
    if url.password().is_some() {
        return Err("the password belongs into alerts.smtp_password".to_owned());
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(wrong)?.to_owned();
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong.to_owned());
    }
    let user = decoded(url.username())?;
    Ok(Server { host, port: url.port().unwrap_or(usual), user, wrapped })
}

/// An address of e-mail, with or without a name before it.
///
/// # Errors
/// It is none.
pub(crate) fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| format!("`{text}` is no address such as hearth@example.org"))
}

impl Mail {
    pub(super) fn open(mail: &settings::Mail) -> Result<Self, String> {
        let Server { host, port, user, wrapped } = server(mail.server.reveal())?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let here = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = TlsParameters::new(bare.clone()).map_err(|error| error.to_string())?;
        let tls = match (wrapped, here) {
            (true, _) => Tls::Wrapper(tls),
            (false, false) => Tls::Required(tls),
            // Nobody reads what stays on this machine, unless a password was to be hidden.
            (false, true) if mail.password.is_some() => Tls::Required(tls),
            (false, true) => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(bare)
            .port(port)
            .tls(tls)
            .timeout(Some(TIME_MAX));
        if let Some(password) = &mail.password {
            if user.is_empty() {
                return Err("alerts.smtp names no user for its password".to_owned());
            }
            transport = transport.credentials(Credentials::new(user, password.reveal().to_owned()));
        }
        Ok(Self {
            transport: transport.build(),
            from: mailbox(&mail.from)?,
            to: mail.to.iter().map(|to| mailbox(to)).collect::<Result<_, _>>()?,
        })
    }

    /// Sends an alert. Sent twice, it has one `Message-ID`.
    pub(super) async fn send(&self, id: &str, body: &str) -> Result<(), Failed> {
        let letter: Letter = serde_json::from_str(body)
            .map_err(|_| Failed::new("the alert in the database cannot be read"))?;
        let message = self.message(id, &letter).map_err(|error| Failed::new(error.to_string()))?;
        match tokio::time::timeout(MAIL_TIME_MAX, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failed::new(error.to_string())),
            Err(_) => Err(Failed::new("the mail server takes too long")),
        }
    }

    fn message(&self, id: &str, letter: &Letter) -> Result<Message, lettre::error::Error> {
        let domain = self.from.email.domain();
        let own = |name| HeaderName::new_from_ascii_str(name);
        let raw = |name, value: &str| HeaderValue::new(own(name), value.to_owned());
        let builder: MessageBuilder = Message::builder()
            .from(self.from.clone())
            .subject(format!("[hearth] {}", letter.title))
            .message_id(Some(format!("<{id}@{domain}>")))
            .raw_header(raw("X-Hearth-Alert", id))
            .raw_header(raw("X-Hearth-Kind", &letter.kind))
            .raw_header(raw("Auto-Submitted", "auto-generated"));
        let builder = self.to.iter().fold(builder, |builder, to| builder.to(to.clone()));
        builder.body(format!("{}\n\n{}\nAlert {id}\n", letter.title, letter.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let check = |text: &str, host: &str, port, user: &str, wrapped| {
            let expect = Server { host: host.to_owned(), port, user: user.to_owned(), wrapped };
            assert_eq!(server(text), Ok(expect), "{text}");
        };
        check("smtps://a%40b.example@mail.example", "mail.example", 465, "a@b.example", true);
        check("smtp://me@10.0.0.1:25", "10.0.0.1", 25, "me", false);
        check("smtp://localhost", "localhost", 587, "", false);
        for wrong in ["", "mail.example", "imap://a", "smtp://u:hidden@a", "smtp://a/b", "smtp:a"] {
            let said = server(wrong).expect_err(wrong);
            assert!(!said.contains("hidden"), "{said}");
        }
    }
}
