//! `hearth serve` from start to signal, as a supervisor sees it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A server with the demo model on a port of the system's choice.
struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: String,
    banner: String,
}

impl Server {
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1"])
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (address, banner) = (String::new(), String::new());
        let mut server = Self { child, lines, address, banner };
        while !server.banner.contains("ready in") {
            let read = server.lines.read_line(&mut server.banner).unwrap();
            assert!(read > 0, "no server: {}", server.banner);
        }
        let url = server.banner.rsplit_once("http://").unwrap().1;
        server.address = url.trim().to_owned();
        server
    }

    fn get(&self, path: &str, head: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A stream that will not end by itself for a while.
    fn long_answer(&self) -> BufReader<TcpStream> {
        let body = "{\"model\": \"demo\", \"stream\": true, \"ignore_eos\": true, \
                    \"max_tokens\": 1900, \"n\": 4, \
                    \"messages\": [{\"role\": \"user\", \"content\": \"Tell me all.\"}]}";
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut text = String::new();
        while !text.contains("data:") {
            assert!(stream.read_line(&mut text).unwrap() > 0, "{text}");
        }
        stream
    }

    fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end; returns the exit code and what was printed after the banner.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn a_server_starts_answers_and_stops_on_a_signal() {
    let server = Server::start(&["--model", "demo=pebble"], &[]);
    for part in ["no key is set", "device      cpu", "KV cache", "total"] {
        assert!(server.banner.contains(part), "{part}: {}", server.banner);
    }
    for (path, wanted) in [
        ("/health", "HTTP/1.1 200"),
        ("/ready", "HTTP/1.1 200"),
        ("/v1/models", "\"pebble\""),
        ("/metrics", "hearth_kv_cache_pages{model=\"pebble\",state=\"total\"}"),
        ("/nowhere", "HTTP/1.1 404"),
    ] {
        let answer = server.get(path, "");
        assert!(answer.contains(wanted), "{path}: {answer}");
    }
    server.signal();
    let (code, rest) = server.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("draining") && rest.ends_with("stopped\n"), "{rest}");
}

#[test]
fn a_key_opens_the_door_and_is_printed_nowhere() {
    let server = Server::start(&[], &[("HEARTH_API_KEY", "one-secret,another-secret")]);
    assert!(server.banner.contains("2 key(s)") && !server.banner.contains("secret"));
    assert!(server.get("/v1/models", "").contains("HTTP/1.1 401"));
    for key in ["authorization: Bearer one-secret\r\n", "x-api-key: another-secret\r\n"] {
        assert!(server.get("/v1/models", key).contains("HTTP/1.1 200"), "{key}");
    }
    server.signal();
    assert_eq!(server.end().0, Some(0));
}

/// Who would answer, and why, without asking anybody: nobody listens where the provider would be.
#[test]
fn a_route_is_explained_on_the_terminal() {
    let file = std::env::temp_dir().join(format!("hearth-explain-{}.toml", std::process::id()));
    let config = "[providers.cloud]\nkind = \"compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                  [pools.p]\ntargets = [\"cloud/m\", \"demo\"]\n";
    std::fs::write(&file, config).unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()], &[]);
    let explain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(["route", "explain", "--url", &format!("http://{}", server.address)]);
        let output = command.args(args).env_clear().output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (done, said, _) = explain(&["--model", "p"]);
    assert!(done && said.starts_with("p: cloud/m, then demo\nreason priority;"), "{said}");
    let (done, said, _) = explain(&["--model", "p", "--label", "confidential"]);
    assert!(done && said.starts_with("p: demo\n"), "{said}");
    let cloud = said.lines().find(|line| line.starts_with("cloud/m")).unwrap();
    assert!(cloud.contains("may see internal at most"), "{said}");
    let (done, said, _) = explain(&["--model", "demo", "--json"]);
    assert!(done && said.contains("\"order\": [\n"), "{said}");
    let (done, _, why) = explain(&["--model", "nobody"]);
    assert!(!done && why.contains("nobody"), "{why}");
    std::fs::remove_file(&file).unwrap();
    server.signal();
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_signal_lets_an_answer_end_and_a_second_one_does_not() {
    let server = Server::start(&[], &[]);
    let mut stream = server.long_answer();
    server.signal();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("[DONE]"), "the answer was cut off");
    assert_eq!(server.end().0, Some(0));

    let mut server = Server::start(&[], &[]);
    let stream = server.long_answer();
    server.signal();
    let mut line = String::new();
    while !line.contains("draining") {
        assert!(server.lines.read_line(&mut line).unwrap() > 0);
    }
    server.signal();
    assert_eq!(server.end().0, Some(130));
    drop(stream);
}

#[test]
fn a_drain_has_an_end() {
    let server = Server::start(&["--drain", "50ms"], &[]);
    let mut stream = server.long_answer();
    server.signal();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("shutting down"), "the reader is told: {text}");
    assert_eq!(server.end().0, Some(0));
}
