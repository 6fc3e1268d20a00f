//! The real binary with a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, ClientBuilder, Identity};
use serde_json::Value;

use super::authority::{Authority, Pair, put};

/// A folder, removed in the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-tls-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server.
pub(crate) struct House {
    child: Child,
    pub(crate) url: String,
    /// May do everything.
    pub(crate) key: String,
    pub(crate) authority: Authority,
    pub(crate) folder: Folder,
}

impl House {
    /// With a certificate of its authority's, and more options: `{}` stands for the folder.
    pub(crate) fn start(more: &[&str], prepare: impl FnOnce(&Folder, &Authority)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (folder, authority) = (Folder::new(), Authority::new("house"));
        let own = authority.issue(1, &["dns:localhost", "ip:127.0.0.1"]);
        put(&folder.0, "cert.pem", &own.certificate);
        put(&folder.0, "key.pem", &own.key);
        put(&folder.0, "ca.pem", &authority.pem());
        prepare(&folder, &authority);
        let here = folder.0.display().to_string();
        let log = std::fs::File::create(folder.0.join("log")).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1"])
            .args(["--data", &format!("{here}/data")])
            .args(more.iter().map(|option| option.replace("{}", &here)))
            .env_clear()
            .current_dir(&folder.0)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("hearth starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let (mut key, mut said) = (None, String::new());
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                let log = std::fs::read_to_string(folder.0.join("log")).unwrap_or_default();
                panic!("no server: {said} {log}");
            };
            said += &line;
            if let Some(line) = line.strip_prefix("first key ") {
                key = Some(line.trim().to_owned());
            }
            if let Some((_, url)) = line.split_once("ready in").and_then(|_| line.split_once(": "))
            {
                break url.trim().to_owned();
            }
        };
        // The pipe must be drained, or the server would wait.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, key: key.expect("a first key"), authority, folder }
    }

    /// A client that believes the house's authority and nobody else.
    pub(crate) fn client(&self, shows: Option<&Pair>) -> ClientBuilder {
        let root = Certificate::from_pem(self.authority.pem().as_bytes()).expect("a certificate");
        let builder = Client::builder().no_proxy().timeout(Duration::from_secs(20));
        let builder = builder.tls_certs_only([root]);
        match shows {
            Some(pair) => {
                builder.identity(Identity::from_pem(pair.both().as_bytes()).expect("a pair"))
            }
            None => builder,
        }
    }

    /// Makes something as the key that may do everything.
    pub(crate) async fn make(&self, client: &Client, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/admin/v1{path}", self.url);
        let answer = client.post(url).bearer_auth(&self.key).json(body).send().await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub(crate) fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill").success());
    }

    /// Waits until the log has said something so often.
    pub(crate) async fn says(&self, what: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let log = std::fs::read_to_string(self.folder.0.join("log")).expect("a log");
            if log.matches(what).count() >= times {
                return;
            }
            assert!(Instant::now() < end, "the log does not say '{what}': {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status of a page, or 0 where there is no connection.
pub(crate) async fn status(client: &Client, url: &str, headers: &[(&str, &str)]) -> u16 {
    let request = headers.iter().fold(client.get(url), |r, (name, value)| r.header(*name, *value));
    request.send().await.map_or(0, |answer| answer.status().as_u16())
}
