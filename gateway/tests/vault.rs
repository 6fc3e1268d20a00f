//! Values of the configuration that stand in HashiCorp Vault: against a Vault of our own that
//! checks what it is asked.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use gateway::config::{Config, Flags, Loaded};

const TOKEN: &str = "hvs.test-token";
const SECRET: &str = "the-secret-in-vault";

/// Answers so many requests, and returns what they said.
fn vault(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let answer = |answer: &String| {
            let (mut stream, _) = listener.accept().expect("a request");
            let head = head(&mut stream);
            stream.write_all(answer.as_bytes()).expect("answered");
            head
        };
        answers.iter().map(answer).collect()
    });
    (address, thread)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text").to_lowercase()
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Its own form, as of <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>.
fn found() -> String {
    let body = format!(
        r#"{{"request_id":"1","data":{{"data":{{"key":"{SECRET}","number":5}},
        "metadata":{{"version":2,"destroyed":false}}}}}}"#
    );
    answer("200 OK", &body)
}

fn load(env: &[(&str, &str)]) -> Result<Loaded, String> {
    // Whoever opens a connection needs a provider, and only the binary's start has one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let env = env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load(&Flags::default(), env).map_err(|error| error.to_string())
}

#[test]
fn a_value_is_read_from_vault() {
    let (address, asked) = vault(vec![found(), found()]);
    let address = format!("{address}/behind/a/proxy/");
    let folder = std::env::temp_dir().join(format!("hearth-vault-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604))
        .expect("open to all");
    let file = file.to_str().expect("plain");
    let key = ("HEARTH_API_KEY", "vault:kv/team a/hearth#key");
    let loaded = load(&[key, ("VAULT_ADDR", &address), ("VAULT_TOKEN", TOKEN)]).expect("read");
    assert_eq!(loaded.config.api_keys[0].reveal(), SECRET);
    assert!(loaded.warnings.is_empty());
    let by_file = [key, ("VAULT_ADDR", &address), ("VAULT_TOKEN_FILE", file)];
    let loaded = load(&[&by_file[..], &[("VAULT_NAMESPACE", "ns/one")]].concat()).expect("read");
    assert_eq!(loaded.config.api_keys[0].reveal(), SECRET);
    assert!(loaded.warnings[0].contains("open to every user"), "{:?}", loaded.warnings);
    assert!(!format!("{loaded:?}").contains(SECRET));
    let asked = asked.join().expect("asked");
    for head in &asked {
        assert!(head.starts_with("get /behind/a/proxy/v1/kv/data/team%20a/hearth http/1.1\r\n"));
        assert!(head.contains(&format!("\r\nx-vault-token: {TOKEN}\r\n")), "{head}");
        assert!(head.contains("\r\nx-vault-request: true\r\n"), "{head}");
    }
    assert!(!asked[0].contains("x-vault-namespace"));
    assert!(asked[1].contains("\r\nx-vault-namespace: ns/one\r\n"));
    std::fs::remove_dir_all(folder).expect("removed");
}

/// Nothing that Vault says, and no token, is in a message.
#[test]
fn what_vault_does_not_give_is_said_without_its_words() {
    let told = format!("{{\"errors\":[\"{SECRET}\"]}}");
    let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\n\
                     content-length: 0\r\n\r\n";
    for (answer, key, expect) in [
        (answer("403 Forbidden", &told), "key", "403"),
        (answer("404 Not Found", &told), "key", "404"),
        (answer("503 Unavailable", &told), "key", "sealed"),
        (answer("500 Oh", &told), "key", "500"),
        (elsewhere.to_owned(), "key", "active node"),
        (answer("200 OK", SECRET), "key", "not JSON"),
        (answer("200 OK", &told), "key", "no such key"),
        (found(), "other", "no such key"),
        (found(), "number", "not a text"),
        (answer("200 OK", &"x".repeat(3 << 20)), "key", "too long"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned(), "key", "cannot be reached"),
    ] {
        let (address, asked) = vault(vec![answer]);
        let reference = format!("vault:kv/hearth#{key}");
        let env = [("HEARTH_API_KEY", &*reference), ("VAULT_ADDR", &address)];
        let refused = load(&[&env[..], &[("VAULT_TOKEN", TOKEN)]].concat()).expect_err("refused");
        for part in ["HEARTH_API_KEY", &reference, expect] {
            assert!(refused.contains(part), "{refused}, not {part}");
        }
        assert!(!refused.contains(SECRET) && !refused.contains(TOKEN), "{refused}");
        // A client that has enough of an answer leaves in the middle of it.
        drop(asked.join());
    }
}

#[test]
fn without_a_good_address_and_token_nothing_is_sent() {
    let closed = "http://127.0.0.1:1";
    let none = PathBuf::from("/nowhere/at/all");
    let none = none.to_str().expect("plain");
    for (env, path, expect) in [
        (&[][..], "kv/hearth", "VAULT_ADDR is not set"),
        (&[("VAULT_ADDR", "")], "kv/hearth", "VAULT_ADDR is not set"),
        (&[("VAULT_ADDR", "vault")], "kv/hearth", "VAULT_ADDR is not a URL"),
        (&[("VAULT_ADDR", "http://vault.example.org")], "kv/hearth", "neither https"),
        (&[("VAULT_ADDR", "http://127.0.0.1.example.org")], "kv/hearth", "neither https"),
        (&[("VAULT_ADDR", "file:///etc/passwd")], "kv/hearth", "neither https"),
        (&[("VAULT_ADDR", closed)], "kv/hearth", "VAULT_TOKEN or VAULT_TOKEN_FILE is not set"),
        (&[("VAULT_ADDR", closed), ("VAULT_TOKEN_FILE", none)], "kv/hearth", "VAULT_TOKEN_FILE"),
        (&[("VAULT_ADDR", closed), ("VAULT_TOKEN", "a\nb")], "kv/hearth", "what no token has"),
        (&[("VAULT_ADDR", closed), ("VAULT_TOKEN", TOKEN)], "kv/hearth", "cannot be reached"),
        (&[("VAULT_ADDR", closed), ("VAULT_TOKEN", TOKEN)], "kv", "MOUNT/SECRET"),
        (&[("VAULT_ADDR", closed), ("VAULT_TOKEN", TOKEN)], "kv/../sys", "MOUNT/SECRET"),
        (
            &[("VAULT_ADDR", closed), ("VAULT_TOKEN", TOKEN), ("VAULT_CACERT", none)],
            "kv/hearth",
            "VAULT_CACERT",
        ),
    ] {
        let reference = format!("vault:{path}#key");
        let refused = load(&[env, &[("HEARTH_API_KEY", &*reference)]].concat());
        let refused = refused.expect_err("refused");
        assert!(refused.contains(expect) && !refused.contains(TOKEN), "{refused}, not {expect}");
    }
}
