//! Alerts by e-mail, to a real mail server, over both kinds of TLS.

use super::house::{House, certificates, logged_nothing_of};
use super::programs::Program;
use super::world::{Folder, until};

const PASSWORD: &str = "the-mail-password";

fn config(scheme: &str, port: u16) -> String {
    format!(
        "[alerts]\nsmtp = \"{scheme}://hearth%40example.org@localhost:{port}\"\n\
         smtp_password = \"env:MAIL\"\nfrom = \"Hearth <hearth@example.org>\"\n\
         to = [\"ops@example.org\", \"Chef <chef@example.org>\"]\n"
    )
}

async fn mails(how: &str, scheme: &str) {
    let folder = Folder::new();
    certificates(&folder);
    let (cert, key, ca) = (folder.file("cert.pem"), folder.file("key.pem"), folder.file("ca.pem"));
    let server = Program::start(&["smtp", how, &cert, &key, "hearth@example.org", PASSWORD]);
    let config = config(scheme, server.port);
    // A wrong password is refused, and said without it.
    let wrong = [("SSL_CERT_FILE", ca.as_str()), ("MAIL", "a-wrong-password")];
    let house = House::start(&folder, &config, &wrong);
    house.budget().await;
    house.chat().await;
    assert!(server.next()["refused"].is_string());
    let said = || std::fs::read_to_string(folder.file("log")).unwrap_or_default();
    until("it is said", async || said().contains("an alert did not arrive")).await;
    house.kill();
    // The next start knows better: what waited is sent at once.
    let house = House::start(&folder, &config, &[("SSL_CERT_FILE", &ca), ("MAIL", PASSWORD)]);
    let mail = loop {
        let said = server.next();
        if said["content"].is_string() {
            break said;
        }
    };
    assert_eq!(mail["authenticated"], true);
    assert_eq!(mail["tls"], true);
    assert_eq!(mail["from"], "hearth@example.org");
    assert_eq!(mail["to"], serde_json::json!(["ops@example.org", "chef@example.org"]));
    let content = mail["content"].as_str().expect("a text").replace("=\r\n", "").replace("=\n", "");
    for part in [
        "Subject: [hearth] Budget research is over its soft limit:",
        "From: Hearth <hearth@example.org>",
        "Message-ID: <alert_",
        "X-Hearth-Kind: budget_soft_limit",
        "Auto-Submitted: auto-generated",
        "Scope:   everything",
        "Window:  month, from ",
        "of $0.000001 (",
        "The limit is soft: requests go on. Seen by gateway gateway-1.",
    ] {
        assert!(content.contains(part), "{part} is missing in\n{content}");
    }
    drop(house);
    logged_nothing_of(&folder, &[PASSWORD, "a-wrong-password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_over_tls() {
    mails("tls", "smtps").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_after_starttls() {
    mails("starttls", "smtp").await;
}

/// Whoever cannot show a certificate that the system believes gets neither password nor mail.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_mail() {
    let folder = Folder::new();
    certificates(&folder);
    let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    let server = Program::start(&["smtp", "tls", &cert, &key, "hearth@example.org", PASSWORD]);
    let house = House::start(&folder, &config("smtps", server.port), &[("MAIL", PASSWORD)]);
    house.budget().await;
    house.chat().await;
    let said = || std::fs::read_to_string(folder.file("log")).unwrap_or_default();
    until("it is refused", async || {
        said().contains("an alert did not arrive") && said().contains("UnknownIssuer")
    })
    .await;
    logged_nothing_of(&folder, &[PASSWORD]);
}
