//! Streams that are passed on as they come, and what becomes of them when they break: more than
//! text is not gone on with, whole items stay as they are, and an array stays one.

use serde_json::{Value, json};

use crate::caller::{Inbound, request, routes, send};
use crate::continued::{CONTINUE, Case, config, cut, refused, two};
use crate::fake::{Fake, SPEECH, Setup};
use crate::speech::end;
use crate::upstream::{Step, Upstream};

/// Events of a provider's own that are passed on, up to its second token, and then these.
async fn odd(inbound: Inbound, kind: &str, more: &'static [&str]) {
    let script = move |tongue| {
        let all = two(tongue);
        all.into_iter()
            .chain(more.iter().map(|data| format!("data: {}\n\n", data.replace('\n', ""))))
            .collect()
    };
    let case = Case { kind, inbound, more: json!({}), pool: CONTINUE };
    refused(&format!("{inbound:?}: {more:?}"), &case, script).await;
}

/// What is passed on may hold what no model here could have said.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_text_is_not_continued() {
    for more in [
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"executableCode":{"code":"1"}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#,
        r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"b"}]}}]}"#,
    ] {
        odd(Inbound::Gemini, "gemini", Box::leak(Box::new([more]))).await;
    }
    const ENDS: [&str; 3] = [
        r#"{"type":"response.output_text.done","sequence_number":6,"output_index":0}"#,
        r#"{"type":"response.content_part.done","sequence_number":7,"part":{"text":"Hello from"}}"#,
        r#"{"type":"response.output_item.done","sequence_number":8,"item":{"id":"msg_1",
            "type":"message","content":[{"type":"output_text","text":"Hello from"}]}}"#,
    ];
    let [text, part, item] = ENDS;
    let call: [&str; 4] = [
        text,
        part,
        item,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call"}}"#,
    ];
    odd(Inbound::Responses, "openai", Box::leak(Box::new(call))).await;
    let search = r#"{"type":"response.output_item.added","output_index":1,
        "item":{"type":"web_search_call"}}"#;
    odd(Inbound::Responses, "openai", Box::leak(Box::new([text, part, item, search]))).await;
    let thoughts = r#"{"type":"response.output_item.added","output_index":1,
        "item":{"type":"reasoning"}}"#;
    odd(Inbound::Responses, "openai", Box::leak(Box::new([text, part, item, thoughts]))).await;
    let note = r#"{"type":"response.output_text.annotation.added","annotation":{}}"#;
    odd(Inbound::Responses, "openai", Box::leak(Box::new([note]))).await;
    let refusal = r#"{"type":"response.refusal.delta","delta":"no"}"#;
    odd(Inbound::Responses, "openai", Box::leak(Box::new([refusal]))).await;
}

/// Items of a response that were whole before stand in the last event as their provider wrote them.
#[tokio::test(flavor = "multi_thread")]
async fn whole_items_stay_as_they_are() {
    const THOUGHTS: [&str; 3] = [
        r#"{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[]}}"#,
        r#"{"type":"response.reasoning_summary_text.delta","sequence_number":2,"output_index":0,"delta":"hm"}"#,
        r#"{"type":"response.output_item.done","sequence_number":3,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}],"of_tomorrow":1}}"#,
    ];
    let ill = Upstream::start(|seen| {
        let all = two(seen.tongue()).join("").replace("\"output_index\":0", "\"output_index\":1");
        let mut all: Vec<String> = all.split_inclusive("\n\n").map(str::to_owned).collect();
        for (at, data) in (1..).zip(THOUGHTS) {
            all.insert(at, format!("data: {data}\n\n"));
        }
        let all: Vec<String> = (0..)
            .zip(all)
            .map(|(at, event)| {
                let end = event.find("\"sequence_number\":").expect("a number") + 18;
                let rest = event[end..].trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{}{at}{rest}", &event[..end])
            })
            .collect();
        cut(&all, Step::Close)
    })
    .await;
    let routes = routes(&config("openai", &ill, "\"org/fake\""), &["org/fake"]);
    let fake = Fake::start(Setup { routes: routes.expect("routes"), ..Setup::default() });
    let (path, body) = Inbound::Responses.request("p", true, "hi");
    let got = send(&fake.router, request("", &path, &body)).await.text();
    let last = got.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    let last: Value = serde_json::from_str(last.expect("an event")).expect("JSON");
    assert_eq!(last["type"], "response.completed", "{got}");
    let output = &last["response"]["output"];
    assert_eq!(output[0]["of_tomorrow"], 1, "{got}");
    assert_eq!(output[1]["content"][0]["text"], format!("Hello from{SPEECH}"), "{got}");
    let numbers = got
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str::<Value>(data).expect("JSON")["sequence_number"].as_u64());
    assert!(numbers.enumerate().all(|(at, own)| own == u64::try_from(at).ok()), "{got}");
}

/// Google's clients that do not ask for events get an array, whoever makes its items.
#[tokio::test(flavor = "multi_thread")]
async fn an_array_stays_one() {
    let good = Upstream::start(|seen| crate::speech::good(seen, "first")).await;
    let ill = Upstream::start(|seen| cut(&two(seen.tongue()), end())).await;
    for (upstream, pool, expect) in [
        (&good, CONTINUE, "Hello from first".to_owned()),
        (&ill, CONTINUE, format!("Hello from{SPEECH}")),
        (&ill, "", "Hello from".to_owned()),
    ] {
        let text = config("gemini", upstream, "\"org/fake\"");
        let text = text.replace("broken_stream = \"continue\"\n", pool);
        let routes = routes(&text, &["org/fake"]).expect("a configuration");
        let fake = Fake::start(Setup { routes, ..Setup::default() });
        let (path, body) = Inbound::Gemini.request("p", true, "hi");
        let path = path.replace("?alt=sse", "");
        let got = send(&fake.router, request("", &path, &body)).await;
        assert_eq!(got.header("content-type"), "application/json");
        let text = got.text();
        let items: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let said = items
            .iter()
            .filter_map(|item| item.pointer("/candidates/0/content/parts/0/text")?.as_str());
        assert_eq!(said.collect::<String>(), expect, "{text}");
        let last = items.last().expect("items");
        assert_eq!(last.get("error").is_some(), pool.is_empty(), "{text}");
        assert_eq!(last.get("hearth").is_some(), expect.contains(SPEECH), "{text}");
    }
}

/// A provider is asked what it used also where the caller does not ask, and then the caller does
/// not read it.
#[tokio::test]
async fn usage_is_always_asked_for() {
    let upstream = Upstream::well("word").await;
    let config = crate::caller::provider("p", "vllm", &upstream.url, "");
    let router = crate::caller::gateway(&config);
    for (times, inbound) in (1..).zip([Inbound::Chat, Inbound::Completions]) {
        let (path, mut body) = inbound.request("p/m", true, "hi");
        let quiet = send(&router, request("", &path, &body)).await.text();
        let seen = upstream.seen();
        assert_eq!(seen.len(), 2 * times - 1);
        assert_eq!(seen[2 * times - 2].json()["stream_options"]["include_usage"], true);
        assert!(inbound.ends(&quiet) && !quiet.contains("prompt_tokens"), "{quiet}");
        body["stream_options"] = json!({ "include_usage": true });
        let told = send(&router, request("", &path, &body)).await.text();
        assert!(told.contains("\"prompt_tokens\":11"), "{told}");
    }
}
