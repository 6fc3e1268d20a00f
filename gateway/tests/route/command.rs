//! `hearth route explain` as a process, against a gateway: what its flags say arrives there, and
//! what comes back is shown.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::caller::{gateway, provider};
use crate::leaving::listen;
use crate::upstream::Upstream;

/// A gateway, and the command that asks it.
struct Desk {
    url: String,
}

impl Desk {
    async fn new() -> Self {
        let well = Upstream::well("x").await;
        let config = format!(
            "{}{}[pools.p]\ntargets = [{{ target = \"first/m\", weight = 7 }}, \"second/m\"]\n\
             rules = [{{ metadata = {{ tier = \"gold\", area = \"a=b\" }}, to = [\"second/m\"] }}]\n",
            provider("first", "anthropic", &well.url, ""),
            provider("second", "jina", &well.url, ""),
        );
        Self { url: format!("http://{}", listen(gateway(&config)).await) }
    }

    /// The exit code, and what is printed; `input` is what it reads.
    async fn says(&self, line: &str, input: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(["route", "explain", "--url", &self.url]).args(line.split(' ')).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn().expect("it runs");
            // One that does not read has ended.
            let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
            child.wait_with_output().expect("it ends")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("a thread");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_flags_say_is_asked() {
    let desk = Desk::new().await;
    let first = async |line: &str, input: &str| {
        let (code, said) = desk.says(line, input).await;
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    };
    let said = first("--model p", "").await;
    assert!(said.starts_with("p: first/m\nreason priority; chat with label internal;"), "{said}");
    let row = said.lines().find(|line| line.starts_with("first/m")).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..5], ["first/m", "target", "may", "answer", "7"], "{said}");
    for head in ["WEIGHT", "QUEUE", "WAIT (ms)"] {
        assert!(said.contains(head), "{said}");
    }
    let said = first("--model p --label confidential", "").await;
    assert!(said.contains("with label confidential;"), "{said}");
    assert!(said.contains("may see internal at most"), "{said}");
    // All notes of a rule have to be there; a value may have a sign of equality in it.
    let said = first("--model p --metadata tier=gold --metadata area=a=b", "").await;
    assert!(said.contains("a rule names others"), "{said}");
    let said = first("--model p --metadata tier=gold", "").await;
    assert!(!said.contains("a rule names"), "{said}");
    let (code, said) = desk.says("--model p --metadata gold", "").await;
    assert!(code != Some(0) && said.contains("NAME=VALUE"), "{said}");

    // A body from standard input or a file, by what it is or is said to be.
    let body = r#"{"model": "p", "input": "hi", "metadata": {"tier": "gold", "area": "a=b"}}"#;
    let said = first("--body -", body).await;
    assert!(said.starts_with("p: second/m\nreason priority; embeddings with"), "{said}");
    let said = first("--body - --surface responses --label restricted", body).await;
    assert!(said.contains("; responses with label restricted;"), "{said}");
    let file = std::env::temp_dir().join(format!("hearth-asked-{}.json", std::process::id()));
    std::fs::write(&file, r#"{"contents": []}"#).expect("a file");
    let line = format!("--body {}", file.display());
    let said = first(&format!("{line} --model p"), "").await;
    assert!(said.starts_with("p: first/m\nreason priority; gemini with"), "{said}");
    let (code, said) = desk.says(&line, "").await;
    assert!(code != Some(0) && said.contains("'model'"), "nobody names a model: {said}");
    std::fs::write(&file, "{").expect("a file");
    let (code, said) = desk.says(&line, "").await;
    assert!(code == Some(64) && said.contains("hearth-asked-"), "{said}");
    std::fs::remove_file(&file).expect("it is there");
    for (line, part) in [
        ("--model p --label secret", "confidential"),
        ("--model p --label public&surface=chat", "confidential"),
        ("--model p --surface song", "completions, responses"),
    ] {
        let (code, said) = desk.says(line, "").await;
        assert!(code != Some(0) && said.contains(part), "{line}: {said}");
    }
}
