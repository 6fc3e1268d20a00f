//! A stream says what the whole answer says, however its tokens fall into events.

use serde_json::{Value, json};

use super::client::post;
use super::fake::{Fake, SPEECH, Setup};

/// Text, finish and token count of each choice.
type Said = Vec<(String, Value, usize)>;

fn whole(body: &Value) -> Said {
    let choices = body["choices"].as_array().expect("choices");
    let one = |choice: &Value| {
        let text = choice["message"]["content"].as_str().expect("content").to_owned();
        let entries = choice["logprobs"]["content"].as_array().expect("logprobs").len();
        (text, choice["finish_reason"].clone(), entries)
    };
    choices.iter().map(one).collect()
}

fn streamed(body: &str, choices: usize) -> Said {
    let mut said = vec![(String::new(), Value::Null, 0); choices];
    let mut done = false;
    for event in body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')) {
        assert!(!done, "nothing follows [DONE]");
        let data = event.strip_prefix("data: ").expect("an event is data");
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        for choice in chunk["choices"].as_array().expect("choices") {
            let at = usize::try_from(choice["index"].as_u64().expect("index")).expect("small");
            let own = &mut said[at];
            assert_eq!(own.1, Value::Null, "nothing follows a finish");
            own.0.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            own.1 = choice["finish_reason"].clone();
            own.2 += choice["logprobs"]["content"].as_array().map_or(0, Vec::len);
        }
    }
    assert!(done, "{body}");
    said
}

#[tokio::test]
async fn a_stream_is_the_whole_answer_in_pieces() {
    let fake = Fake::start(Setup::default());
    let stops = [
        json!(null),
        json!(["w\u{f6}"]),
        json!(["\u{f6}"]),
        json!(["three.", "two t"]),
        json!([" one two three.!"]),
        json!(["H"]),
        json!(["."]),
    ];
    for stop in stops {
        for (n, kept, least) in [(1, false, 0), (3, true, 0), (2, false, 6)] {
            let mut request = json!({
                "model": "org/fake", "messages": [{"role": "user", "content": "x"}], "n": n,
                "stop": stop, "include_stop_str_in_output": kept, "min_tokens": least,
                "logprobs": true,
            });
            let path = "/v1/chat/completions";
            let plain = post(&fake.router, path, request.to_string()).await.json();
            request["stream"] = json!(true);
            let stream = post(&fake.router, path, request.to_string()).await;
            let choices = usize::try_from(n).expect("small");
            assert_eq!(whole(&plain), streamed(&stream.body, choices), "{request}");
            for (text, finish, entries) in whole(&plain) {
                assert!(SPEECH.starts_with(&text), "{text}");
                assert_eq!(finish, "stop");
                let made = plain["usage"]["completion_tokens"].as_u64().expect("a count") / n;
                assert!(entries as u64 <= made, "{entries} entries of {made} tokens: {request}");
            }
        }
    }
    fake.idle().await;
}
