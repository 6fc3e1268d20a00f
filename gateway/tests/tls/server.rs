//! The server's own certificate.

use gateway::tls::{Clients, Files, Tls};
use reqwest::{Client, Version, tls};

use super::authority::{Authority, put};
use super::house::{Folder, House, status};

const TLS: [&str; 4] = ["--tls-cert", "{}/cert.pem", "--tls-key", "{}/key.pem"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_in_both_versions_and_nothing_else() {
    let house = House::start(&TLS, |_, _| {});
    assert!(house.url.starts_with("https://127.0.0.1:"), "{}", house.url);
    let health = format!("{}/health", house.url);
    for version in [tls::Version::TLS_1_2, tls::Version::TLS_1_3] {
        let client = house.client(None).tls_version_max(version).build().expect("a client");
        let answer = client.get(&health).send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    }
    let old = house.client(None).http1_only().build().expect("a client");
    let answer = old.get(&health).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
    // Neither in plain text, nor for a client that believes others.
    let plain = health.replace("https", "http");
    assert_eq!(status(&old, &plain, &[]).await, 0);
    let other = reqwest::Certificate::from_pem(Authority::new("other").pem().as_bytes());
    let other = Client::builder().no_proxy().tls_certs_only([other.expect("a certificate")]);
    assert_eq!(status(&other.build().expect("a client"), &health, &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let house = House::start(&TLS, |_, _| {});
    let health = format!("{}/health", house.url);
    // A connection each time: what is open keeps what it began with.
    let fresh = |authority: &Authority| {
        let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("one");
        Client::builder().no_proxy().tls_certs_only([root]).build().expect("a client")
    };
    let next = Authority::new("next");
    let pair = next.issue(7, &["dns:localhost", "ip:127.0.0.1"]);
    put(&house.folder.0, "cert.pem", "no certificate");
    house.hang_up();
    house.says("no certificate in PEM", 1).await;
    // A certificate whose key is not there yet.
    put(&house.folder.0, "cert.pem", &pair.certificate);
    house.hang_up();
    house.says("keys may not be consistent", 1).await;
    assert_eq!(status(&fresh(&house.authority), &health, &[]).await, 200);
    put(&house.folder.0, "key.pem", &pair.key);
    house.hang_up();
    house.says("new TLS files are in use", 1).await;
    assert_eq!(status(&fresh(&next), &health, &[]).await, 200);
    assert_eq!(status(&fresh(&house.authority), &health, &[]).await, 0);
}

#[tokio::test]
async fn files_are_looked_at_and_errors_said_once() {
    let (folder, authority) = (Folder::new(), Authority::new("house"));
    let at = |name: &str| folder.0.join(name);
    let (one, two) = (authority.issue(1, &["dns:a"]), authority.issue(2, &["dns:a"]));
    put(&folder.0, "cert.pem", &one.certificate);
    put(&folder.0, "key.pem", &one.key);
    put(&folder.0, "ca.pem", &authority.pem());
    let files = Files {
        certificate: at("cert.pem"),
        key: at("key.pem"),
        client_authorities: Some(at("ca.pem")),
        revoked: None,
        clients: Clients::Required,
    };
    let tls = Tls::open(files.clone()).expect("good files");
    assert_eq!(tls.reload(), Ok(false));
    put(&folder.0, "cert.pem", &two.certificate);
    assert!(tls.reload().is_err());
    assert_eq!(tls.reload(), Ok(false), "said before");
    put(&folder.0, "key.pem", &two.key);
    assert_eq!(tls.reload(), Ok(true));
    for (name, text) in [("key.pem", "no key"), ("ca.pem", ""), ("cert.pem", &two.key)] {
        let before = std::fs::read_to_string(at(name)).expect("a file");
        put(&folder.0, name, text);
        let error = Tls::open(files.clone()).expect_err(name);
        assert!(error.file.ends_with(name), "{error}");
        put(&folder.0, name, &before);
    }
    let missing = Files { revoked: Some(at("none.pem")), ..files };
    assert!(Tls::open(missing).expect_err("no such file").file.ends_with("none.pem"));
}
