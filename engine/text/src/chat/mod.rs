//! Chat templates: a conversation becomes the text that the model was trained to continue.
//!
//! Templates are written for Python's Jinja as Hugging Face transformers sets it up
//! (`trim_blocks`, `lstrip_blocks`, loop controls, its own `tojson`, `raise_exception`,
//! `strftime_now`, the `generation` tag, a sandbox in which nothing can be changed). minijinja runs
//! them; the files beside this one supply what Python has and it has not. Reference: transformers
//! 5, `utils/chat_template_utils.py`; the goldens in tests/data were rendered by it.
//!
//! A template comes with the model, so it is a program by its publisher. It runs under a budget
//! of instructions, of recursion and of output. For the same reason a request may choose among
//! the model's templates by name but never bring its own source: Jinja can double a string with
//! each instruction, which no count of instructions bounds.

mod continuation;
mod filters;
mod json;
mod methods;
mod number;
mod prose;
mod strings;
mod time;

use std::fmt::Write as _;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use crate::TemplateError;
use crate::files::Template;

/// Instructions for one conversation. Real templates need some hundred per message.
const INSTRUCTIONS_MAX: u64 = 5_000_000;

/// The longest contexts are a few million tokens, at about four bytes each.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Half of minijinja's own limit: each level uses the stack of the caller's thread, whose size is
/// not ours to choose.
const RECURSION_MAX: usize = 250;

/// The template that is used if the caller names none.
const DEFAULT: &str = "default";

/// The template that some models have for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// What one conversation hands to the template.
#[derive(Debug, Clone, Default)]
pub struct ChatInput {
    /// The messages, in OpenAI's form. Templates expect the arguments of a tool call as an object,
    /// where the API carries a string: the caller parses it first.
    pub messages: Vec<Value>,
    /// Tool definitions, `{"type": "function", "function": {...}}` each.
    pub tools: Option<Vec<Value>>,
    /// Documents for retrieval, for the templates that know them.
    pub documents: Option<Vec<Value>>,
    /// End with the opening of an assistant turn.
    pub add_generation_prompt: bool,
    /// Leave the last message open, so that the model goes on writing it.
    pub continue_final_message: bool,
    /// Name of one of the model's templates. Not a source: see the module's description.
    pub chat_template: Option<String>,
    /// Further variables (`chat_template_kwargs`). The fields above win over equal names.
    pub kwargs: Map<String, Value>,
    /// Seconds since 1970, already moved to the time zone that the template should print. Without
    /// it `strftime_now` is undefined, which templates that use it test for.
    pub now: Option<i64>,
}

/// The compiled templates of one model.
#[derive(Debug)]
pub(crate) struct Templates {
    environment: Environment<'static>,
    /// `bos_token` and the like.
    special: Map<String, Value>,
    /// Name, and why it cannot be used, if so.
    names: Vec<(String, Option<TemplateError>)>,
    sources: Vec<String>,
}

impl Templates {
    pub(crate) fn new(special: Map<String, Value>, sources: &[Template]) -> Templates {
        let mut templates = Templates {
            environment: environment(),
            special,
            names: Vec::new(),
            sources: Vec::new(),
        };
        for Template { name, source, file } in sources {
            let error = templates.add(name, source).err().map(|error| match error {
                TemplateError::Invalid(reason) => {
                    TemplateError::Invalid(format!("{file}: {reason}"))
                }
                other => other,
            });
            templates.names.push((name.clone(), error));
        }
        templates
    }

    /// One template instead of all.
    pub(crate) fn replace(&mut self, source: &str) -> Result<(), TemplateError> {
        let mut next = Templates::new(std::mem::take(&mut self.special), &[]);
        let added = next.add(DEFAULT, source);
        if added.is_ok() {
            next.names.push((DEFAULT.to_owned(), None));
            *self = next;
        } else {
            self.special = next.special;
        }
        added
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Names and sources, in their order, and the variables of special tokens.
    pub(crate) fn parts(&self) -> (impl Iterator<Item = (&str, &str)>, &Map<String, Value>) {
        let names = self.names.iter().map(|(name, _)| name.as_str());
        (names.zip(self.sources.iter().map(String::as_str)), &self.special)
    }

    pub(crate) fn sources(&self) -> Vec<&str> {
        self.sources.iter().map(String::as_str).collect()
    }

    pub(crate) fn error(&self) -> Option<&TemplateError> {
        self.names.iter().find_map(|(_, error)| error.as_ref())
    }

    pub(crate) fn render(&self, chat: &ChatInput) -> Result<String, TemplateError> {
        let template = self.resolve(chat)?;
        let mut messages = chat.messages.clone();
        check_messages(&messages)?;
        messages.iter_mut().for_each(alias_reasoning);
        if !chat.continue_final_message {
            return self.run(template, chat, &messages);
        }
        let open = continuation::mark(&mut messages, chat.add_generation_prompt)?;
        continuation::cut(&open, self.run(template, chat, &messages)?)
    }

    fn add(&mut self, name: &str, source: &str) -> Result<(), TemplateError> {
        let source = without_generation_tags(source);
        self.sources.push(source.clone());
        self.environment.add_template_owned(name.to_owned(), source).map_err(|e| explain(&e))
    }

    fn resolve(&self, chat: &ChatInput) -> Result<&str, TemplateError> {
        let has = |wanted: &str| self.names.iter().any(|(name, _)| name == wanted);
        let wanted = match &chat.chat_template {
            Some(name) => name.as_str(),
            None if chat.tools.is_some() && has(TOOL_USE) => TOOL_USE,
            None => DEFAULT,
        };
        if let Some((name, error)) = self.names.iter().find(|(name, _)| name == wanted) {
            return error.clone().map_or(Ok(name), Err);
        }
        let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
        Err(if wanted.contains("{{") || wanted.contains("{%") {
            TemplateError::Input(
                "chat_template: a request may name one of the model's templates, \
                 not bring the source of one"
                    .into(),
            )
        } else if names.is_empty() {
            TemplateError::Missing("this model has no chat template".into())
        } else {
            let names = names.join(", ");
            TemplateError::Missing(format!("no chat template \"{wanted}\"; there is: {names}"))
        })
    }

    fn run(
        &self,
        name: &str,
        chat: &ChatInput,
        messages: &[Value],
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(name).map_err(|e| explain(&e))?;
        let mut out = Bounded::default();
        match template.render_captured_to(self.variables(chat, messages), &mut out) {
            Ok(_) => {}
            Err(_) if out.full => return Err(exhausted("more than 64 MiB of text")),
            Err(error) => return Err(explain(&error)),
        }
        String::from_utf8(out.bytes).map_err(|e| TemplateError::Invalid(e.to_string()))
    }

    fn variables(&self, chat: &ChatInput, messages: &[Value]) -> Jinja {
        let optional = |list: &Option<Vec<Value>>| {
            list.as_ref().map_or(Jinja::from(()), |list| list_value(list))
        };
        let given = self.special.iter().chain(&chat.kwargs);
        let given = given.map(|(name, value)| (name.clone(), jinja(value)));
        let fixed = [
            ("messages", list_value(messages)),
            ("tools", optional(&chat.tools)),
            ("documents", optional(&chat.documents)),
            ("add_generation_prompt", chat.add_generation_prompt.into()),
        ];
        let now = chat.now.map(|now| {
            let format = move |format: &str| time::strftime(format, now);
            ("strftime_now", Jinja::from_function(format))
        });
        let fixed = fixed.into_iter().chain(now).map(|(name, value)| (name.to_owned(), value));
        Jinja::from_pairs(given.chain(fixed))
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_debug(false);
    environment.set_fuel(Some(INSTRUCTIONS_MAX));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(number::format);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", number::string);
    filters::add_to(&mut environment);
    prose::add_to(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment
}

/// JSON as the template sees it. Keys keep their order.
fn jinja(json: &Value) -> Jinja {
    match json {
        Value::Null => Jinja::from(()),
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => value.into(),
            (_, Some(value), _) => value.into(),
            (.., value) => value.map_or(Jinja::from(()), Jinja::from),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => list_value(list),
        Value::Object(map) => {
            Jinja::from_pairs(map.iter().map(|(key, value)| (key.clone(), jinja(value))))
        }
    }
}

fn list_value(list: &[Value]) -> Jinja {
    list.iter().map(jinja).collect()
}

/// What `raise_exception` leaves in the chain of an error's causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

#[expect(clippy::needless_pass_by_value, reason = "the signature of a template's function")]
fn raise_exception(message: Jinja, _: Kwargs) -> Result<Jinja, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Finds the cause that the caller decides on.
fn explain(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        if let Some(error) = current.downcast_ref::<Error>() {
            if error.kind() == ErrorKind::OutOfFuel {
                return exhausted("it does not come to an end");
            }
            if error.detail() == Some("recursion limit exceeded") {
                return exhausted("it calls itself too deeply");
            }
        }
        cause = current.source();
    }
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        let _ = write!(message, ": {current}");
        cause = current.source();
    }
    TemplateError::Invalid(message)
}

fn exhausted(reason: &str) -> TemplateError {
    TemplateError::Exhausted(reason.to_owned())
}

fn check_messages(messages: &[Value]) -> Result<(), TemplateError> {
    match messages.iter().position(|message| !message.is_object()) {
        Some(at) => Err(TemplateError::Input(format!("messages[{at}] is not an object"))),
        None => Ok(()),
    }
}

/// Reasoning has had three names; templates read the first or (gpt-oss) the second. As
/// transformers does, the one that is given fills the others.
fn alias_reasoning(message: &mut Value) {
    let Some(fields) = message.as_object_mut() else { return };
    let given = ["reasoning_content", "thinking", "reasoning"]
        .into_iter()
        .find_map(|name| fields.get(name).filter(|value| !value.is_null()).cloned());
    if let Some(reasoning) = given {
        if !fields.contains_key("thinking") {
            fields.insert("thinking".into(), reasoning.clone());
        }
        fields.insert("reasoning_content".into(), reasoning);
    }
}

/// transformers' `{% generation %}` marks what a model learns to write. For rendering it is a
/// block with a scope of its own, which `{% with %}` is too.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let inside = at + 2;
        out.push_str(&rest[..inside]);
        rest = &rest[inside..];
        let name = rest.trim_start_matches(['-', '+']).trim_start();
        for (tag, instead) in [("endgeneration", "endwith"), ("generation", "with")] {
            let Some(after) = name.strip_prefix(tag) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&rest[..rest.len() - name.len()]);
                out.push_str(instead);
                rest = after;
            }
            break;
        }
    }
    out.push_str(rest);
    out
}

/// Output that ends the rendering when it grows beyond any context.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for &mut Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
