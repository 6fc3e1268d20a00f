//! Every row of the table of kinds is asked: where, with which proof and headers, in which words,
//! and what comes back. What is expected is written down here once more, after the providers' own
//! references, so that a slip in the table is seen.

use gateway::upstream::Kind;
use gateway::upstream::kinds::KINDS;
use serde_json::{Value, json};
use wire::Dialect;
use wire::Dialect::{
    Chat, Cohere, Completions, Converse, Embeddings, Gemini, Messages, Rerank, Responses, Score,
};

use crate::caller::{Answer, Inbound, gateway, request, section, send};
use crate::pooling::numbers;
use crate::speech::good;
use crate::upstream::{Seen, Step, Upstream};
use crate::vertex::{google, with_account};

const KEY: &str = "key-of-a-test";

/// What a provider is shown.
#[derive(Clone, Copy)]
enum Shows {
    /// Nothing: it has no key here.
    Nothing,
    Bearer,
    Header(&'static str),
    /// A signature of AWS's.
    Signed,
    /// The token of Google's that the key was changed for.
    Token,
}

/// A row.
struct Row {
    kind: &'static str,
    /// The base URL; of those that have none, one that an operator would write.
    base: &'static str,
    shows: Shows,
    speaks: &'static [(Dialect, &'static str)],
}

const fn row(
    kind: &'static str,
    base: &'static str,
    shows: Shows,
    speaks: &'static [(Dialect, &'static str)],
) -> Row {
    Row { kind, base, shows, speaks }
}

const CHAT: (Dialect, &str) = (Chat, "/chat/completions");
const RESPONSES: (Dialect, &str) = (Responses, "/responses");
const MESSAGES: (Dialect, &str) = (Messages, "/messages");
const TEXTS: (Dialect, &str) = (Completions, "/completions");
const VECTORS: (Dialect, &str) = (Embeddings, "/embeddings");
const RANKS: (Dialect, &str) = (Rerank, "/rerank");
const SCORES: (Dialect, &str) = (Score, "/score");
const ENGINE: &[(Dialect, &str)] = &[CHAT, TEXTS, RESPONSES, MESSAGES, VECTORS, RANKS, SCORES];
const OPENAI: &[(Dialect, &str)] = &[CHAT, RESPONSES, TEXTS, VECTORS];

const ROWS: &[Row] = &[
    row("openai", "https://api.openai.com/v1", Shows::Bearer, OPENAI),
    row("azure", "https://x.openai.azure.com/openai/v1", Shows::Header("api-key"), OPENAI),
    row("anthropic", "https://api.anthropic.com/v1", Shows::Header("x-api-key"), &[MESSAGES]),
    row(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        Shows::Header("x-goog-api-key"),
        &[(Gemini, "/models/some%2Fm:")],
    ),
    row(
        "vertex",
        "https://us-east-1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-east-1\
         /publishers/google",
        Shows::Token,
        &[(Gemini, "/models/some%2Fm:")],
    ),
    row(
        "bedrock",
        "https://bedrock-runtime.us-east-1.amazonaws.com",
        Shows::Signed,
        &[(Converse, "/model/some%2Fm/")],
    ),
    row("mistral", "https://api.mistral.ai/v1", Shows::Bearer, &[CHAT, VECTORS]),
    row(
        "cohere",
        "https://api.cohere.ai",
        Shows::Bearer,
        &[
            (Chat, "/compatibility/v1/chat/completions"),
            (Embeddings, "/compatibility/v1/embeddings"),
            (Cohere, "/v2/rerank"),
        ],
    ),
    row("jina", "https://api.jina.ai/v1", Shows::Bearer, &[VECTORS, RANKS]),
    row("groq", "https://api.groq.com/openai/v1", Shows::Bearer, &[CHAT]),
    row("together", "https://api.together.xyz/v1", Shows::Bearer, &[CHAT, TEXTS, VECTORS, RANKS]),
    row("openrouter", "https://openrouter.ai/api/v1", Shows::Bearer, &[CHAT, MESSAGES, VECTORS]),
    row("deepseek", "https://api.deepseek.com/v1", Shows::Bearer, &[CHAT]),
    row("xai", "https://api.x.ai/v1", Shows::Bearer, &[CHAT, RESPONSES]),
    row(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        Shows::Bearer,
        &[CHAT, TEXTS, RESPONSES, MESSAGES, VECTORS],
    ),
    row("nvidia", "https://integrate.api.nvidia.com/v1", Shows::Bearer, &[CHAT, VECTORS]),
    row("vllm", "http://127.0.0.1:8000/v1", Shows::Nothing, ENGINE),
    row("sglang", "http://127.0.0.1:30000/v1", Shows::Bearer, &[CHAT, TEXTS, VECTORS]),
    row("ollama", "http://127.0.0.1:11434/v1", Shows::Bearer, &[CHAT, TEXTS, MESSAGES, VECTORS]),
    row(
        "llamacpp",
        "http://127.0.0.1:8080/v1",
        Shows::Bearer,
        &[CHAT, TEXTS, MESSAGES, VECTORS, RANKS],
    ),
    row("hearth", "http://127.0.0.1:8080/v1", Shows::Bearer, ENGINE),
    row("compatible", "http://127.0.0.1:9000/v1", Shows::Nothing, &[CHAT, VECTORS]),
];

impl Row {
    fn kind(&self) -> &'static Kind {
        Kind::named(self.kind).unwrap_or_else(|| panic!("{}", self.kind))
    }

    /// What of its base URL is a path.
    fn front(&self) -> &'static str {
        let (_, rest) = self.base.split_once("://").expect("a URL");
        rest.find('/').map_or("", |at| &rest[at..])
    }

    /// `[providers.p]` at the test's own address, as its row says but for the host.
    fn section(&self, upstream: &Upstream) -> String {
        let base = self.kind().base_url;
        let base = if base.is_empty() { self.base } else { base };
        let (_, rest) = base.split_once("://").expect("a URL");
        let front = rest.find('/').map_or("", |at| &rest[at..]);
        let more = match self.shows {
            Shows::Signed => "region = \"us-east-1\"\nsecret_key = \"the-secret\"\n",
            Shows::Token => "region = \"us-east-1\"\nproject = \"my-project\"\n",
            _ => "",
        };
        let section = section("p", self.kind, &format!("{}{front}", upstream.url), more)
            + "lost_fields = \"drop\"\n";
        match self.shows {
            Shows::Token => with_account(&section, upstream),
            _ => section,
        }
    }

    /// What it was shown is that, and nothing of the caller's.
    fn proves(&self, seen: &Seen, about: &str) {
        let (name, value) = match self.shows {
            Shows::Nothing => ("", String::new()),
            Shows::Bearer => ("authorization", format!("Bearer {KEY}")),
            Shows::Header(name) => (name, KEY.to_owned()),
            Shows::Token => ("authorization", "Bearer token-1".to_owned()),
            Shows::Signed => {
                let value = header(seen, "authorization").unwrap_or_default();
                let scope = "/us-east-1/bedrock/aws4_request, SignedHeaders=";
                let begins = format!("AWS4-HMAC-SHA256 Credential={KEY}/");
                assert!(value.starts_with(&begins) && value.contains(scope), "{about}: {value}");
                ("authorization", value.to_owned())
            }
        };
        for own in ["authorization", "api-key", "x-api-key", "x-goog-api-key"] {
            let wanted = Some(&*value).filter(|_| own == name);
            assert_eq!(header(seen, own), wanted, "{about}: {own}");
        }
        // A caller's own version is not asked for where it says none.
        let version = Some("2023-06-01").filter(|_| self.kind == "anthropic");
        assert_eq!(header(seen, "anthropic-version"), version, "{about}");
    }
}

fn header<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    let mut all = seen.headers.iter().filter(|(own, _)| own == name);
    let first = all.next().map(|(_, value)| &**value);
    assert!(all.next().is_none(), "{name} stands twice");
    first
}

/// Any provider: what it says depends on the path.
fn anybody(seen: &Seen) -> Vec<Step> {
    if header(seen, "authorization") == Some("Bearer token-1") || seen.path == "/token" {
        return google(seen);
    }
    let makes_numbers = ["/embeddings", "/rerank", "/score"];
    if makes_numbers.iter().any(|end| seen.path.ends_with(end)) {
        return numbers(seen);
    }
    good(seen, "afar")
}

/// Path and body of a request that a provider gets in this dialect.
fn asked(dialect: Dialect, model: &str, stream: bool) -> (String, Value) {
    let ranking = json!({ "model": model, "query": "q", "documents": ["a", "b"] });
    let (path, body) = match dialect {
        Chat | Converse => return Inbound::Chat.request(model, stream, "hi"),
        Responses => return Inbound::Responses.request(model, stream, "hi"),
        Messages => return Inbound::Messages.request(model, stream, "hi"),
        Gemini => return Inbound::Gemini.request(model, stream, "hi"),
        Completions => return Inbound::Completions.request(model, stream, "hi"),
        Embeddings => ("/v1/embeddings", json!({ "model": model, "input": ["hi"] })),
        Rerank => ("/v1/rerank", ranking),
        Cohere => ("/v2/rerank", ranking),
        Score => ("/v1/score", json!({ "model": model, "text_1": "a", "text_2": "b" })),
    };
    (path.to_owned(), body)
}

/// The answer is there.
fn arrived(dialect: Dialect, stream: bool, got: &Answer, about: &str) {
    let text = got.text();
    assert_eq!(got.status, 200, "{about}: {text}");
    let said: Value = serde_json::from_slice(&got.bytes).unwrap_or_default();
    match dialect {
        Embeddings => {
            assert_eq!(said["data"][0]["embedding"], json!([0.5, -1.0]), "{about} {text}");
        }
        Rerank | Cohere => {
            assert_eq!(said["results"][0]["relevance_score"], 0.75, "{about} {text}");
        }
        Score => assert_eq!(said["data"][0]["score"], 0.5, "{about} {text}"),
        _ if stream => {
            let parts = ["Hello", " from", " afar"];
            assert!(parts.iter().all(|part| text.contains(part)), "{about} {text}");
        }
        _ => assert!(text.contains("Hello from afar"), "{about} {text}"),
    }
}

/// How Google's and Amazon's paths end, whose method says whether the answer is a stream.
fn method(dialect: Dialect, stream: bool) -> &'static str {
    match (dialect, stream) {
        (Gemini, false) => "generateContent",
        (Gemini, true) => "streamGenerateContent?alt=sse",
        (Converse, false) => "converse",
        (Converse, true) => "converse-stream",
        _ => "",
    }
}

/// OpenAI's own go on with texts where their names say so.
fn model(kind: &str, dialect: Dialect) -> &'static str {
    match (kind, dialect) {
        ("openai" | "azure", Completions) => "some-instruct",
        // Google's route here has the model in its path, where another slash is another route.
        (_, Gemini) => "some%2Fm",
        _ => "some/m",
    }
}

#[test]
fn every_kind_has_its_row_here() {
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(ROWS.iter().map(|row| row.kind).collect::<Vec<_>>(), known);
    for row in ROWS {
        let own = row.kind().base_url.replace("{region}", "us-east-1");
        let own = own.replace("{project}", "my-project");
        assert!(own.is_empty() || own == row.base, "{}: {own}", row.kind);
        let spoken: Vec<Dialect> = row.kind().speaks.iter().map(|(own, _)| *own).collect();
        let wanted: Vec<Dialect> = row.speaks.iter().map(|(own, _)| *own).collect();
        assert_eq!(spoken, wanted, "{}", row.kind);
    }
}

#[tokio::test]
async fn every_kind_is_asked_in_each_of_its_dialects() {
    let upstream = Upstream::start(anybody).await;
    for row in ROWS {
        let router = gateway(&row.section(&upstream));
        for ((dialect, path), stream) in
            row.speaks.iter().flat_map(|own| [(own, false), (own, true)])
        {
            let dialect = *dialect;
            if stream && matches!(dialect, Embeddings | Rerank | Cohere | Score) {
                continue;
            }
            let about = format!("{} {dialect} {stream}", row.kind);
            let name = format!("p/{}", model(row.kind, dialect));
            let (own, body) = asked(dialect, &name, stream);
            let got = send(&router, request("key-of-a-caller", &own, &body)).await;
            arrived(dialect, stream, &got, &about);
            let seen = upstream.seen().pop().expect("a request");
            let wanted = [row.front(), path, method(dialect, stream)].concat();
            assert_eq!(seen.path, wanted, "{about}");
            row.proves(&seen, &about);
            let accept = match (dialect, stream) {
                (Converse, true) => "application/vnd.amazon.eventstream",
                (_, true) => "text/event-stream",
                _ => "application/json",
            };
            assert_eq!(header(&seen, "accept"), Some(accept), "{about}");
            assert_eq!(header(&seen, "content-type"), Some("application/json"), "{about}");
            let sent = seen.json();
            let in_body = !matches!(dialect, Gemini | Converse);
            let wanted = in_body.then(|| model(row.kind, dialect));
            assert_eq!(sent.get("model").and_then(Value::as_str), wanted, "{about} {sent}");
            // Whoever is asked for a stream of OpenAI's is asked for its usage too.
            let counts = stream && matches!(dialect, Chat | Completions) && row.kind != "mistral";
            let options = counts.then(|| json!({ "include_usage": true }));
            assert_eq!(sent.get("stream_options"), options.as_ref(), "{about} {sent}");
        }
    }
}

/// A chat that came in OpenAI's own words goes as it came; Mistral gets its own names.
#[tokio::test]
async fn fields_of_a_chat_go_by_the_names_that_are_known_there() {
    let upstream = Upstream::start(anybody).await;
    let chats = ROWS.iter().filter(|row| row.kind().path(Chat).is_some());
    for row in chats {
        let router = gateway(&row.section(&upstream));
        for stream in [false, true] {
            let (path, mut body) = Inbound::Chat.request("p/m", stream, "hi");
            let more = json!({ "max_completion_tokens": 20, "seed": 7, "user": "u", "top_p": 0.5 });
            body.as_object_mut().expect("one").extend(more.as_object().cloned().expect("one"));
            let about = format!("{} {stream}", row.kind);
            let got = send(&router, request("", &path, &body)).await;
            arrived(Chat, stream, &got, &about);
            body["model"] = "m".into();
            if row.kind == "mistral" {
                for (name, own) in
                    [("max_completion_tokens", "max_tokens"), ("seed", "random_seed")]
                {
                    body[own] = body[name].take();
                    body.as_object_mut().expect("one").shift_remove(name);
                }
                body.as_object_mut().expect("one").shift_remove("user");
            } else if stream {
                body["stream_options"] = json!({ "include_usage": true });
            }
            assert_eq!(upstream.seen().pop().expect("a request").json(), body, "{about}");
        }
    }
}

/// A chat of another dialect is written in the words that the provider knows: OpenAI's newest, or
/// those that everybody has, or what engines add to them.
#[tokio::test]
async fn chats_are_written_in_each_kind_s_own_words() {
    let upstream = Upstream::start(anybody).await;
    let chats = ROWS.iter().filter(|row| row.kind().main() == Chat);
    for row in chats {
        let section = row.section(&upstream) + "dialect = \"chat\"\n";
        let router = gateway(&section);
        for stream in [false, true] {
            let (path, mut body) = Inbound::Messages.request("p/m", stream, "hi");
            body["top_k"] = 5.into();
            let about = format!("{} {stream}", row.kind);
            let got = send(&router, request("", &path, &body)).await;
            arrived(Messages, stream, &got, &about);
            let engine = ["vllm", "sglang", "llamacpp", "hearth"].contains(&row.kind);
            let dropped = if engine { "" } else { "top_k" };
            assert_eq!(got.header("x-hearth-dropped"), dropped, "{about}");
            let mut wanted = json!({ "model": "m",
                "messages": [{ "role": "user", "content": "hi" }] });
            let newest = ["openai", "azure"].contains(&row.kind);
            wanted[if newest { "max_completion_tokens" } else { "max_tokens" }] = 64.into();
            if engine {
                wanted["top_k"] = 5.into();
            }
            if stream {
                wanted["stream"] = true.into();
                if row.kind != "mistral" {
                    wanted["stream_options"] = json!({ "include_usage": true });
                }
            }
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!(seen.json(), wanted, "{about}");
            row.proves(&seen, &about);
        }
    }
}
