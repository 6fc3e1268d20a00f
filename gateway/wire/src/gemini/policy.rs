//! What becomes of every field of Google's dialect: honoured, accepted because it cannot change
//! the answer, or refused by name. A field in no table is unknown and refused.

use serde_json::{Map, Value};

use crate::fields::{Fields, Parsed};
use crate::openai::policy::Rule::{self, Advisory, Honoured, Only, Refused};
use crate::openai::policy::{apply, beyond};

const TEXT_ONLY: &str = "this server makes text only";
const NO_SEARCH: &str = "this server searches nothing and runs no code; use 'functionDeclarations'";
const NOT_READ: &str = "parts are texts, images, function calls and their responses";
const ONE_MODEL: &str = "the model is the one in the path";

type Table = &'static [(&'static str, Rule)];

/// Fields of a request.
pub(super) const REQUEST: Table = &[
    ("model", Honoured),
    ("contents", Honoured),
    ("systemInstruction", Honoured),
    ("tools", Honoured),
    ("toolConfig", Honoured),
    ("generationConfig", Honoured),
    // Levels of filters, of which there are none here.
    ("safetySettings", Advisory),
    ("labels", Honoured),
    ("cachedContent", Refused("send the contents: prefixes are shared without being asked to")),
    (
        "serviceTier",
        Only(&["\"unspecified\"", "\"standard\"", "\"STANDARD\""], "there is one service tier"),
    ),
    ("store", Only(&["false"], "answers are not stored")),
    ("modelArmorConfig", Refused("there is no such filter")),
];

/// Fields inside `generationConfig`.
pub(super) const GENERATION: Table = &[
    ("temperature", Honoured),
    ("topP", Honoured),
    ("topK", Honoured),
    ("maxOutputTokens", Honoured),
    ("candidateCount", Honoured),
    ("stopSequences", Honoured),
    ("seed", Honoured),
    ("presencePenalty", Honoured),
    ("frequencyPenalty", Honoured),
    ("responseMimeType", Honoured),
    ("responseSchema", Honoured),
    ("responseJsonSchema", Honoured),
    ("responseLogprobs", Honoured),
    ("logprobs", Honoured),
    ("thinkingConfig", Honoured),
    ("mediaResolution", Honoured),
    ("responseModalities", Only(&["[\"TEXT\"]", "[]"], TEXT_ONLY)),
    ("responseFormat", Refused("use 'responseMimeType' and 'responseJsonSchema'")),
    ("speechConfig", Refused(TEXT_ONLY)),
    ("imageConfig", Refused(TEXT_ONLY)),
    ("audioTimestamp", Only(&["false"], "this server reads no audio")),
    ("enableEnhancedCivicAnswers", Only(&["false"], "it belongs to another server")),
    ("routingConfig", Refused(ONE_MODEL)),
    ("modelSelectionConfig", Refused(ONE_MODEL)),
];

/// Fields inside `thinkingConfig`.
pub(super) const THINKING: Table =
    &[("includeThoughts", Honoured), ("thinkingBudget", Honoured), ("thinkingLevel", Honoured)];

/// Fields of an item of `tools`.
pub(super) const TOOL: Table = &[
    ("functionDeclarations", Honoured),
    ("googleSearch", Refused(NO_SEARCH)),
    ("googleSearchRetrieval", Refused(NO_SEARCH)),
    ("googleMaps", Refused(NO_SEARCH)),
    ("enterpriseWebSearch", Refused(NO_SEARCH)),
    ("codeExecution", Refused(NO_SEARCH)),
    ("computerUse", Refused(NO_SEARCH)),
    ("fileSearch", Refused(NO_SEARCH)),
    ("retrieval", Refused(NO_SEARCH)),
    ("urlContext", Refused(NO_SEARCH)),
    ("mcpServers", Refused(NO_SEARCH)),
];

/// Fields of a function's declaration.
pub(super) const DECLARATION: Table = &[
    ("name", Honoured),
    ("description", Honoured),
    ("parameters", Honoured),
    ("parametersJsonSchema", Honoured),
    // What the function will answer: no call depends on it.
    ("response", Advisory),
    ("responseJsonSchema", Advisory),
    ("behavior", Only(&["\"UNSPECIFIED\"", "\"BLOCKING\""], "an answer waits for its functions")),
];

/// Fields inside `toolConfig`.
pub(super) const TOOL_CONFIG: Table = &[
    ("functionCallingConfig", Honoured),
    ("retrievalConfig", Refused(NO_SEARCH)),
    ("includeServerSideToolInvocations", Only(&["false"], NO_SEARCH)),
];

/// Fields inside `functionCallingConfig`.
pub(super) const CALLING: Table = &[
    ("mode", Honoured),
    ("allowedFunctionNames", Honoured),
    ("streamFunctionCallArguments", Only(&["false"], "arguments come whole")),
];

/// Fields of a part.
pub(super) const PART: Table = &[
    ("text", Honoured),
    ("thought", Honoured),
    ("thoughtSignature", Honoured),
    ("inlineData", Honoured),
    ("fileData", Honoured),
    ("functionCall", Honoured),
    ("functionResponse", Honoured),
    ("mediaResolution", Honoured),
    ("partMetadata", Advisory),
    ("videoMetadata", Refused("this server reads no video")),
    ("executableCode", Refused(NOT_READ)),
    ("codeExecutionResult", Refused(NOT_READ)),
    ("toolCall", Refused(NOT_READ)),
    ("toolResponse", Refused(NOT_READ)),
];

/// What becomes of fields that cannot be honoured here.
pub(super) enum Beyond {
    /// They end the request.
    Refused,
    /// They are kept by their path: whom the request is passed on to may know them.
    Kept(Map<String, Value>),
}

impl Beyond {
    /// Applies a table to the fields at a path, which is empty for the request's own.
    pub(super) fn table(&mut self, path: &str, fields: Fields<'_>, table: Table) -> Parsed<()> {
        match self {
            Self::Refused => apply(fields, &[table]),
            Self::Kept(kept) => {
                let dot = if path.is_empty() { "" } else { "." };
                let more = beyond(fields, &[table]).into_iter();
                kept.extend(more.map(|(name, value)| (format!("{path}{dot}{name}"), value)));
                Ok(())
            }
        }
    }

    /// What was kept.
    pub(super) fn into_kept(self) -> Map<String, Value> {
        match self {
            Self::Refused => Map::new(),
            Self::Kept(kept) => kept,
        }
    }
}
