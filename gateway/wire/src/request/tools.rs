//! Tools on offer, which of them may or must be called, and calls of earlier turns.

use serde_json::Value;

/// A tool on offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Name of its function; no other tool of the request has it.
    pub name: String,
    /// The arguments of a call must be valid for [`Tool::parameters`]: its caller says so, or its
    /// caller's dialect where nothing is said.
    pub strict: bool,
    /// The whole tool in OpenAI's shape, as it was written and in its key order: templates print
    /// it.
    pub value: Value,
}

impl Tool {
    /// The JSON Schema of the arguments, an object; `None`: the function takes none.
    #[must_use]
    pub fn parameters(&self) -> Option<&Value> {
        self.value.get("function")?.get("parameters").filter(|schema| !schema.is_null())
    }

    /// Its caller says itself that it is strict. One that is strict unsaid is held to its schema
    /// where that can be done, and nobody is refused where it cannot. Providers that do not hold
    /// tools to their schemas unsaid have models that refuse the word.
    #[must_use]
    pub fn says_strict(&self) -> bool {
        self.value.pointer("/function/strict").is_some_and(|said| *said == Value::Bool(true))
    }
}

/// Which tools may or must be called. Its names are those of tools of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call is made.
    None,
    /// At least one call is made; the model decides of which tool.
    Required,
    /// This tool is called.
    Named(String),
    /// Only these tools may be called, at least one name.
    Allowed {
        /// Names of the tools; the same one may stand there twice.
        names: Vec<String>,
        /// At least one call is made.
        required: bool,
    },
}

/// A call that the model made in an earlier turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The call's id, which the tool's result repeats.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Its arguments as the JSON text that the model wrote (possibly not valid JSON).
    pub arguments: String,
}

impl ToolChoice {
    /// At least one call is made.
    pub(crate) fn forces(&self) -> bool {
        matches!(self, Self::Required | Self::Named(_) | Self::Allowed { required: true, .. })
    }
}
