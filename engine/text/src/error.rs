//! What can go wrong, as two enums, because callers decide on them.
//!
//! [`TextError`] is met while a model is loaded (or a text is encoded) and names the file at
//! fault. [`TemplateError`] is met per conversation; the gateway maps [`TemplateError::Raised`]
//! and [`TemplateError::Input`] to HTTP 400 and the others to its own fault.

/// A tokenizer file that cannot be used, or a text that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file could not be read.
    #[error("{file}: {source}")]
    Read {
        /// Path as given.
        file: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file was read but its content is not usable.
    #[error("{file}: {reason}")]
    Invalid {
        /// File or GGUF key.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The GGUF vocabulary names a tokenizer kind that is not built in.
    #[error("tokenizer.ggml.model \"{found}\" is not supported; supported: {supported}")]
    UnknownKind {
        /// The name in the file.
        found: String,
        /// The names that are known, comma separated.
        supported: String,
    },
    /// The GGUF vocabulary names a splitting rule that is not built in.
    #[error("tokenizer.ggml.pre \"{found}\" is not supported; supported: {supported}")]
    UnknownPre {
        /// The name in the file.
        found: String,
        /// The names that are known, comma separated.
        supported: String,
    },
    /// The chat template does not compile.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A text could not be turned into tokens.
    #[error("cannot encode this text: {0}")]
    Encode(String),
}

impl TextError {
    pub(crate) fn invalid(file: &str, reason: impl std::fmt::Display) -> TextError {
        TextError::Invalid { file: file.to_owned(), reason: reason.to_string() }
    }
}

/// A conversation that could not be rendered, or a template that could not be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template called `raise_exception`: the conversation is not what the model's authors
    /// allow. The message is theirs and is meant for the caller.
    #[error("{0}")]
    Raised(String),
    /// The caller asked for something that cannot be done with these messages.
    #[error("{0}")]
    Input(String),
    /// The model has no chat template (or none of the asked name).
    #[error("{0}")]
    Missing(String),
    /// The template does not compile, or met a value that it cannot handle: often a message of a
    /// shape that its authors did not foresee, such as `null` for the text of a user.
    #[error("chat template: {0}")]
    Invalid(String),
    /// The template did more work, or made more text, than any honest template does.
    #[error("chat template: {0}")]
    Exhausted(String),
}
