//! `continue_final_message`: the last message stays open, so that the model goes on writing it.
//!
//! No template knows how to do that. So, as transformers does, the last message is given a mark at
//! its end, the conversation is rendered as usual, and the text is cut where the mark shows up.

use serde_json::Value;

use crate::TemplateError;

/// Ends with a space so that a template that trims messages can be told from one that does not.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Appends the mark to the last message and returns the text that it had.
pub(super) fn mark(messages: &mut [Value], generation: bool) -> Result<String, TemplateError> {
    let input = |reason: &str| TemplateError::Input(format!("continue_final_message: {reason}"));
    if generation {
        return Err(input("add_generation_prompt would begin a new message; give one of the two"));
    }
    let Some(last) = messages.last_mut() else { return Err(input("there are no messages")) };
    let text = match &mut last["content"] {
        Value::String(text) => Some(text),
        Value::Array(parts) => parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }),
        _ => None,
    };
    let Some(text) = text else { return Err(input("the last message has no text to continue")) };
    let before = text.clone();
    text.push_str(MARK);
    Ok(before)
}

/// Cuts the rendered conversation where the last message's `text` ends.
pub(super) fn cut(text: &str, mut rendered: String) -> Result<String, TemplateError> {
    let at = rendered.rfind(MARK.trim_end()).filter(|_| rendered.contains(text.trim()));
    let Some(at) = at else {
        return Err(TemplateError::Input(
            "continue_final_message: the chat template does not show the last message as it is"
                .into(),
        ));
    };
    let trimmed = !rendered[at..].starts_with(MARK);
    rendered.truncate(at);
    if trimmed {
        rendered.truncate(rendered.trim_end().len());
    }
    Ok(rendered)
}
