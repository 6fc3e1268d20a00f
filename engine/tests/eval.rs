//! The demo model answers as many prompts of `eval.jsonl` as it does in transformers: 214 of 223
//! (96.0 %), give or take a point, in float32 and in the type its file holds. Text goes through
//! the model's own chat template and tokenizer, all prompts run batched through the scheduler.

use std::time::Instant;

use engine::model::Dtype;
use hearth_tests::fixtures;
use serde::Deserialize;
use serde_json::Value;
use text::{ChatInput, TextModel};

mod common;
use common::Size;
use common::serve::{Serve, demo_files, request};

/// One prompt and what it should give.
#[derive(Deserialize)]
struct Item {
    id: String,
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    expected: Value,
    #[serde(rename = "match")]
    rule: Rule,
    max_tokens: u32,
}

/// How an answer is compared.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    Exact,
    Prefix,
    /// Equal as JSON.
    Json,
    /// Equal list of calls.
    ToolCall,
}

fn items() -> Vec<Item> {
    let lines = fixtures::packed(&common::data().join("eval.jsonl")).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).expect("an item")).collect()
}

fn correct(item: &Item, text: &str) -> bool {
    match item.rule {
        Rule::Exact => item.expected == text,
        Rule::Prefix => text.starts_with(item.expected.as_str().unwrap()),
        Rule::Json => serde_json::from_str::<Value>(text).is_ok_and(|found| found == item.expected),
        Rule::ToolCall => {
            let calls = text.split("<tool_call>\n").skip(1).filter_map(|rest| {
                let (call, _) = rest.split_once("\n</tool_call>")?;
                Some(serde_json::from_str::<Value>(call))
            });
            let calls: Result<Vec<Value>, _> = calls.collect();
            calls.is_ok_and(|calls| Value::Array(calls) == item.expected)
        }
    }
}

fn prompt(text: &TextModel, item: &Item) -> Vec<u32> {
    let chat = ChatInput {
        messages: item.messages.clone(),
        tools: item.tools.clone(),
        add_generation_prompt: true,
        ..ChatInput::default()
    };
    let rendered = text.render_chat(&chat).unwrap_or_else(|error| panic!("{}: {error}", item.id));
    text.encode(&rendered, false).unwrap_or_else(|error| panic!("{}: {error}", item.id))
}

fn score(dtype: Dtype) {
    let files = demo_files();
    let text = &files.text;
    let items = items();
    let ids = 0..;
    let requests = ids.zip(&items).map(|(id, item)| {
        let mut request = request(id, &prompt(text, item), item.max_tokens);
        request.stop_tokens.clone_from(&files.eos);
        request
    });
    let requests = requests.collect();
    let size = Size { rows: 48, step_tokens: 256, pages: 1024 };
    let mut serve = Serve::new(&files, dtype, size);
    let started = Instant::now();
    let answers = serve.run(requests);
    let (mut right, mut tokens) = (0, 0);
    for (item, answer) in items.iter().zip(&answers) {
        let output = &answer.choices[0].tokens;
        tokens += output.len();
        let output = text.decode(output, true);
        if correct(item, &output) {
            right += 1;
        } else {
            println!("{}: {output:?}, expected {}", item.id, item.expected);
        }
    }
    let share = 100.0 * f64::from(right) / items.len() as f64;
    println!(
        "{dtype:?}: {right} of {} ({share:.1} %), {tokens} tokens in {} steps, {:.1} s",
        items.len(),
        serve.steps,
        started.elapsed().as_secs_f64()
    );
    assert!((share - 96.0).abs() <= 1.0, "{dtype:?}: {share:.1} % of the prompts");
}

#[test]
fn answers_as_in_transformers_in_float32() {
    score(Dtype::Float32);
}

#[test]
fn answers_as_in_transformers_in_the_type_of_the_file() {
    score(Dtype::Auto);
}
