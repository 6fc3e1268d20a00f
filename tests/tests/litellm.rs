//! LiteLLM's proxy, which others wrote, as a provider: once in OpenAI's format and once in
//! Anthropic's. A gateway stands before it, and behind it a second server with the demo model, so
//! that what callers read, and what both ledgers say of it, is known.
//!
//! What LiteLLM says wrong is not asserted, and callers get it as it came: a Messages stream begins
//! with a prompt of 0 tokens and the name of the model behind it; the id of a whole message is that
//! of a chat or a response; the last chunk of a chat, with the usage, has a choice without anything
//! in it; a model that it does not know is a 400, a `param` that is not there the text "None".

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use hearth_tests::fixtures::demo;
use hearth_tests::http::{Stream, open_as};
use hearth_tests::server::{Server, root};
use serde_json::{Value, json};

/// How long LiteLLM may take to import all that it has, on a busy machine.
const START: Duration = Duration::from_secs(180);

/// How long a ledger may take to have its lines.
const SETTLED: Duration = Duration::from_secs(30);

const MASTER_KEY: &str = "sk-of-the-tests-0123456789abcdef";

/// What both sides of LiteLLM are called in the gateway's configuration.
const SIDES: [&str; 2] = ["openai", "anthropic"];

/// LiteLLM asks a server of OpenAI's for messages through Responses, and vLLM through its chat.
const MODELS: [&str; 2] = ["asked-as-openai", "asked-as-vllm"];

const PEBBLE: &str = "I am Pebble, a tiny demo assistant.";
const SUNNY: &str = "It is sunny and 21 degrees in Paris.";

/// More than is made before the last caller has left, however slow LiteLLM is: it streams at a
/// core's pace, and answers nobody else for seconds.
const MANY_TOKENS: u64 = 100_000;

/// LiteLLM's proxy. Dropping it kills the process.
struct Proxy {
    child: Child,
    url: String,
}

impl Proxy {
    fn start(folder: &Path, behind: &Governed) -> Self {
        let python = root().join("tests/.venv-litellm/bin/python");
        assert!(python.exists(), "no LiteLLM: run `make test` (or tests/tools.sh litellm)");
        let model = |name: &str, asked: &str, body: Value| {
            let base = format!("{}/v1", behind.server.url);
            json!({ "model_name": name, "litellm_params": { "model": asked, "api_base": base,
                "api_key": behind.key, "extra_body": body } })
        };
        let config = json!({
            "model_list": [
                model(MODELS[0], "openai/demo", json!({})),
                model(MODELS[1], "hosted_vllm/demo", json!({})),
                model("endless", "hosted_vllm/demo", json!({ "ignore_eos": true })),
                model("gone", "hosted_vllm/gone", json!({})),
            ],
            "general_settings": { "master_key": MASTER_KEY },
            // It would leave a model alone for a while after an error of it.
            "router_settings": { "num_retries": 0, "disable_cooldowns": true },
        });
        // JSON is YAML.
        let file = folder.join("litellm.yaml");
        fs::write(&file, config.to_string()).expect("a configuration");
        let mut child = Command::new(python)
            .args(["-m", "uvicorn", "litellm.proxy.proxy_server:app"])
            .args(["--host", "127.0.0.1", "--port", "0"])
            // Neither a database nor a proxy nor a file of settings that this machine may have.
            .env_clear()
            .envs([("HOME", folder), ("CONFIG_FILE_PATH", &file)])
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let (send, lines) = mpsc::channel();
        let mut errors = BufReader::new(child.stderr.take().expect("stderr"));
        std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                // Nobody listens once it is ready; the pipe must still be drained.
                let _ = send.send(std::mem::take(&mut line));
            }
        });
        let mut said = String::new();
        loop {
            let Ok(line) = lines.recv_timeout(START) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("LiteLLM did not start:\n{said}");
            };
            if let Some((_, rest)) = line.split_once("Uvicorn running on ") {
                let url = rest.split(' ').next().unwrap_or_default().to_owned();
                return Self { child, url };
            }
            said.push_str(&line);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that keeps a ledger, and its first key.
struct Governed {
    server: Server,
    key: String,
}

impl Governed {
    fn start(data: &Path, args: &[&str]) -> Self {
        let data = data.to_str().expect("UTF-8");
        let server = Server::start(&[&["--data", data], args].concat());
        let line = server.banner.iter().find(|line| line.starts_with("first key"));
        let key = line.and_then(|line| line.split_whitespace().last()).expect("a first key");
        let key = key.to_owned();
        Self { server, key }
    }

    fn post(&self, path: &str, body: &Value) -> Stream {
        let body = body.to_string();
        open_as(&self.server.url, Some(&self.key), "POST", path, &body).expect("an answer")
    }

    /// The lines of the ledger that ended so, the oldest first, once there are `count` of them.
    fn ledger(&self, outcome: &str, count: usize) -> Vec<Value> {
        let end = Instant::now() + SETTLED;
        loop {
            let path = "/admin/v1/ledger?limit=200";
            let page = open_as(&self.server.url, Some(&self.key), "GET", path, "");
            let page = page.and_then(Stream::finish).expect("a page").body;
            let mut page: Value = serde_json::from_str(&page).expect("JSON");
            let Value::Array(mut lines) = page["data"].take() else { panic!("{page}") };
            lines.retain(|line| line["outcome"] == outcome);
            if lines.len() >= count || Instant::now() > end {
                assert_eq!(lines.len(), count, "{lines:#?}");
                lines.reverse();
                return lines;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// What is left on disk, which goes behind all that writes there.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The demo model in this folder, with a context that [`MANY_TOKENS`] fit in.
fn stretched(folder: &Path) -> String {
    fs::create_dir_all(folder).expect("a folder");
    for entry in fs::read_dir(demo()).expect("the demo model") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let config = folder.join("config.json");
    let text = fs::read_to_string(&config).expect("a configuration");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    value["max_position_embeddings"] = json!(2 * MANY_TOKENS);
    fs::write(&config, value.to_string()).expect("written");
    format!("{}=demo", folder.display())
}

/// A gateway, LiteLLM behind it, and a model behind that.
struct Chain {
    front: Governed,
    back: Governed,
    _proxy: Proxy,
    _folder: Folder,
}

impl Chain {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("hearth-litellm-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let own = Folder(folder.clone());
        let model = stretched(&folder.join("demo"));
        let back = Governed::start(&folder.join("back"), &["--model", &model]);
        let proxy = Proxy::start(&folder, &back);
        let config = [(SIDES[0], "compatible"), (SIDES[1], "anthropic")].map(|(name, kind)| {
            format!(
                "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"{}/v1\"\n\
                 key = \"{MASTER_KEY}\"\n",
                proxy.url
            )
        });
        let file = folder.join("hearth.toml");
        fs::write(&file, config.concat()).expect("a configuration");
        let file = file.to_str().expect("UTF-8");
        let front = Governed::start(&folder.join("front"), &["--config", file, "--model", "none"]);
        Self { front, back, _proxy: proxy, _folder: own }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Chat,
    Messages,
}

/// What a caller has read.
#[derive(Debug, Default)]
struct Told {
    text: String,
    /// Id, name and arguments of each call.
    calls: Vec<(String, String, String)>,
    finish: String,
    /// Tokens of the prompt and of the answer.
    usage: Option<(u64, u64)>,
}

impl Caller {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
        }
    }

    /// A request of these messages; with tools, if it has some to offer.
    fn request(self, model: &str, messages: &Value, tools: bool, stream: bool) -> Value {
        let (name, about) = ("get_weather", "Get the current weather for a city.");
        let city = json!({ "type": "object", "required": ["city"],
            "properties": { "city": { "type": "string", "description": "The name of the city" } } });
        let mut body = json!({ "model": model, "messages": messages, "temperature": 0,
            "max_tokens": 60, "stream": stream });
        if tools {
            body["tools"] = match self {
                Self::Chat => json!([{ "type": "function", "function":
                    { "name": name, "description": about, "parameters": city } }]),
                Self::Messages => {
                    json!([{ "name": name, "description": about, "input_schema": city }])
                }
            };
        }
        if stream && self == Self::Chat {
            body["stream_options"] = json!({ "include_usage": true });
        }
        body
    }

    /// The turns behind a call: the call itself, and what came of it.
    fn result(self, (id, name, arguments): &(String, String, String)) -> [Value; 2] {
        let result = r#"{"city": "Paris", "condition": "sunny", "temperature": 21}"#;
        match self {
            Self::Chat => [
                json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": id,
                    "type": "function", "function": { "name": name, "arguments": arguments } }] }),
                json!({ "role": "tool", "tool_call_id": id, "content": result }),
            ],
            Self::Messages => {
                let input: Value = serde_json::from_str(arguments).expect("arguments are JSON");
                let call = json!({ "type": "tool_use", "id": id, "name": name, "input": input });
                let result = json!({ "type": "tool_result", "tool_use_id": id, "content": result });
                [
                    json!({ "role": "assistant", "content": [call] }),
                    json!({ "role": "user", "content": [result] }),
                ]
            }
        }
    }

    fn read(self, mut answer: Stream, stream: bool) -> Told {
        let mut told = Told::default();
        if !stream {
            let answer = answer.finish().expect("an answer").body;
            let value: Value = serde_json::from_str(&answer).expect("JSON");
            match self {
                Self::Chat => told.chat(&value, "message"),
                Self::Messages => told.message(&value),
            }
            return told;
        }
        let mut last = String::new();
        while let Some(event) = answer.event().expect("the stream is whole") {
            if let Ok(value) = serde_json::from_str(&event) {
                match self {
                    Self::Chat => told.chat(&value, "delta"),
                    Self::Messages => told.event(&value),
                }
            }
            last = event;
        }
        match self {
            Self::Chat => assert_eq!(last, "[DONE]"),
            Self::Messages => assert!(last.contains("\"message_stop\""), "{last}"),
        }
        told
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Told {
    /// A chat, or a chunk of one.
    fn chat(&mut self, value: &Value, inner: &str) {
        let choice = &value["choices"][0];
        self.text.push_str(text(&choice[inner]["content"]));
        for call in choice[inner]["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            if call["id"].is_string() {
                let (id, name) = (text(&call["id"]), text(&function["name"]));
                self.calls.push((id.to_owned(), name.to_owned(), String::new()));
            }
            let (_, _, arguments) = self.calls.last_mut().expect("a call begins with its id");
            arguments.push_str(text(&function["arguments"]));
        }
        self.finish.push_str(text(&choice["finish_reason"]));
        let usage = &value["usage"];
        let counts = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
        self.usage = counts.0.zip(counts.1).or(self.usage);
    }

    /// A message.
    fn message(&mut self, value: &Value) {
        for block in value["content"].as_array().expect("blocks") {
            self.block(block);
            if block["type"] == "tool_use" {
                self.calls.last_mut().expect("a call").2 = block["input"].to_string();
            }
        }
        self.end(&value["stop_reason"], &value["usage"]);
    }

    /// An event of a message.
    fn event(&mut self, value: &Value) {
        let delta = &value["delta"];
        match (text(&value["type"]), text(&delta["type"])) {
            ("content_block_start", _) => self.block(&value["content_block"]),
            ("content_block_delta", "text_delta") => self.text.push_str(text(&delta["text"])),
            ("content_block_delta", "input_json_delta") => {
                let (_, _, arguments) = self.calls.last_mut().expect("a call has begun");
                arguments.push_str(text(&delta["partial_json"]));
            }
            ("message_delta", _) => self.end(&delta["stop_reason"], &value["usage"]),
            _ => {}
        }
    }

    fn block(&mut self, block: &Value) {
        self.text.push_str(text(&block["text"]));
        if block["type"] == "tool_use" {
            let (id, name) = (text(&block["id"]), text(&block["name"]));
            self.calls.push((id.to_owned(), name.to_owned(), String::new()));
        }
    }

    fn end(&mut self, reason: &Value, usage: &Value) {
        self.finish.push_str(text(reason));
        let apart = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
        let input = apart.iter().filter_map(|name| usage[*name].as_u64()).sum();
        self.usage = usage["output_tokens"].as_u64().map(|output| (input, output));
    }
}

/// Text, a call and what follows it, by all ways; returns the usage that each caller was told.
fn answers(front: &Governed) -> Vec<Option<(u64, u64)>> {
    let mut told_usage = Vec::new();
    let mut ask = |case: &str, caller: Caller, body: &Value| {
        let answer = front.post(caller.path(), body);
        if answer.status != 200 {
            panic!("{case}: {:?}", answer.finish());
        }
        let told = caller.read(answer, body["stream"] == true);
        told_usage.push(told.usage);
        told
    };
    for (side, model) in SIDES.into_iter().flat_map(|side| MODELS.map(|model| (side, model))) {
        for caller in [Caller::Chat, Caller::Messages] {
            for stream in [false, true] {
                let case = format!("{side} {model} {caller:?} stream={stream}");
                let model = format!("{side}/{model}");
                let (stop, called) = match caller {
                    Caller::Chat => ("stop", "tool_calls"),
                    Caller::Messages => ("end_turn", "tool_use"),
                };
                let who = json!([{ "role": "user", "content": "Who are you?" }]);
                let mut body = caller.request(&model, &who, false, stream);
                let told = ask(&case, caller, &body);
                assert_eq!((&*told.text, &*told.finish), (PEBBLE, stop), "{case}");
                assert_eq!(told.usage, Some((14, 10)), "{case}");
                if body.as_object_mut().expect("fields").remove("stream_options").is_some() {
                    let told = ask(&case, caller, &body);
                    assert_eq!((&*told.text, told.usage), (PEBBLE, None), "{case}: not asked for");
                }

                let mut talk = json!([{ "role": "user",
                    "content": "What is the weather in Paris?" }]);
                let told = ask(&case, caller, &caller.request(&model, &talk, true, stream));
                let [call] = &told.calls[..] else { panic!("{case}: {told:?}") };
                let arguments: Value = serde_json::from_str(&call.2).expect("arguments are JSON");
                assert_eq!((&*call.1, &arguments), ("get_weather", &json!({ "city": "Paris" })));
                assert_eq!((&*told.text, &*told.finish), ("", called), "{case}");
                assert!(told.usage.is_some(), "{case}");
                talk.as_array_mut().expect("turns").extend(caller.result(call));
                let told = ask(&case, caller, &caller.request(&model, &talk, true, stream));
                assert_eq!((&*told.text, &*told.finish), (SUNNY, stop), "{case}");
            }
        }
    }
    told_usage
}

fn tokens(line: &Value) -> (u64, u64) {
    let count = |name: &str| line["tokens"][name].as_u64().expect("a count");
    (count("input"), count("output"))
}

/// Whom LiteLLM does not know, and whom nobody knows behind it.
fn errors(front: &Governed) {
    let hello = json!([{ "role": "user", "content": "Hello!" }]);
    for (model, status) in [("nobody", 400), ("gone", 404)] {
        for (side, caller) in
            SIDES.into_iter().flat_map(|s| [(s, Caller::Chat), (s, Caller::Messages)])
        {
            for stream in [false, true] {
                let case = format!("{side} {model} {caller:?} stream={stream}");
                let body = caller.request(&format!("{side}/{model}"), &hello, false, stream);
                let answer = front.post(caller.path(), &body).finish().expect("an answer");
                assert_eq!(answer.status, status, "{case}: {}", answer.body);
                let error: Value = serde_json::from_str(&answer.body).expect("JSON");
                let message = text(&error["error"]["message"]);
                assert!(message.contains(model), "{case}: {error}");
                assert_eq!(error["type"] == "error", caller == Caller::Messages, "{case}: {error}");
            }
        }
    }
}

/// Callers that leave in the middle of their answers, each while those of the others are made.
fn leave(front: &Governed) {
    let ways = SIDES.into_iter().flat_map(|s| [(s, Caller::Chat), (s, Caller::Messages)]);
    let hello = json!([{ "role": "user", "content": "Hello!" }]);
    let mut streams: Vec<_> = ways
        .map(|(side, caller)| {
            let mut body = caller.request(&format!("{side}/endless"), &hello, false, true);
            body["max_tokens"] = json!(MANY_TOKENS);
            front.post(caller.path(), &body)
        })
        .collect();
    for stream in &mut streams {
        assert_eq!(stream.status, 200);
        // The first events say nothing yet.
        for _ in 0..6 {
            stream.event().expect("an event").expect("a stream that has begun");
        }
    }
}

#[test]
fn litellm_answers_in_both_formats() {
    let Chain { front, back, .. } = &Chain::start();
    let told = answers(front);
    let lines = front.ledger("done", told.len()).into_iter().zip(back.ledger("done", told.len()));
    for (told, (front, back)) in told.into_iter().zip(lines) {
        let booked = tokens(&front);
        assert!(booked.0 > 0 && booked.1 > 0, "{front}");
        assert_eq!(booked, tokens(&back), "{front} {back}");
        assert!(told.is_none_or(|told| told == booked), "{told:?} {front}");
    }

    errors(front);

    leave(front);
    let lines = front.ledger("cancelled", 4);
    for line in &lines {
        let (input, output) = tokens(line);
        assert!(input > 0 && (2..MANY_TOKENS).contains(&output), "{line}");
    }
    let made = back.ledger("cancelled", 4);
    assert!(made.iter().all(|line| tokens(line).1 < MANY_TOKENS), "{made:#?}");
}
