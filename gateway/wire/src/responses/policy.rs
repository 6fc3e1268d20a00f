//! What becomes of every field that a request of this dialect may carry, its items and its tools
//! among them. Source: OpenAI's API reference and the types of its packages.

use crate::openai::policy::Rule;

use Rule::{Advisory, AdvisoryText, Honoured, Only, Refused};

type Table = &'static [(&'static str, Rule)];

const NEVER_CUT: &str = "prompts are never cut; send a shorter one";
const SUMMARY: &str = "expected 'auto', 'concise' or 'detailed'";
const SUMMARIES: [&str; 3] = ["\"auto\"", "\"concise\"", "\"detailed\""];
const CALLER_RUNS: &str = "the caller runs all calls";

/// Of `POST /v1/responses`.
pub(super) const CREATE: Table = &[
    ("model", Honoured),
    ("input", Honoured),
    ("instructions", Honoured),
    ("previous_response_id", Honoured),
    ("conversation", Honoured),
    ("store", Honoured),
    ("background", Honoured),
    ("stream", Honoured),
    ("stream_options", Honoured),
    ("include", Honoured),
    ("tools", Honoured),
    ("tool_choice", Honoured),
    ("parallel_tool_calls", Honoured),
    // It bounds the calls that a server runs by itself: here there are none.
    ("max_tool_calls", Honoured),
    ("max_output_tokens", Honoured),
    ("temperature", Honoured),
    ("top_p", Honoured),
    ("top_logprobs", Honoured),
    ("reasoning", Honoured),
    ("text", Honoured),
    ("metadata", Honoured),
    ("user", AdvisoryText),
    ("safety_identifier", AdvisoryText),
    ("prompt_cache_key", AdvisoryText),
    ("prompt_cache_retention", Advisory),
    ("prompt_cache_options", Advisory),
    // Codex: which of its turns this is.
    ("client_metadata", Advisory),
    ("service_tier", Honoured),
    ("truncation", Honoured),
    ("context_management", Only(&["[]"], NEVER_CUT)),
    ("prompt", Refused("prompts are not kept here; send 'instructions' and 'input'")),
    ("moderation", Refused("moderation is not available")),
    ("background_options", Refused("there is one class of background answers")),
    ("access_programs", Refused("they are private to another server")),
    ("image", Refused("images are read as they are")),
    ("messages", Refused("use 'input'")),
    ("max_tokens", Refused("use 'max_output_tokens'")),
    ("max_completion_tokens", Refused("use 'max_output_tokens'")),
    ("response_format", Refused("use 'text.format'")),
    ("reasoning_effort", Refused("use 'reasoning.effort'")),
];

/// Of `POST /v1/responses/input_tokens`.
pub(super) const COUNT: Table = &[
    ("model", Honoured),
    ("input", Honoured),
    ("instructions", Honoured),
    ("previous_response_id", Honoured),
    ("conversation", Honoured),
    ("tools", Honoured),
    ("tool_choice", Honoured),
    ("parallel_tool_calls", Honoured),
    ("reasoning", Honoured),
    ("text", Honoured),
    // All of it is counted.
    ("truncation", Honoured),
    ("personality", Refused("say it in 'instructions'")),
];

pub(super) const REASONING: Table = &[
    ("effort", Honoured),
    // The thoughts are their own summary, whole: it is as detailed, and no more concise.
    ("summary", Only(&SUMMARIES, SUMMARY)),
    ("generate_summary", Only(&SUMMARIES, SUMMARY)),
    ("context", Only(&["\"auto\""], "the model's template says which thoughts it reads again")),
    ("mode", Only(&["\"standard\""], "there is one mode, \"standard\"")),
];

pub(super) const TEXT: Table = &[("format", Honoured), ("verbosity", Honoured)];

pub(super) const FORMAT: Table = &[("type", Honoured)];

pub(super) const SCHEMA: Table = &[
    ("type", Honoured),
    ("name", Honoured),
    ("description", Honoured),
    ("schema", Honoured),
    // Strict or not: the answer is valid for the schema either way.
    ("strict", Advisory),
];

/// Its absence changes no answer: it pads events against observers of sizes.
pub(super) const STREAM: Table = &[("include_obfuscation", Advisory)];

/// Kinds of output that tools of OpenAI's own servers make: nothing to include here, so nothing is
/// left out.
pub(super) const INCLUDES_NOTHING: [&str; 6] = [
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
];

pub(super) const FUNCTION: Table = &[
    ("type", Honoured),
    ("name", Honoured),
    ("description", Honoured),
    ("parameters", Honoured),
    ("strict", Honoured),
    ("cache_control", Advisory),
    ("async", Only(&["false"], "each call has its result before the next turn")),
    ("defer_loading", Only(&["false"], "all tools are on offer at once")),
    ("allowed_callers", Only(&["[\"direct\"]"], CALLER_RUNS)),
    ("output_schema", Refused("say it in 'description'")),
];

pub(super) const CUSTOM: Table = &[
    ("type", Honoured),
    ("name", Honoured),
    ("description", Honoured),
    ("format", Honoured),
    ("cache_control", Advisory),
    ("async", Only(&["false"], "each call has its result before the next turn")),
    ("defer_loading", Only(&["false"], "all tools are on offer at once")),
    ("allowed_callers", Only(&["[\"direct\"]"], CALLER_RUNS)),
];

pub(super) const NAMESPACE: Table =
    &[("type", Honoured), ("name", Honoured), ("description", Honoured), ("tools", Honoured)];

/// Items: beside what is said, an id, and what their sender noted about them.
pub(super) const MESSAGE: Table = &[
    ("type", Honoured),
    ("id", Honoured),
    ("role", Honoured),
    ("content", Honoured),
    ("status", AdvisoryText),
    ("phase", AdvisoryText),
];

pub(super) const CALL: Table = &[
    ("type", Honoured),
    ("id", Honoured),
    ("call_id", Honoured),
    ("name", Honoured),
    ("namespace", Honoured),
    ("arguments", Honoured),
    ("status", AdvisoryText),
    ("created_by", AdvisoryText),
    ("async", Only(&["false"], "each call has its result before the next turn")),
    ("caller", Only(&["{\"type\":\"direct\"}"], CALLER_RUNS)),
];

pub(super) const CUSTOM_CALL: Table = &[
    ("type", Honoured),
    ("id", Honoured),
    ("call_id", Honoured),
    ("name", Honoured),
    ("namespace", Honoured),
    ("input", Honoured),
    ("status", AdvisoryText),
    ("created_by", AdvisoryText),
    ("async", Only(&["false"], "each call has its result before the next turn")),
    ("caller", Only(&["{\"type\":\"direct\"}"], CALLER_RUNS)),
];

pub(super) const CALL_OUTPUT: Table = &[
    ("type", Honoured),
    ("id", Honoured),
    ("call_id", Honoured),
    ("output", Honoured),
    ("name", AdvisoryText),
    ("namespace", AdvisoryText),
    ("status", AdvisoryText),
    ("created_by", AdvisoryText),
    ("caller", Only(&["{\"type\":\"direct\"}"], CALLER_RUNS)),
];

pub(super) const THOUGHTS: Table = &[
    ("type", Honoured),
    ("id", Honoured),
    ("summary", Honoured),
    ("content", Honoured),
    ("encrypted_content", Honoured),
    ("status", AdvisoryText),
];

/// Parts of an item.
pub(super) const WORDS: Table = &[
    ("type", Honoured),
    ("text", Honoured),
    ("annotations", Advisory),
    ("logprobs", Advisory),
    ("prompt_cache_breakpoint", Advisory),
    ("cache_control", Advisory),
];

pub(super) const REFUSAL: Table = &[("type", Honoured), ("refusal", Honoured)];

pub(super) const IMAGE: Table = &[
    ("type", Honoured),
    ("image_url", Honoured),
    ("detail", Honoured),
    ("file_id", Refused("files are not kept here; send the image in 'image_url'")),
    ("prompt_cache_breakpoint", Advisory),
    ("cache_control", Advisory),
];

/// Items of OpenAI's own tools and servers: known, and of no use here.
pub(super) const FOREIGN_ITEMS: [&str; 26] = [
    "file_search_call",
    "web_search_call",
    "computer_call",
    "computer_call_output",
    "image_generation_call",
    "code_interpreter_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "configuration_update",
    "program",
    "program_output",
    "compaction",
    "compaction_summary",
    "compaction_trigger",
    "exec",
];
