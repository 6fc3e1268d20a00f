//! Which format a model writes is told from its template.

use text::TextModel;
use text::tools::Format;

use crate::model::Model;

/// The name of the format that a model with this template has.
fn of(text: &mut TextModel, template: &str) -> Option<&'static str> {
    text.set_chat_template(template).expect("a template");
    Format::of(text).map(|format| format.name)
}

#[test]
fn templates_show_their_formats() {
    let mut text = Model::new(false).text;
    for (template, name) in [
        ("<|im_start|>{{ messages }}", None),
        ("the JSON between <tool_call></tool_call> tags: {\"name\": ...}", Some("hermes")),
        ("<tool_call><function=name><parameter=key>value</parameter>", Some("qwen3-coder")),
        ("<tool_call>{name}<arg_key>{key}</arg_key><arg_value>", Some("glm")),
        ("<|tool_calls_section_begin|><|tool_call_begin|>", Some("kimi-k2")),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{{ 'type' }}<｜tool▁sep｜>name\n```json\n",
            Some("deepseek-v3"),
        ),
        ("<｜tool▁calls▁begin｜>{{ 'name' }}<｜tool▁sep｜>", Some("deepseek-v31")),
        ("[AVAILABLE_TOOLS] [TOOL_CALLS] [{{ 'calls' }}]", Some("mistral")),
        ("[TOOL_CALLS]{{ 'name' }}[ARGS]{{ 'arguments' }}", Some("mistral-v11")),
        ("Action: write <|START_ACTION|> and tool_name", Some("command-r7b")),
        ("Write 'Action:' and a list of \"tool_name\"", Some("command-r")),
        ("<|tool|>{{ 'tools' }}<|/tool|>", Some("phi4-mini")),
        ("respond with <|tool_call|> followed by a JSON list of tools", Some("granite")),
        ("[func_name1(params_name1=params_value1, ...), f(x)]", Some("llama-pythonic")),
        (
            "{\"name\": function name, \"parameters\": dictionary of argument name and its value}",
            Some("llama-json"),
        ),
        ("<|start|>assistant<|channel|>final<|message|>{{ 'x' }}", Some("harmony")),
    ] {
        // As text of a template: braces of the case itself are no expressions of it.
        let template = format!("{{% raw %}}{template}{{% endraw %}}");
        assert_eq!(of(&mut text, &template), name, "{template}");
    }
}

#[test]
fn templates_of_families_show_their_formats() {
    let mut text = Model::new(false).text;
    for (file, name) in [
        ("chatml", None),
        ("command", None),
        ("command7", Some("command-r7b")),
        ("deepseek", Some("deepseek-v3")),
        ("deepseek31", Some("deepseek-v31")),
        ("falcon3", Some("hermes")),
        ("gemma3", None),
        ("glm45", Some("glm")),
        ("harmony", Some("harmony")),
        ("kimi", Some("kimi-k2")),
        ("mistral", Some("mistral")),
        ("mistral1", None),
        ("mistral7", Some("mistral-v11")),
        ("mistral_tekken", Some("mistral")),
        ("phi4mini", Some("phi4-mini")),
        ("qwen25", Some("hermes")),
        ("qwen3", Some("hermes")),
        ("qwen3coder", Some("qwen3-coder")),
    ] {
        let path = format!("{}/tests/data/templates/{file}.jinja", env!("CARGO_MANIFEST_DIR"));
        let template = std::fs::read_to_string(&path).expect("a template");
        assert_eq!(of(&mut text, &template), name, "{file}");
    }
}
