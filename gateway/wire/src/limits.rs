//! How much of each thing one request may carry. The gateway owns the numbers in force; the
//! defaults here are what the parsers are tested with.

/// Bounds that the parsers enforce by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Choices (`n`) of one prompt, and prompts times choices of one completion request.
    pub choices_max: u32,
    /// Prompts in one completion request.
    pub prompts_max: usize,
    /// Texts in one request for embeddings, documents or pairs in one for scores. OpenAI
    /// documents 2048.
    pub inputs_max: usize,
    /// Messages in one chat.
    pub messages_max: usize,
    /// Tools offered in one chat.
    pub tools_max: usize,
    /// Texts of a `choice`.
    pub choice_texts_max: usize,
    /// Bytes of a pattern, of a grammar, or of all texts of a `choice`: the time to compile them
    /// grows with their size. A schema is bounded where it is compiled.
    pub grammar_bytes_max: usize,
    /// Tags, and triggers, of one `structural_tag`.
    pub tags_max: usize,
    /// Bytes of a tag's mark or of a trigger.
    pub mark_bytes_max: usize,
    /// Stop strings. OpenAI documents 4; clients of other servers send more.
    pub stops_max: usize,
    /// Bytes of one stop string: text is held back for as long as one may still come.
    pub stop_bytes_max: usize,
    /// Stop token ids. The scheduler takes 64 with the model's own end tokens among them.
    pub stop_tokens_max: usize,
    /// Entries of `logit_bias`: each is uploaded with the row.
    pub logit_bias_max: usize,
    /// Alternatives per position in log-probabilities.
    pub top_logprobs_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            choices_max: 128,
            prompts_max: 256,
            inputs_max: 2048,
            messages_max: 4096,
            tools_max: 512,
            choice_texts_max: 1000,
            grammar_bytes_max: 64 << 10,
            tags_max: 512,
            mark_bytes_max: 1024,
            stops_max: 16,
            stop_bytes_max: 1024,
            stop_tokens_max: 48,
            logit_bias_max: 1024,
            top_logprobs_max: 20,
        }
    }
}
