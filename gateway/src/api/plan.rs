//! A caller's wishes and a model's defaults to one scheduler request. Ranges were checked by
//! `wire`; here is what depends on the model: its vocabulary, its end tokens, its context.

use scheduler::types::{Request, RequestId, Sampling};
use wire::{ApiError, Decoding, ErrorKind};

use super::envelope::Caller;
use super::error::{Failure, too_long};
use super::ids;
use super::prompt::check_ids;
use crate::backend::Model;
use crate::digest;

/// One request to the scheduler.
pub(super) fn request(
    model: &Model,
    decoding: &Decoding,
    prompt: Vec<u32>,
    prompt_logprobs: Option<u32>,
    caller: &Caller,
) -> Result<Request, Failure> {
    let max_tokens = max_tokens(model, decoding, prompt.len())?;
    Ok(Request {
        id: RequestId(0),
        prompt,
        choices: decoding.choices,
        max_tokens,
        allowance: max_tokens,
        min_tokens: decoding.min_tokens,
        stop_tokens: stop_tokens(model, decoding)?,
        sampling: sampling(model, decoding)?,
        prompt_logprobs,
        // Who may wait comes last.
        priority: priority(if decoding.flex { i8::MAX } else { decoding.priority }),
        tenant: caller.tenant(),
        salt: salt(caller.pages(), decoding.cache_salt.as_deref()),
        adapter: 0,
        grammar: 0,
        deadline: None,
        made: Vec::new(),
    })
}

/// The caller's bound, the model's, and the room that is left; a bound above the room is no
/// error, since the answer keeps it either way.
fn max_tokens(model: &Model, decoding: &Decoding, prompt: usize) -> Result<u32, Failure> {
    let room = model.context.saturating_sub(prompt);
    if room == 0 {
        return Err(too_long(prompt + 1, model.context));
    }
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    if decoding.min_tokens > room {
        let message =
            format!("Invalid value for 'min_tokens': the context has room for {room} new tokens.");
        let error = ApiError::new(ErrorKind::Invalid, "context_length_exceeded", message);
        return Err(error.with_param("min_tokens").into());
    }
    let wanted = decoding.max_tokens.or(model.max_tokens_default).unwrap_or(room);
    // Nothing is asked for where only the prompt's scores are; a scheduler makes one at least.
    Ok(wanted.max(decoding.min_tokens).clamp(1, room))
}

/// Tokens of a prompt whose caller has it cut where it is longer, and how long it may be at most.
/// Behind it is room for the answer that is asked for, or for an eighth of the context.
pub(super) fn prompt_bounds(model: &Model, decoding: &Decoding) -> (usize, usize) {
    let wanted = decoding.max_tokens.or(model.max_tokens_default).unwrap_or(u32::MAX);
    let room = usize::try_from(wanted).unwrap_or(usize::MAX).min(model.context / 8).max(1);
    (model.context.saturating_sub(room), model.context.saturating_sub(1))
}

/// The model's end tokens and the caller's.
pub(super) fn stop_tokens(model: &Model, decoding: &Decoding) -> Result<Vec<u32>, Failure> {
    check_ids(&model.text, &decoding.stop_token_ids, "stop_token_ids")?;
    let eos = if decoding.ignore_eos { &[][..] } else { &model.eos[..] };
    let mut all = [eos, &decoding.stop_token_ids].concat();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn sampling(model: &Model, decoding: &Decoding) -> Result<Sampling, Failure> {
    let author = &model.defaults;
    let mut biased = Vec::with_capacity(decoding.logit_bias.len());
    for &(id, bias) in &decoding.logit_bias {
        check_ids(&model.text, &[id], "logit_bias")?;
        biased.push((id, narrow(bias)));
    }
    let or = |asked: Option<f64>, author: f32| asked.map_or(author, narrow);
    Ok(Sampling {
        temperature: or(decoding.temperature, author.temperature),
        top_p: share(or(decoding.top_p, author.top_p)),
        top_k: decoding.top_k.unwrap_or(author.top_k),
        min_p: or(decoding.min_p, author.min_p),
        typical_p: share(or(decoding.typical_p, author.typical_p)),
        repetition_penalty: or(decoding.repetition_penalty, author.repetition_penalty),
        presence_penalty: or(decoding.presence_penalty, author.presence_penalty),
        frequency_penalty: or(decoding.frequency_penalty, author.frequency_penalty),
        logit_bias: biased,
        seed: decoding.seed.map_or_else(ids::random, i64::cast_unsigned),
        logprobs: decoding.logprobs,
    })
}

/// Requests carry 64 bits because JSON does; sampling needs 32.
#[expect(clippy::cast_possible_truncation, reason = "the ranges are small and were checked")]
fn narrow(number: f64) -> f32 {
    number as f32
}

/// A share of 0 keeps the single best token, as the smallest share above it does.
fn share(share: f32) -> f32 {
    share.max(f32::MIN_POSITIVE)
}

/// 0 is the middle of the scheduler's classes; both count smaller as more urgent.
fn priority(asked: i8) -> u8 {
    asked.cast_unsigned() ^ 0x80
}

/// Caches of different salts never meet, so the number must not be one that a caller can aim at.
fn salt(pages: u64, text: Option<&str>) -> u64 {
    match text {
        None => pages,
        Some(text) => digest::number(&[&pages.to_le_bytes(), text.as_bytes()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_keep_their_order() {
        let classes = [i8::MIN, -1, 0, 1, i8::MAX].map(priority);
        assert_eq!(classes, [0, 127, 128, 129, 255]);
    }

    #[test]
    fn salts_differ() {
        assert_ne!(salt(0, Some("a")), salt(0, Some("b")));
        assert_ne!(salt(0, Some("a")), 0);
        assert_ne!(salt(1, Some("a")), salt(2, Some("a")));
        assert_eq!((salt(0, None), salt(7, None)), (0, 7));
    }
}
