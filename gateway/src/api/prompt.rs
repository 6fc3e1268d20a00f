//! A caller's messages or text to tokens, through the model's template and tokenizer.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use text::{ChatInput, TemplateError, TextError, TextModel};
use wire::{ApiError, Content, ErrorKind, Message, Part, Prompt, Role, Template, Thought, Tool};

use super::error::Failure;
use super::tell;

/// Tokens that may be counted where no model is to read them: who counts may count too much.
pub(super) const COUNTED_MAX: usize = 128 << 10;

/// Bytes of a long text that are made tokens of at once.
const PIECE: usize = 64 << 10;

/// A chat as the model is shown it.
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
}

/// Renders a chat with tools, in words where the template knows none.
pub(super) fn with_tools(
    model: &TextModel,
    messages: &[Message],
    tools: &[Tool],
    tells_tools: bool,
    template: &Template,
    most: usize,
) -> Result<Rendered, Failure> {
    if tells_tools && !tools.is_empty() {
        let messages = tell::messages(messages, tools);
        return of_chat(model, &messages, None, template, most);
    }
    let tools = tools.iter().map(|tool| tool.value.clone()).collect();
    of_chat(model, messages, Some(tools), template, most)
}

/// Renders a chat and makes tokens of it, `most` at about.
fn of_chat(
    model: &TextModel,
    messages: &[Message],
    tools: Option<Vec<Value>>,
    template: &Template,
    most: usize,
) -> Result<Rendered, Failure> {
    let late = late_system(messages);
    let shown: Vec<&Message> = messages.iter().collect();
    let rendered = render(model, &shown, tools.clone(), template);
    // Many templates know a system message at the start alone: some refuse another, some leave it
    // out without a word.
    let heard =
        |text: &str| late.iter().all(|at| text.contains(said(&messages[*at].content).trim()));
    let text = match rendered {
        Ok(text) if heard(&text) => text,
        Err(error) if late.is_empty() => return Err(of_template(&error)),
        _ => {
            let folded = fold(messages, &late);
            let shown: Vec<&Message> = folded.iter().collect();
            render(model, &shown, tools, template).map_err(|error| of_template(&error))?
        }
    };
    check_length(model, &text, most, "messages")?;
    let tokens = encode(model, &text, template.add_special_tokens)?;
    if tokens.is_empty() {
        return Err(empty("messages"));
    }
    Ok(Rendered { text, tokens })
}

/// A chat that ends with an answer which somebody has begun, to the last byte: many templates trim
/// what they show, and whoever goes on from there would say the blank again.
pub(super) fn ending(
    model: &TextModel,
    rendered: Rendered,
    begun: &str,
    template: &Template,
) -> Result<Rendered, Failure> {
    let begun = begun.trim_start();
    if rendered.text.ends_with(begun) {
        return Ok(rendered);
    }
    let mut text = rendered.text;
    let said = begun.trim_end();
    if !text.ends_with(said) {
        let message = "The chat template does not show the beginning of the answer as it is.";
        return Err(Failure::new(ErrorKind::Invalid, "not_continued", message));
    }
    text.push_str(&begun[said.len()..]);
    let tokens = encode(model, &text, template.add_special_tokens)?;
    Ok(Rendered { text, tokens })
}

/// Places of the system messages behind the first turn of anybody else.
fn late_system(messages: &[Message]) -> Vec<usize> {
    let is_system = |m: &Message| matches!(m.role, Role::System | Role::Developer);
    let first = messages.iter().take_while(|m| is_system(m)).count();
    // Most templates join none: the second of two at the start is late as well.
    (first.clamp(usize::from(first > 0), 1)..messages.len())
        .filter(|at| is_system(&messages[*at]))
        .collect()
}

/// The same chat with late system messages as a part of what the user says: the nearest turn
/// before them, or one of their own.
fn fold(messages: &[Message], late: &[usize]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        if !late.contains(&at) {
            match out.last_mut() {
                // A turn of the user behind a folded one would be a second in a row.
                Some(last) if last.role == Role::User && message.role == Role::User => {
                    let text = format!("{}\n\n{}", said(&last.content), said(&message.content));
                    last.content = Content::Text(text);
                }
                _ => out.push(message.clone()),
            }
            continue;
        }
        let words = said(&message.content);
        match out.last_mut() {
            Some(last) if matches!(last.role, Role::User | Role::System | Role::Developer) => {
                last.content = Content::Text(format!("{}\n\n{words}", said(&last.content)));
            }
            _ => out.push(Message::text(Role::User, words)),
        }
    }
    out
}

fn render(
    model: &TextModel,
    messages: &[&Message],
    tools: Option<Vec<Value>>,
    template: &Template,
) -> Result<String, TemplateError> {
    let input = ChatInput {
        messages: messages.iter().map(|message| template_message(message)).collect(),
        tools: tools.filter(|tools| !tools.is_empty()),
        documents: (!template.documents.is_empty()).then(|| template.documents.clone()),
        add_generation_prompt: template.add_generation_prompt,
        continue_final_message: template.continue_final_message,
        chat_template: None,
        kwargs: template.kwargs.clone(),
        now: now(),
    };
    model.render_chat(&input)
}

/// No family that runs here looks at images, so a chat that holds one is refused. A vision family
/// would make features of them here, and a placeholder for each in the prompt.
pub(super) fn refuse_images(messages: &[Message]) -> Result<(), Failure> {
    for (m, message) in messages.iter().enumerate() {
        let Content::Parts(parts) = &message.content else { continue };
        let Some(p) = parts.iter().position(|part| matches!(part, Part::Image(_))) else {
            continue;
        };
        let message = "This model reads text only; it cannot look at images.";
        let error = ApiError::new(ErrorKind::Invalid, "images_not_supported", message);
        return Err(error.with_param(format!("messages[{m}].content[{p}]")).into());
    }
    Ok(())
}

/// Makes tokens of a plain prompt; ids are checked and taken as they are. An empty text is the
/// start of any text, where the model has a token for that. `most` as for a chat.
pub(super) fn of_prompt(
    model: &TextModel,
    prompt: Prompt,
    add_special_tokens: bool,
    most: usize,
) -> Result<Vec<u32>, Failure> {
    match prompt {
        Prompt::Tokens(ids) => check_ids(model, &ids, "prompt").map(|()| ids),
        Prompt::Text(text) => {
            check_length(model, &text, most, "prompt")?;
            let mut tokens = encode(model, &text, add_special_tokens)?;
            if tokens.is_empty() {
                tokens.push(model.bos().ok_or_else(|| empty("prompt"))?);
            }
            Ok(tokens)
        }
    }
}

/// Refuses ids that the model has no embedding for.
pub(super) fn check_ids(model: &TextModel, ids: &[u32], field: &str) -> Result<(), Failure> {
    let size = model.vocab_size();
    match ids.iter().find(|id| usize::try_from(**id).map_or(true, |id| id >= size)) {
        None => Ok(()),
        Some(id) => {
            let message =
                format!("Invalid value for '{field}': {id} is not a token of this model.");
            let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
            Err(error.with_param(field).into())
        }
    }
}

/// Refuses a text of far more than `most` tokens before all of it is made tokens of: that takes
/// seconds and a hundred times its size in memory, while others wait for their turn. Pieces by
/// themselves are a few tokens longer than as a whole, so only twice too much counts.
pub(super) fn check_length(
    model: &TextModel,
    text: &str,
    most: usize,
    field: &str,
) -> Result<(), Failure> {
    // A token has four bytes or so: hardly any text that fits is looked at twice.
    if text.len() <= most.saturating_mul(8).max(PIECE) {
        return Ok(());
    }
    let (mut rest, mut tokens) = (text, 0);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
        tokens += encode(model, piece, false)?.len();
        if tokens > most.saturating_mul(2) {
            let message = format!(
                "At most {most} tokens can be taken in here, and the text has far more. Shorten it."
            );
            let error = ApiError::new(ErrorKind::Invalid, "context_length_exceeded", message);
            return Err(error.with_param(field).into());
        }
        rest = after;
    }
    Ok(())
}

pub(super) fn encode(model: &TextModel, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
    model.encode(text, special).map_err(|error: TextError| {
        Failure::new(ErrorKind::Invalid, "invalid_value", format!("{error}."))
    })
}

fn empty(field: &str) -> Failure {
    let message = format!("Invalid value for '{field}': the prompt has no token.");
    ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(field).into()
}

/// What the authors of a template raise is meant for the caller; its other faults are ours.
fn of_template(error: &TemplateError) -> Failure {
    let message = format!("{error}");
    match error {
        TemplateError::Raised(_) | TemplateError::Input(_) => {
            let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
            error.with_param("messages").into()
        }
        TemplateError::Missing(_) => {
            let message = format!("{message}. Use /v1/completions.");
            Failure::new(ErrorKind::Invalid, "no_chat_template", message)
        }
        TemplateError::Invalid(_) | TemplateError::Exhausted(_) => {
            tracing::error!(%message, "chat template");
            Failure::new(ErrorKind::Internal, "template_error", message)
        }
    }
}

/// The text of a message: its parts are joined by line ends.
pub(super) fn said(content: &Content) -> String {
    match content {
        Content::Absent => String::new(),
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let texts = parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Image(_) => None,
            });
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

/// A message as templates know it. They were written before `developer` and after `function`,
/// so these become `system` and `tool`; parts are joined by line ends; a call's arguments become
/// the object that they spell.
fn template_message(message: &Message) -> Value {
    let role = match message.role {
        Role::Developer => Role::System,
        Role::Function => Role::Tool,
        role => role,
    };
    let content = said(&message.content);
    let mut out = Map::new();
    out.insert("role".into(), role.name().into());
    out.insert("content".into(), content.into());
    let thoughts = Thought::words(&message.thoughts);
    let optional = [
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
        ("reasoning_content", &thoughts),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            out.insert(name.into(), value.as_str().into());
        }
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let arguments = serde_json::from_str(&call.arguments)
                .ok()
                .filter(Value::is_object)
                .unwrap_or_else(|| call.arguments.as_str().into());
            let function = json!({"name": call.name, "arguments": arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        out.insert("tool_calls".into(), calls.collect());
    }
    Value::Object(out)
}

fn now() -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use text::TextFiles;

    use super::*;

    /// How an answer that was begun with this is shown to a model by a template.
    fn shown(template: &str, begun: &str) -> Result<Rendered, Failure> {
        let model = TextModel::from_bytes(TextFiles {
            tokenizer_json: include_bytes!("../../../engine/models/demo/tokenizer.json"),
            chat_template: Some(template),
            ..TextFiles::default()
        });
        let model = model.expect("a sound tokenizer");
        let turns = [Message::text(Role::User, "hello"), Message::text(Role::Assistant, begun)];
        let how = Template {
            add_generation_prompt: false,
            continue_final_message: true,
            ..Template::default()
        };
        let rendered = with_tools(&model, &turns, &[], false, &how, 1024)?;
        let shown = ending(&model, rendered, begun, &how)?;
        assert_eq!(shown.tokens, encode(&model, &shown.text, false)?);
        Ok(shown)
    }

    #[test]
    fn what_was_begun_is_shown_to_its_last_byte() {
        let plain = "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}";
        let trims = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }};{% endfor %}";
        for begun in ["hello", "hello ", "hello\n\n", "a b\t"] {
            for template in [plain, trims] {
                let text = shown(template, begun).expect("shown").text;
                assert_eq!(text, format!("[user]hello;[assistant]{begun}"));
            }
        }
        assert_eq!(shown(trims, " a ").expect("shown").text, "[user]hello;[assistant]a ");
        // Somebody else has said the same words, and its own are not shown.
        let shouts = "{% for m in messages %}{{ m.content if m.role == 'user' else \
                      m.content | upper }};{% endfor %}";
        let refused = shown(shouts, "hello").err().expect("not shown as it is");
        assert_eq!(refused.error.code.as_deref(), Some("not_continued"));
    }
}
