//! How connections are made: through a proxy, to whom a private authority vouches for, over HTTP/2,
//! again and again the same; in time; and never to where a name should not lead.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::upstream::About;
use hyper::Version;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use wire::ErrorKind;

use super::far::{self, CHAT, Far, Folder, authority, chat, compatible, json, provider};

/// Less than a test waits for, more than a busy machine needs.
const SOON: Duration = Duration::from_secs(20);

/// A proxy that makes tunnels to this port, whatever name is asked for, and notes the requests.
async fn proxy(port: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("an address").port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let head = far::head(&mut stream).await;
                shared.lock().expect("whole").push(head);
                let mut behind = TcpStream::connect(("127.0.0.1", port)).await.expect("the other");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    (own, heads)
}

#[tokio::test]
async fn a_private_authority_and_http_2_and_one_connection_for_many() {
    let folder = Folder::new();
    let (pem, config) = authority(&["h2", "http/1.1"]);
    let server = Far::tls(config, |_| json(200, CHAT)).await;
    let url = format!("https://localhost:{}/v1", server.port);
    let ca = folder.file("ca.pem", &pem);
    let provider = compatible(&url, &format!("ca = \"{ca}\""));
    provider.ask(chat()).await.expect("an answer");
    let many = (0..32).map(|_| provider.ask(chat()));
    for answer in futures_util::future::join_all(many).await {
        answer.expect("an answer");
    }
    assert_eq!((server.asked().len(), server.connections()), (33, 1));
    assert!(server.asked().iter().all(|asked| asked.version == Version::HTTP_2));

    // Another authority's word does not count, nor does everybody's.
    let other = folder.file("other.pem", &authority(&[]).0);
    for more in [format!("ca = \"{other}\""), String::new()] {
        let trouble = compatible(&url, &more).ask(chat()).await.expect_err("refused");
        assert_eq!(trouble.about, About::Ill);
    }
    assert_eq!(server.asked().len(), 33);
    for (name, text) in [("empty.pem", ""), ("wrong.pem", "no certificate")] {
        let ca = folder.file(name, text);
        let lines = format!("kind = \"compatible\"\nbase_url = \"{url}\"\nca = \"{ca}\"");
        assert!(provider_error(&lines).contains("no certificate"), "{name}");
    }
}

fn provider_error(lines: &str) -> String {
    provider(lines).err().unwrap_or_else(|| panic!("taken: {lines}"))
}

#[tokio::test]
async fn http_1_connections_are_used_again() {
    let server = Far::new(|_| json(200, CHAT)).await;
    let provider = compatible(&server.url(), "");
    for _ in 0..10 {
        let answer = provider.ask(chat()).await.expect("an answer");
        http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body");
    }
    assert_eq!((server.asked().len(), server.connections()), (10, 1));
    assert_eq!(server.asked()[0].version, Version::HTTP_11);
    assert_eq!(server.asked()[0].header("host"), format!("127.0.0.1:{}", server.port));
}

#[tokio::test]
async fn through_a_proxy() {
    let folder = Folder::new();
    let (pem, config) = authority(&["h2"]);
    let server = Far::tls(config, |_| json(200, CHAT)).await;
    let (port, heads) = proxy(server.port).await;
    let ca = folder.file("ca.pem", &pem);
    let more = format!("proxy = \"http://me:secret@127.0.0.1:{port}\"\nca = \"{ca}\"");
    // A name that only the proxy knows would do as well; the certificate is for this one.
    let provider = compatible("https://localhost:7/v1", &more);
    provider.ask(chat()).await.expect("an answer");
    let head = heads.lock().expect("whole").remove(0).to_ascii_lowercase();
    assert!(head.starts_with("connect localhost:7 http/1.1\r\n"), "{head}");
    // me:secret
    assert!(head.contains("proxy-authorization: basic bwu6c2vjcmv0\r\n"), "{head}");
    assert!(server.asked()[0].headers.get("proxy-authorization").is_none());

    // In clear, too; the port that goes without saying is said.
    let plain = Far::new(|_| json(200, CHAT)).await;
    let (port, heads) = proxy(plain.port).await;
    let more = format!("proxy = \"http://127.0.0.1:{port}\"");
    compatible("http://far.example/v1", &more).ask(chat()).await.expect("an answer");
    let head = heads.lock().expect("whole").remove(0);
    assert!(head.starts_with("CONNECT far.example:80 "), "{head}");
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    assert_eq!(plain.asked()[0].header("host"), "far.example");
}

/// Names are looked up when a connection is made, so it does not matter what they meant before.
#[tokio::test]
async fn names_that_lead_inside_are_not_followed() {
    let server = Far::new(|_| json(200, CHAT)).await;
    let port = server.port;
    for (host, more) in [
        ("localhost", "allow_internal = false"),
        // Addresses, for whoever looks names up.
        ("127.1", ""),
        ("2130706433", ""),
        ("0x7f.1", ""),
    ] {
        let provider = compatible(&format!("http://{host}:{port}/v1"), more);
        let trouble = provider.ask(chat()).await.expect_err(host);
        assert_eq!(trouble.about, About::Ill, "{host}");
        let message = trouble.failure.error.message;
        assert_eq!(message, "The provider 'far' cannot be reached.", "{host}");
    }
    assert_eq!(server.connections(), 0);
    for host in ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:10.0.0.1]"] {
        let lines = format!("base_url = \"http://{host}/v1\"\nallow_internal = false");
        let error = provider_error(&format!("kind = \"compatible\"\n{lines}"));
        assert!(error.contains("internal"), "{error}");
    }
    let provider = compatible(&format!("http://127.1:{port}/v1"), "allow_internal = true");
    provider.ask(chat()).await.expect("an answer");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn everything_has_its_time() {
    let begun = Instant::now();
    // Somebody who takes connections, and never says a word: no TLS, no tunnel, no answer.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let ms = "connect_timeout = \"100ms\"";
    for (url, more) in [
        (format!("https://localhost:{port}/v1"), ms.to_owned()),
        ("https://far.example/v1".to_owned(), format!("{ms}\nproxy = \"http://127.0.0.1:{port}\"")),
    ] {
        let trouble = compatible(&url, &more).ask(chat()).await.expect_err("no connection");
        assert_eq!(trouble.about, About::Ill);
        assert!(trouble.failure.error.message.contains("cannot be reached"), "{trouble:?}");
    }
    let url = format!("http://127.0.0.1:{port}/v1");
    let provider = compatible(&url, "first_byte_timeout = \"100ms\"");
    let trouble = provider.ask(chat()).await.expect_err("no answer");
    assert_eq!((trouble.about, trouble.failure.error.kind), (About::Ill, ErrorKind::Deadline));
    // An error whose words never end is an error without words.
    let head = "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let url = format!("http://127.0.0.1:{}/v1", far::raw(head).await);
    let trouble = compatible(&url, "idle_timeout = \"100ms\"").ask(chat()).await;
    let trouble = trouble.expect_err("no words");
    assert_eq!(trouble.about, About::Request);
    assert_eq!(trouble.failure.error.message, "status 400");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
