//! What the answers of a request look like: which calls may or must come, what their text is held
//! to, how much is thought before. Makes of it what the template is told, the plan of a grammar
//! and the manner of reading.

use std::sync::Arc;

use serde_json::{Map, Value};
use text::TextModel;
use text::answer::Reading;
use text::grammar::schema::SchemaError;
use text::grammar::{GrammarError, Plan};
use text::grammar::{ebnf, lark};
use text::tools::{Content, Format, Layout, Offer, Switch, Thoughts, Wanted, WriteError};
use wire::{
    ApiError, ChatRequest, Effort, ErrorKind, Form, Reasoning, Structured, Tool, ToolChoice,
};

use super::error::Failure;
use super::voice::Manner;
use crate::backend::Model;
use crate::backend::answering::Answering;

/// Tokens of thoughts for an effort, where the family knows none: about what hosted models take.
const BUDGETS: [(Effort, u32); 3] =
    [(Effort::Minimal, 256), (Effort::Low, 1024), (Effort::Medium, 8192)];

/// A grammar to compile, and the field that its errors are about.
pub(super) struct Held {
    pub(super) plan: Plan,
    pub(super) field: String,
}

/// A chat's shape.
pub(super) struct Shape<'a> {
    request: &'a ChatRequest,
    answering: &'a Answering,
    /// How calls would be written.
    format: &'static Format,
    /// Tools that may be called.
    callable: Vec<&'a Tool>,
    forced: bool,
    parallel: bool,
    budget: Option<u32>,
}

impl<'a> Shape<'a> {
    /// Of this request; `kwargs` are the template's variables, to which what steers the thoughts
    /// is added. `soft`: where the model cannot think as it is asked to, it thinks as it can.
    pub(super) fn of(
        request: &'a ChatRequest,
        model: &'a Model,
        kwargs: &mut Map<String, Value>,
        soft: bool,
    ) -> Result<Self, Failure> {
        let answering = &*model.answering;
        let (names, forced): (Option<Vec<&str>>, bool) = match &request.tool_choice {
            ToolChoice::Auto => (None, false),
            ToolChoice::None => (Some(Vec::new()), false),
            ToolChoice::Required => (None, true),
            ToolChoice::Named(name) => (Some(vec![name]), true),
            ToolChoice::Allowed { names, required } => {
                (Some(names.iter().map(String::as_str).collect()), *required)
            }
        };
        let may = |tool: &&Tool| names.as_ref().is_none_or(|all| all.contains(&&*tool.name));
        let one = matches!(request.tool_choice, ToolChoice::Named(_));
        Ok(Self {
            request,
            answering,
            format: answering.format.unwrap_or_else(Format::generic),
            callable: request.tools.iter().filter(may).collect(),
            forced,
            parallel: request.parallel_tool_calls && !one,
            budget: match steer(answering, request.reasoning, kwargs) {
                // A wish of the client's making, not of a person's: it goes as far as the model.
                Err(_) if soft => None,
                budget => budget?,
            },
        })
    }

    /// The grammar that the answer is held to, if to any. `open`: the prompt ends among thoughts.
    pub(super) fn held(&self, text: &TextModel, open: bool) -> Result<Option<Held>, Failure> {
        let structured = self.request.decoding.structured.as_ref();
        if self.callable.is_empty() && structured.is_none() && self.budget.is_none() {
            return Ok(None);
        }
        let held = self.forced || structured.is_some();
        let thoughts = self.answering.thoughts.as_ref();
        let thoughts = thoughts.filter(|thoughts| !held || open || self.may_think(thoughts));
        let plan = |strict: fn(&Tool) -> bool| {
            let offer = |tool: &&'a Tool| Offer {
                name: &tool.name,
                parameters: tool.parameters(),
                strict: strict(tool),
            };
            let tools: Vec<Offer<'_>> = self.callable.iter().map(offer).collect();
            let wanted = Wanted {
                tools: &tools,
                forced: self.forced,
                parallel: self.parallel,
                content: structured.map(content).transpose()?,
                budget: self.budget,
            };
            Ok::<_, Failure>(text::tools::plan(text, self.format, thoughts, open, &wanted))
        };
        // What nobody has called strict is held to its schema only where that can be done.
        let plan = match plan(|tool| tool.strict)? {
            Err(WriteError::Schema { tool, .. }) if !self.callable[tool].says_strict() => {
                plan(Tool::says_strict)?
            }
            plan => plan,
        };
        let plan = plan.map_err(|error| self.refuse(error))?;
        let field = match structured {
            Some(structured) => structured.field.clone(),
            None if self.callable.is_empty() => "thinking_token_budget".to_owned(),
            None => "tools".to_owned(),
        };
        Ok(Some(Held { plan, field }))
    }

    /// Whether thoughts may be opened before an answer that is held from its start. A model that
    /// would not think here by itself takes the opening for the likeliest word that is left, and
    /// does not find out again.
    fn may_think(&self, thoughts: &Thoughts) -> bool {
        let asked = self.request.reasoning;
        let by_itself = thoughts.switch.is_some() && asked.effort != Some(Effort::None);
        self.budget != Some(0) && (by_itself || asked.effort.is_some() || self.budget.is_some())
    }

    /// How the answer is read. `None`: it is text and nothing else.
    pub(super) fn manner(&self, text: &TextModel, open: bool) -> Option<Manner> {
        let channels = self.format.layout == Layout::Channels && self.answering.format.is_some();
        let calls = !self.callable.is_empty();
        if !calls && !channels && self.answering.thoughts.is_none() {
            return None;
        }
        let tool = |tool: &&Tool| (tool.name.clone(), tool.parameters().cloned());
        let reading = Reading::new(
            text,
            (calls || channels).then_some(self.format),
            self.callable.iter().map(tool).collect(),
            self.answering.thoughts.clone(),
            open,
            !self.request.decoding.skip_special_tokens,
        );
        Some(Manner {
            reading: Arc::new(reading),
            show_thoughts: self.request.reasoning.include,
            ids: self.format.ids,
            calls_before: self.request.messages.iter().map(|m| m.tool_calls.len()).sum(),
        })
    }

    fn refuse(&self, error: WriteError) -> Failure {
        let structured = self.request.decoding.structured.as_ref();
        let field = structured.map_or("tools", |structured| &structured.field);
        let of_tool = |tool: usize| {
            let name = self.callable.get(tool).map(|tool| &tool.name);
            let at = self.request.tools.iter().position(|tool| Some(&tool.name) == name);
            format!("tools[{}].function.parameters", at.unwrap_or_default())
        };
        of_write(field, of_tool, error)
    }
}

/// The grammar of a plain completion.
pub(super) fn of_completion(text: &TextModel, asked: &Structured) -> Result<Held, Failure> {
    let wanted = Wanted {
        tools: &[],
        forced: false,
        parallel: false,
        content: Some(content(asked)?),
        budget: None,
    };
    let plan = text::tools::plan(text, Format::generic(), None, false, &wanted);
    // There are no tools whose schema could be wrong.
    let plan = plan.map_err(|error| of_write(&asked.field, |_| asked.field.clone(), error))?;
    Ok(Held { plan, field: asked.field.clone() })
}

fn content(asked: &Structured) -> Result<Content, Failure> {
    Ok(match &asked.form {
        Form::JsonObject => Content::Expression(lark::json_object()),
        Form::JsonSchema(schema) => {
            let json = lark::json(schema).map_err(|error| of_schema(&asked.field, &error))?;
            Content::Expression(json)
        }
        Form::Regex(pattern) => Content::Grammar(lark::regex(pattern)),
        Form::Choice(texts) => Content::Grammar(lark::choice(texts)),
        Form::Grammar(source) if ebnf::is_ebnf(source) => {
            let lark = ebnf::to_lark(source).map_err(|why| invalid(&asked.field, &why))?;
            Content::Grammar(lark)
        }
        Form::Grammar(source) => Content::Grammar(source.clone()),
        Form::Tags(tags, triggers) => Content::Tags {
            tags: tags
                .iter()
                .map(|tag| (tag.begin.clone(), tag.schema.clone(), tag.end.clone()))
                .collect(),
            triggers: triggers.clone(),
        },
    })
}

/// What the caller says about thoughts, in the model's terms: variables of its template, and a
/// bound.
fn steer(
    answering: &Answering,
    asked: Reasoning,
    kwargs: &mut Map<String, Value>,
) -> Result<Option<u32>, Failure> {
    let Some(effort) = asked.effort.or_else(|| asked.budget.map(|_| Effort::High)) else {
        return Ok(None);
    };
    let refuse = |field: &str, why: &str| {
        let message = format!("'{field}' cannot be honoured: {why}.");
        let error = ApiError::new(ErrorKind::Invalid, "unsupported_value", message);
        Err(error.with_param(field).into())
    };
    let field = if asked.effort.is_some() { "reasoning_effort" } else { "thinking_token_budget" };
    let Some(thoughts) = &answering.thoughts else {
        let quiet = effort == Effort::None || asked.budget == Some(0);
        return if quiet { Ok(None) } else { refuse(field, "this model does not think") };
    };
    let mut set = |name: &str, value: Value| {
        // What the caller sends in 'chat_template_kwargs' is more particular.
        kwargs.entry(name).or_insert(value);
    };
    let budget = BUDGETS.iter().find(|(known, _)| *known == effort).map(|(_, most)| *most);
    let budget = match thoughts.switch {
        Some(Switch::Effort(_)) if asked.effort.is_none() => None,
        Some(Switch::Effort(name)) => {
            let level = match effort {
                Effort::None => return refuse(field, "this model always thinks; use 'low'"),
                Effort::Minimal | Effort::Low => "low",
                Effort::Medium => "medium",
                Effort::High | Effort::XHigh | Effort::Max => "high",
            };
            set(name, level.into());
            None
        }
        Some(Switch::Flag(name)) => {
            set(name, (effort != Effort::None).into());
            budget
        }
        None if effort == Effort::None => Some(0),
        None => budget,
    };
    Ok(asked.budget.or(budget))
}

/// A plan that cannot be had; `of_tool` names the field of a tool's parameters.
fn of_write(field: &str, of_tool: impl Fn(usize) -> String, error: WriteError) -> Failure {
    match error {
        WriteError::Schema { tool, error } => of_schema(&of_tool(tool), &error),
        WriteError::TagSchema { tag, error } => {
            of_schema(&format!("{field}.structures[{tag}].schema"), &error)
        }
        WriteError::Invalid(why) => invalid(field, &why),
    }
}

/// A schema that cannot be held to, by its place in the request.
fn of_schema(field: &str, error: &SchemaError) -> Failure {
    let param = match (field, &*error.path) {
        (field, "") => field.to_owned(),
        (field, path) => format!("{field}.{path}"),
    };
    let message = format!("Invalid value for '{field}': {error}.");
    ApiError::new(ErrorKind::Invalid, "invalid_schema", message).with_param(param).into()
}

/// A grammar that cannot be had.
pub(super) fn of_grammar(field: &str, error: &GrammarError) -> Failure {
    match error {
        GrammarError::Invalid(why) => invalid(field, why),
        GrammarError::Model(_) => {
            let message = format!("'{field}' cannot be honoured: {error}.");
            let error = ApiError::new(ErrorKind::Invalid, "unsupported_value", message);
            error.with_param(field).into()
        }
    }
}

fn invalid(field: &str, why: &str) -> Failure {
    let message = format!("Invalid value for '{field}': {why}.");
    ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(field).into()
}
