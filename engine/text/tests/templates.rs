//! Chat templates against renderings by Hugging Face transformers, stored in tests/data.

mod common;

use common::{data, lines, with_template};
use serde_json::Value;
use text::{ChatInput, TemplateError, TextError};

/// 2024-07-26 08:09:10, the clock of the goldens.
const NOW: i64 = 1_721_981_350;

fn list(json: &Value) -> Option<Vec<Value>> {
    json.as_array().cloned()
}

fn input(case: &Value) -> ChatInput {
    ChatInput {
        messages: list(&case["messages"]).unwrap_or_default(),
        tools: list(&case["tools"]),
        documents: list(&case["documents"]),
        add_generation_prompt: case["add_generation_prompt"] == true,
        continue_final_message: case["continue_final_message"] == true,
        kwargs: case["kwargs"].as_object().cloned().unwrap_or_default(),
        now: Some(NOW),
        ..ChatInput::default()
    }
}

fn render(template: &str, chat: &ChatInput) -> Result<String, TemplateError> {
    let model = with_template(template).map_err(|error| match error {
        TextError::Template(error) => error,
        other => panic!("{other}"),
    })?;
    model.render_chat(chat)
}

/// Says how our rendering differs from the stored one, if it does.
fn difference(golden: &Value, ours: &Result<String, TemplateError>) -> Option<String> {
    match (golden["text"].as_str(), ours) {
        (Some(text), Ok(ours)) if text == ours => None,
        (None, Err(TemplateError::Raised(message))) => {
            let same = golden["kind"] == "raised" && golden["error"] == message.as_str();
            (!same).then(|| format!("raised {message}, expected {golden}"))
        }
        (None, Err(_)) if golden["kind"] != "raised" => None,
        _ => Some(format!("ours {ours:?}\nexpected {golden}")),
    }
}

#[test]
fn templates_of_known_models() {
    let conversations: Value = serde_json::from_slice(&data("conversations.json")).unwrap();
    let mut wrong = Vec::new();
    for golden in lines(&data("templates.jsonl")) {
        let template = golden["template"].as_str().unwrap();
        let source = String::from_utf8(data(&format!("templates/{template}.jinja"))).unwrap();
        let chat = input(&conversations[golden["conversation"].as_str().unwrap()]);
        wrong.extend(difference(&golden, &render(&source, &chat)));
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

/// Snippets that print something else than Jinja, each with its reason. None of them stands in a
/// chat template that we know.
const KNOWN_DIFFERENCES: [&str; 22] = [
    // Methods as values: Jinja finds the method `items` before the entry of that name.
    "{{ x.items is defined }}{{ x.keys is defined }}{{ x.get is defined }}",
    "{{ x.items | length }}",
    // Floats of 1e16 and above, joined by `~`.
    "{{ [1.0, 1e20] }} {{ 1e20 ~ '' }}",
    // `%` with a string on its left is refused; the filter `format` does the same.
    "{{ '%s-%d' % ('a', 3) }}",
    "{{ '%s is %d' | format('a', 3) }}{{ '%s' % 'x' }}{{ '%d items' % 3 }}\
     {{ '%s %s' % ('a', 'b') }}",
    "{{ '%.2f' % 3.14159 }}{{ '%5d|' % 42 }}{{ '%-5s|' % 'a' }}{{ '%05d' % 42 }}{{ '%x' % 255 }}\
     {{ '%%' % () }}",
    "{{ '%(a)s' % {'a': 1} }}",
    // A step backwards to an end that is named: one item too many.
    "{{ l[::-1] }}{{ l[-2::-1] }}{{ l[2:0:-1] }}{{ l[:-5] }}{{ l[-5:] }}{{ l[1:-1] }}{{ l[::-2] }}",
    "{{ s[9:0:-3] }}|{{ s[:0:-1] }}|{{ s[-1:-4:-1] }}",
    // Python's own look of a dict's parts; as lists they are the same.
    "{{ d.keys() }}",
    "{{ d.items() }}",
    "{{ d.values() }}",
    // Comparisons of unlike things, errors in Python, have an answer.
    "{{ 1 < 'a' }}",
    "{{ none < 1 }}",
    "{{ 1 in 'abc' }}",
    "{% for i in none %}x{% endfor %}",
    // Macros take only the arguments that they name, and a default sees none of them.
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}",
    "{% macro f(a, a2=a) %}{{ a }}{{ a2 }}{% endmacro %}{{ f(1) }}{{ f.name }}",
    // `+` inside an expression's braces is read as white space control.
    "a{{- ' b ' -}} c {{+ 'd' +}} e",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}\
     {{ c.reset() }}{{ c.next() }}",
    "{% include 'x' ignore missing %}a",
    // Escapes of a string: eight digits, and a line that goes on.
    "{{ '\\u003c' }}{{ '\\x3c' }}{{ '\\U0001F600' }}{{ '\\101' }}{{ '\\q' }}{{ 'a\\\nb' }}",
];

#[test]
fn single_features() {
    let mut wrong = Vec::new();
    let snippets = lines(&data("snippets.jsonl"));
    assert!(snippets.len() > 330);
    for golden in snippets {
        let mut kwargs = golden["variables"].as_object().unwrap().clone();
        let messages = kwargs.remove("messages").as_ref().and_then(list).unwrap_or_default();
        let chat = ChatInput { messages, kwargs, now: Some(NOW), ..ChatInput::default() };
        let template = golden["template"].as_str().unwrap();
        let difference = difference(&golden, &render(template, &chat));
        if difference.is_some() != KNOWN_DIFFERENCES.contains(&template) {
            wrong.push(difference.unwrap_or_else(|| format!("no difference any more: {template}")));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

/// Templates test `strftime_now is defined` and fall back to a date of their own.
#[test]
fn without_a_clock_there_is_no_strftime_now() {
    let source = String::from_utf8(data("templates/llama3.jinja")).unwrap();
    let messages = vec![serde_json::json!({"role": "user", "content": "hi"})];
    let text = render(&source, &ChatInput { messages, ..ChatInput::default() }).unwrap();
    assert!(text.contains("Today Date: 26 Jul 2024\n"), "{text}");
}
