//! `hearth chat` and `hearth bench` through the real binary, against a server that says the same
//! to everyone.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

const ANSWER: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n",
    ": a comment\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"Hm.\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Good \"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"day.\"}}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n",
    "data: [DONE]\n\n",
);

/// A provider's model, which nobody named, and one of the server's own.
const MODELS: &str = r#"{"data": [{"id": "far/dear", "owned_by": "far"}, {"id": "kind"}]}"#;

async fn chat(headers: HeaderMap, body: String) -> Response {
    assert!(body.contains("\"kind\""), "{body}");
    if headers.get(header::AUTHORIZATION).is_none_or(|key| key != "Bearer key-of-a-test") {
        let told = "{\"error\": {\"message\": \"no key\"}}";
        return (StatusCode::UNAUTHORIZED, told).into_response();
    }
    ([(header::CONTENT_TYPE, "text/event-stream")], ANSWER).into_response()
}

async fn serve() -> String {
    let models = get(|| async { MODELS });
    let router = Router::new().route("/v1/models", models);
    let router = router.route("/v1/chat/completions", post(chat));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn hearth(args: Vec<String>, key: &'static str, input: &'static str) -> Output {
    let run = move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(args)
            .env_clear()
            .env("HEARTH_API_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(text: &str, url: &str) -> Vec<String> {
    text.split_whitespace().map(|word| word.replace("URL", url)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_answers_one_piped_question() {
    let url = serve().await;
    let args = words("chat --url URL --system Be --max-tokens 9", &url);
    let output = hearth(args.clone(), "key-of-a-test", "How are you?\n").await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Good day.\n");
    // Thoughts stand beside the answer, not in it.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "Hm.\n");
    let output = hearth(args.clone(), "wrong", "How are you?\n").await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69));
    assert!(text.contains("no key") && text.contains("HEARTH_API_KEY"), "{text}");
    assert_eq!(hearth(args, "key-of-a-test", "").await.status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_reports_what_callers_saw() {
    let url = serve().await;
    let file = std::env::temp_dir().join(format!("hearth-bench-{}.jsonl", std::process::id()));
    for load in ["--concurrency 4", "--rate 500"] {
        let line = format!("bench serve --url URL --requests 20 {load} --json {}", file.display());
        let output = hearth(words(&line, &url), "key-of-a-test", "").await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("20 of 20 answered"), "{text}");
    }
    let lines = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let report: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(report["output_tokens"], 40);
        assert_eq!(report["errors"], 0);
        assert!(report["time_to_first_token_ms"]["p99"].as_f64().unwrap() > 0.0);
    }
    let line = "bench serve --url URL --requests 3";
    let output = hearth(words(line, &url), "wrong", "").await;
    assert_eq!(output.status.code(), Some(69));
}
