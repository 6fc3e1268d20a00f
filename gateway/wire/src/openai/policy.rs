//! What becomes of every field that a request may carry: honoured, accepted because it cannot
//! change the answer, or refused by name. A field in no table is unknown and refused with the
//! nearest name. These tables are the API's reference; nothing is silently ignored.

use serde_json::{Map, Value};

use crate::fields::{Fault, Fields, Parsed, unknown};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Parsed and honoured.
    Honoured,
    /// A text for the caller's own books: checked for type, no effect on the answer.
    AdvisoryText,
    /// As `AdvisoryText`, with any value.
    Advisory,
    /// Only these values (as JSON text) are honoured: they say what happens anyway.
    Only(&'static [&'static str], &'static str),
    /// Cannot be honoured; the text says why or what to use.
    Refused(&'static str),
}

use Rule::{Advisory, AdvisoryText, Honoured, Only, Refused};

const ONE_BACKEND: &str = "there is one backend, and none to fall back to";
const BLANKS: &str = "white space in JSON is the server's, and bounded";
const OTHER_SHAPE: &str = "use 'structured_outputs'";
const NO_AUDIO: &str = "this server makes text only";
const NO_PROCESSOR: &str = "code sent by a client is never run";
const TEXTS_ONLY: &str = "this server reads text only";
const BACKENDS: &[&str] = &["\"auto\"", "\"guidance\""];
const AS_TRAINED: &str = "vectors and scores come as the model's own files say";

/// Fields that chat and plain completions share.
pub const COMMON: &[(&str, Rule)] = &[
    ("model", Honoured),
    ("max_tokens", Honoured),
    ("min_tokens", Honoured),
    ("temperature", Honoured),
    ("top_p", Honoured),
    ("top_k", Honoured),
    ("min_p", Honoured),
    ("typical_p", Honoured),
    ("repetition_penalty", Honoured),
    ("presence_penalty", Honoured),
    ("frequency_penalty", Honoured),
    ("logit_bias", Honoured),
    ("seed", Honoured),
    ("n", Honoured),
    ("best_of", Honoured),
    ("stop", Honoured),
    ("stop_token_ids", Honoured),
    ("include_stop_str_in_output", Honoured),
    ("skip_special_tokens", Honoured),
    ("ignore_eos", Honoured),
    ("logprobs", Honoured),
    ("prompt_logprobs", Honoured),
    ("return_token_ids", Honoured),
    ("add_special_tokens", Honoured),
    ("priority", Honoured),
    ("cache_salt", Honoured),
    ("stream", Honoured),
    ("stream_options", Honoured),
    ("user", AdvisoryText),
    ("safety_identifier", AdvisoryText),
    ("prompt_cache_key", AdvisoryText),
    ("prompt_cache_retention", Advisory),
    ("prompt_cache_options", Advisory),
    ("metadata", Advisory),
    ("service_tier", Honoured),
    ("response_format", Honoured),
    ("structured_outputs", Honoured),
    ("guided_json", Honoured),
    ("guided_regex", Honoured),
    ("guided_choice", Honoured),
    ("guided_grammar", Honoured),
    ("guided_decoding_backend", Only(BACKENDS, ONE_BACKEND)),
    ("guided_whitespace_pattern", Refused(BLANKS)),
    ("structural_tag", Refused(OTHER_SHAPE)),
    ("json_schema", Refused(OTHER_SHAPE)),
    ("grammar", Refused(OTHER_SHAPE)),
    ("regex", Refused(OTHER_SHAPE)),
    ("ebnf", Refused(OTHER_SHAPE)),
    ("logits_processors", Refused(NO_PROCESSOR)),
    ("logit_processors", Refused(NO_PROCESSOR)),
    ("use_beam_search", Only(&["false"], "beam search is not available")),
    ("length_penalty", Only(&["1", "1.0"], "it belongs to beam search, which is not available")),
    ("early_stopping", Only(&["false"], "it belongs to beam search, which is not available")),
    ("bad_words", Only(&["[]"], "use 'logit_bias' with -100")),
    ("allowed_token_ids", Refused("use 'logit_bias'")),
    ("truncate_prompt_tokens", Refused("prompts are never cut; send a shorter one")),
    ("spaces_between_special_tokens", Only(&["true"], "text is never changed between tokens")),
    ("return_tokens_as_token_ids", Only(&["false"], "use 'return_token_ids'")),
    ("kv_transfer_params", Refused("caches are not moved at a client's word")),
    ("vllm_xargs", Refused("they are private to another server")),
    ("request_id", Refused("send the header 'x-request-id'")),
];

/// Fields of chat alone.
pub const CHAT: &[(&str, Rule)] = &[
    ("messages", Honoured),
    ("tools", Honoured),
    ("tool_choice", Honoured),
    ("parallel_tool_calls", Honoured),
    ("max_completion_tokens", Honoured),
    ("top_logprobs", Honoured),
    ("chat_template_kwargs", Honoured),
    ("documents", Honoured),
    ("add_generation_prompt", Honoured),
    ("continue_final_message", Honoured),
    ("store", Only(&["false"], "answers are not stored")),
    ("verbosity", Honoured),
    ("modalities", Only(&["[\"text\"]", "[]"], NO_AUDIO)),
    ("audio", Refused(NO_AUDIO)),
    ("moderation", Refused("moderation is not available")),
    ("prediction", Refused("predicted outputs are not available")),
    ("web_search_options", Refused("web search is not available")),
    ("reasoning_effort", Honoured),
    ("reasoning", Honoured),
    ("thinking_token_budget", Honoured),
    ("include_reasoning", Honoured),
    ("functions", Only(&["[]"], "use 'tools'")),
    ("function_call", Refused("use 'tool_choice'")),
    (
        "chat_template",
        Refused(
            "templates are the operator's; pass variables in \
                               'chat_template_kwargs'",
        ),
    ),
    ("echo", Only(&["false"], "a chat's prompt is not repeated")),
    ("mm_processor_kwargs", Refused(NO_AUDIO)),
    ("media_io_kwargs", Refused(NO_AUDIO)),
];

/// Fields inside `structured_outputs`.
pub static STRUCTURED: &[(&str, Rule)] = &[
    ("json", Honoured),
    ("regex", Honoured),
    ("choice", Honoured),
    ("grammar", Honoured),
    ("json_object", Honoured),
    ("structural_tag", Honoured),
    ("whitespace_pattern", Refused(BLANKS)),
    ("disable_any_whitespace", Only(&["false"], BLANKS)),
    (
        "disable_additional_properties",
        Only(&["false"], "say \"additionalProperties\": false in the schema"),
    ),
    ("disable_fallback", Only(&["true", "false"], ONE_BACKEND)),
    ("backend", Only(BACKENDS, ONE_BACKEND)),
];

/// Fields inside `reasoning`.
pub static REASONING: &[(&str, Rule)] = &[
    ("effort", Honoured),
    ("max_tokens", Honoured),
    ("exclude", Only(&["false"], "use 'include_reasoning'")),
    ("enabled", Refused("use 'effort'")),
    ("summary", Refused("thoughts are not summarized")),
    ("generate_summary", Refused("thoughts are not summarized")),
];

/// Fields of a plain completion that a chat is made of: how much is thought before.
pub(crate) static THOUGHTS: &[(&str, Rule)] =
    &[("reasoning_effort", Honoured), ("reasoning", Honoured), ("thinking_token_budget", Honoured)];

/// Fields of plain completions alone.
pub static COMPLETION: &[(&str, Rule)] = &[
    ("prompt", Honoured),
    ("echo", Honoured),
    ("suffix", Only(&["\"\""], "text cannot be inserted in front of a suffix")),
    ("prompt_embeds", Refused("prompts are text or token ids")),
];

/// Fields that embeddings, ranking and scores share.
pub static POOLING: &[(&str, Rule)] = &[
    ("model", Honoured),
    ("truncate_prompt_tokens", Honoured),
    ("user", AdvisoryText),
    ("metadata", Advisory),
    ("priority", Only(&["0"], "all requests of these routes have one class")),
    ("add_special_tokens", Only(&["true"], "what the model was trained with is always added")),
    ("truncation_side", Only(&["\"right\""], "texts lose their ends")),
    ("mm_processor_kwargs", Refused(TEXTS_ONLY)),
];

/// Fields of embeddings alone.
pub static EMBEDDINGS: &[(&str, Rule)] = &[
    ("input", Honoured),
    ("encoding_format", Honoured),
    ("dimensions", Honoured),
    ("prompt_name", Honoured),
    ("input_type", Honoured),
    ("messages", Refused("send texts in 'input'")),
    ("normalize", Refused(AS_TRAINED)),
    ("use_activation", Refused(AS_TRAINED)),
    ("embed_dtype", Only(&["\"float32\""], "vectors are float32")),
    ("output_dtype", Only(&["\"float\""], "vectors are float32")),
    ("embedding_types", Only(&["[\"float\"]"], "vectors are float32")),
    ("output_dimension", Refused("use 'dimensions'")),
    ("truncate", Refused("use 'truncate_prompt_tokens'")),
    ("truncation", Refused("use 'truncate_prompt_tokens'")),
];

/// Fields of `/v1/rerank` alone.
pub static RERANK: &[(&str, Rule)] = &[
    ("query", Honoured),
    ("documents", Honoured),
    ("top_n", Honoured),
    ("return_documents", Honoured),
    ("top_k", Refused("use 'top_n'")),
    ("rank_fields", Refused("send documents as texts")),
    ("max_chunks_per_doc", Refused("use 'max_tokens_per_doc'")),
    ("max_tokens_per_doc", Honoured),
    ("truncation", Refused("use 'truncate_prompt_tokens'")),
    ("use_activation", Refused(AS_TRAINED)),
    ("raw_scores", Refused(AS_TRAINED)),
];

/// Fields of `/v1/score` alone.
pub static SCORE: &[(&str, Rule)] = &[
    ("text_1", Honoured),
    ("text_2", Honoured),
    ("encoding_format", Only(&["\"float\""], "scores are numbers")),
    ("use_activation", Refused(AS_TRAINED)),
];

/// Applies tables to a request's fields: unknown ones and those that cannot be honoured end it
/// here, so that parsers may read the honoured ones without looking left and right.
pub(crate) fn apply(fields: Fields<'_>, tables: &[&[(&str, Rule)]]) -> Parsed<()> {
    for (name, value) in fields.entries() {
        let mut rules = tables.iter().copied().flatten();
        let Some((_, rule)) = rules.find(|(known, _)| *known == name) else {
            return Err(unknown(name, tables.iter().copied().flatten().map(|(known, _)| *known)));
        };
        if !value.is_null() {
            check(name, *rule, value)?;
        }
    }
    Ok(())
}

/// The fields that [`apply`] would refuse, as they were written.
pub(crate) fn beyond(fields: Fields<'_>, tables: &[&[(&str, Rule)]]) -> Map<String, Value> {
    let known = |name: &str| tables.iter().copied().flatten().find(|(known, _)| *known == name);
    let refused = |(name, value): &(&str, &Value)| {
        !value.is_null() && known(name).is_none_or(|(_, rule)| check(name, *rule, value).is_err())
    };
    fields.entries().filter(refused).map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

fn check(name: &str, rule: Rule, value: &Value) -> Parsed<()> {
    match rule {
        Honoured | Advisory => Ok(()),
        AdvisoryText if value.is_string() => Ok(()),
        AdvisoryText => Err(Fault::kind(name, "a string", value)),
        Only(accepted, _) if accepted.contains(&value.to_string().as_str()) => Ok(()),
        Only(_, why) | Refused(why) => Err(Fault::unsupported(name, why)),
    }
}
