//! What becomes of every field that a request of this dialect may carry; see
//! [`crate::openai::policy`] for the rules. A field in no table is unknown and refused with the
//! nearest name.

use crate::openai::policy::Rule::{self, Advisory, Honoured, Only, Refused};

const NO_CODE: &str = "code is not run here";
const NO_FILES: &str = "files are not stored here; send the image itself";
const NO_CITATIONS: &str = "answers do not cite";
const OWN_ROUTES: &str = "where else a request may go is the operator's to say";
const NO_THREADS: &str = "conversations are not kept; send all messages";

/// Fields of a request.
pub const REQUEST: &[(&str, Rule)] = &[
    ("model", Honoured),
    ("messages", Honoured),
    ("max_tokens", Honoured),
    ("system", Honoured),
    ("temperature", Honoured),
    ("top_p", Honoured),
    ("top_k", Honoured),
    ("stop_sequences", Honoured),
    ("stream", Honoured),
    ("tools", Honoured),
    ("tool_choice", Honoured),
    ("thinking", Honoured),
    ("output_config", Honoured),
    ("output_format", Honoured),
    ("metadata", Honoured),
    ("context_management", Honoured),
    ("cache_control", Advisory),
    ("service_tier", Only(&["\"auto\"", "\"standard_only\""], "there is one service tier")),
    ("inference_geo", Only(&["\"global\""], "this server computes where it stands")),
    ("speed", Only(&["\"standard\""], "there is one speed")),
    ("mcp_servers", Only(&["[]"], "tools of MCP servers are called by the client; use 'tools'")),
    ("fallbacks", Only(&["[]"], OWN_ROUTES)),
    ("fallback_credit_token", Refused(OWN_ROUTES)),
    (
        "diagnostics",
        Only(&["{}", "{\"previous_message_id\":null}"], "earlier answers are not kept"),
    ),
    ("container", Refused(NO_CODE)),
    ("compaction", Refused(NO_THREADS)),
    ("thread", Refused(NO_THREADS)),
    ("billing_policy", Refused("who pays is said by the key")),
];

/// Fields of `metadata`.
pub const METADATA: &[(&str, Rule)] = &[("user_id", Honoured)];

/// Fields of a message.
pub const MESSAGE: &[(&str, Rule)] =
    &[("role", Honoured), ("content", Honoured), ("cache_control", Advisory)];

/// Fields of a text.
pub const TEXT: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("text", Honoured),
    ("cache_control", Advisory),
    ("citations", Only(&["[]"], NO_CITATIONS)),
];

/// Fields of an image.
pub const IMAGE: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("source", Honoured),
    ("cache_control", Advisory),
    ("transformations", Only(&["{}"], "images are seen as they were sent")),
];

/// Fields of an image's source.
pub const SOURCE: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("media_type", Honoured),
    ("data", Honoured),
    ("url", Honoured),
    ("file_id", Refused(NO_FILES)),
];

/// Fields of a document.
pub const DOCUMENT: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("source", Honoured),
    ("title", Honoured),
    ("context", Honoured),
    ("cache_control", Advisory),
    ("citations", Only(&["{}", "{\"enabled\":false}"], NO_CITATIONS)),
];

/// Fields of thoughts.
pub const THINKING: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("thinking", Honoured),
    ("signature", Honoured),
    ("data", Honoured),
    ("cache_control", Advisory),
];

/// Fields of a call.
pub const TOOL_USE: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("id", Honoured),
    ("name", Honoured),
    ("input", Honoured),
    ("cache_control", Advisory),
    ("caller", Only(&["{\"type\":\"direct\"}"], NO_CODE)),
    ("toolset_name", Refused("toolsets are not offered here")),
];

/// Fields of a call's result.
pub const TOOL_RESULT: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("tool_use_id", Honoured),
    ("content", Honoured),
    ("is_error", Honoured),
    ("cache_control", Advisory),
    ("toolset_name", Refused("toolsets are not offered here")),
];

/// Fields of a tool.
pub const TOOL: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("name", Honoured),
    ("description", Honoured),
    ("input_schema", Honoured),
    ("strict", Honoured),
    ("cache_control", Advisory),
    ("eager_input_streaming", Only(&["true"], "arguments are streamed as they are made")),
    ("defer_loading", Only(&["false"], "all tools are shown to the model")),
    ("input_examples", Only(&["[]"], "put them into 'description'")),
    ("allowed_callers", Only(&["[\"direct\"]"], NO_CODE)),
];

/// Fields of `tool_choice`.
pub const TOOL_CHOICE: &[(&str, Rule)] =
    &[("type", Honoured), ("name", Honoured), ("disable_parallel_tool_use", Honoured)];

/// Fields of `thinking`.
pub const THINKING_CONFIG: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("budget_tokens", Honoured),
    ("display", Honoured),
    ("block_binding", Only(&["{}"], "thoughts are not bound to a conversation here")),
];

/// Fields of `output_config`.
pub const OUTPUT_CONFIG: &[(&str, Rule)] = &[
    ("effort", Honoured),
    ("format", Honoured),
    ("task_budget", Refused("use 'max_tokens'; budgets over many requests are the operator's")),
];

/// Fields of an edit of `context_management`.
pub const EDIT: &[(&str, Rule)] = &[
    ("type", Honoured),
    ("keep", Only(&["\"all\"", "{\"type\":\"all\"}"], "the conversation is read as it was sent")),
];
