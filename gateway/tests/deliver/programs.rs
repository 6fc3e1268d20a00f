//! Receivers that others wrote: a bucket that checks signatures with Amazon's own client, and a
//! collector that reads what it gets as OpenTelemetry's own types.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use govern::audit::{Record, verify};
use hearth_tests::server::root;
use serde_json::Value;

use super::exports::records;
use super::receiver::PATIENCE;
use super::world::{Folder, World, sinks, until};

/// One of the servers of `tests/clients/receivers.py`.
pub(crate) struct Program {
    child: Child,
    pub(crate) port: u16,
    lines: Receiver<Value>,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        let python = root().join("tests/.venv/bin/python");
        assert!(python.exists(), "run: tests/tools.sh python");
        let mut child = Command::new(python)
            .args(["-W", "ignore"])
            .arg(root().join("tests/clients/receivers.py"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let out = BufReader::new(child.stdout.take().expect("its pipe"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).expect("JSON"));
            }
        });
        let mut program = Self { child, port: 0, lines };
        let port = program.next()["port"].as_u64().expect("a port");
        program.port = u16::try_from(port).expect("a port");
        program
    }

    /// The next thing that it took.
    #[track_caller]
    pub(crate) fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("something arrives")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All files below a folder, by their path in it.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let name = entry.path().strip_prefix(folder).expect("below").display().to_string();
            out.push((name, std::fs::read_to_string(entry.path()).expect("text")));
        }
    }
    out.sort();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_gets_objects_by_their_numbers() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    let stored = folder.0.join("stored");
    let place = stored.display().to_string();
    let bucket = Program::start(&["s3", "AKIDTEST", "s3-secret-of-the-test", &place]);
    let stranger = Program::start(&["s3", "AKIDTEST", "another-secret", &place]);
    let url = |port: u16| format!("s3://logs/audit/hearth?endpoint=http://127.0.0.1:{port}");
    world.note(2300).await;
    let deliver = world.deliver(sinks(&[&url(stranger.port)]));
    assert!(stranger.next()["refused"].is_string(), "a wrong key came in");
    assert!(files(&stored).is_empty());
    drop(deliver);
    let _deliver = world.deliver(sinks(&[&url(bucket.port)]));
    let head = world.head().await;
    let all =
        || -> Vec<Record> { files(&stored).iter().flat_map(|(_, text)| records(text)).collect() };
    until("all is there", async || all().len() as i64 >= head).await;
    world.note(1).await;
    until("one more", async || all().len() as i64 > head).await;
    let names: Vec<String> = files(&stored).into_iter().map(|(name, _)| name).collect();
    let next = head + 1;
    assert_eq!(
        names,
        [
            "logs/audit/hearth/gateway-1/0000000001-0000000999.jsonl".to_owned(),
            "logs/audit/hearth/gateway-1/0000001000-0000001999.jsonl".to_owned(),
            format!("logs/audit/hearth/gateway-1/0000002000-{head:010}.jsonl"),
            format!("logs/audit/hearth/gateway-1/{next:010}-{next:010}.jsonl"),
        ]
    );
    verify(all().into_iter(), &[]).expect("whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_reads_logs() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    let collector = Program::start(&["otlp"]);
    let place = format!("otlp:http://:collector-token@127.0.0.1:{}", collector.port);
    let file = folder.file("audit.jsonl");
    let _deliver = world.deliver(sinks(&[&place, &format!("file:{file}")]));
    world.note(20).await;
    let head = world.head().await as usize;
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    until("all is in the file", async || lines().lines().count() == head).await;
    for record in records(&lines()) {
        let log = collector.next();
        let attribute = |name: &str| &log["attributes"][format!("hearth.audit.{name}")];
        let read = Record {
            chain: attribute("chain").as_str().expect("a text").to_owned(),
            number: attribute("number").as_i64().expect("a number"),
            at: attribute("at").as_i64().expect("a number"),
            kind: attribute("kind").as_str().expect("a text").to_owned(),
            organisation: attribute("organisation").as_str().expect("a text").to_owned(),
            body: log["body"].as_str().expect("a text").to_owned(),
            previous: attribute("previous").as_str().expect("a text").to_owned(),
            hash: attribute("hash").as_str().expect("a text").to_owned(),
        };
        assert_eq!(read, record);
        assert_eq!(log["at"], record.at * 1_000_000);
        assert_eq!(log["event"], format!("hearth.audit.{}", record.kind));
        assert_eq!(log["resource"]["service.name"], "hearth");
    }
}
