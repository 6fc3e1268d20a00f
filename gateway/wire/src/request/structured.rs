//! The shape that an answer is held to. Whether a schema, a pattern or a grammar can be enforced
//! is for the compiler of grammars to say; here they are only data.

use serde_json::Value;

/// A shape, and where the request says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Structured {
    /// The shape.
    pub form: Form,
    /// Path of the field that holds it, for errors: `response_format.json_schema.schema`,
    /// `structured_outputs.regex`, `guided_json`. Of [`Form::Tags`] the object with their lists:
    /// `response_format` has the first tag's schema at `response_format.structures[0].schema`.
    pub field: String,
    /// The caller's name for a schema of `response_format`.
    pub name: Option<String>,
    /// What the caller says about that schema, meant for the model.
    pub description: Option<String>,
    /// Whether the caller wants OpenAI's strict adherence. `None`: its dialect has no such word,
    /// and holds every answer to its schema.
    pub strict: Option<bool>,
}

/// What the answer's text must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid for this JSON Schema, an object.
    JsonSchema(Value),
    /// A match of this pattern as a whole. Not empty.
    Regex(String),
    /// One of these texts, at least one.
    Choice(Vec<String>),
    /// A text of this grammar, Lark or EBNF. Not empty.
    Grammar(String),
    /// Free text, but where a trigger appears in it, one of the tags that begin with that trigger
    /// follows. Each tag begins with exactly one trigger, each trigger begins a tag.
    Tags(Vec<Tag>, Vec<String>),
}

/// JSON between two marks.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// The mark in front. Not empty.
    pub begin: String,
    /// The JSON Schema of what stands between, an object.
    pub schema: Value,
    /// The mark behind.
    pub end: String,
}
