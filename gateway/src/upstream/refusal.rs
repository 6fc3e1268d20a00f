//! What a provider's refusal means: whose fault it is, and what a caller is told. Each dialect
//! reads its own errors; what follows from them is decided here, once for all.

use hyper::header::HeaderMap;
use jiff::Timestamp;
use wire::{ApiError, Dialect, ErrorKind, cohere, converse, gemini, messages, openai, responses};

use super::{About, Trouble, later};
use crate::api::Failure;

/// A refusal, as it came.
pub(super) struct Refusal<'a> {
    pub(super) dialect: Dialect,
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Refusal<'_> {
    /// The provider's own words for it.
    pub(super) fn error(&self) -> ApiError {
        let Self { status, body, .. } = *self;
        match self.dialect {
            Dialect::Messages => messages::read_error(status, body),
            Dialect::Gemini => gemini::read_error(status, body),
            Dialect::Cohere => cohere::read_error(status, body),
            Dialect::Responses => responses::read_error(status, body),
            Dialect::Converse => {
                let name = self.headers.get("x-amzn-errortype");
                let name = name.and_then(|name| name.to_str().ok());
                converse::read_error(status, name, body)
            }
            _ => openai::read_error(status, body),
        }
    }

    /// What follows from it.
    pub(super) fn trouble(&self, provider: &str, error: ApiError, now: Timestamp) -> Trouble {
        let asked = later::asked(self.headers, self.body, now);
        let wait =
            asked.or_else(|| later::hinted(self.headers, now).filter(|_| self.status == 429));
        let (about, kind) = match error.code.as_deref() {
            // Another has sealed these thoughts: of a pool that one may still be asked.
            Some("invalid_encrypted_content") => (About::Unfit, ErrorKind::Invalid),
            _ => decide(self.status, error.kind, wait),
        };
        let ApiError { message, param, code, .. } = error;
        let said = |message| ApiError { kind, message, param, code };
        let error = match about {
            About::Request | About::Unfit => said(message),
            // What an operator has to mend is not for callers to read.
            About::Ours if kind == ErrorKind::Upstream => ApiError::new(
                kind,
                "provider_error",
                format!("The provider '{provider}' does not serve this server."),
            ),
            _ => said(format!("The provider '{provider}' answers: {message}")),
        };
        let mut failure = Failure::from(error);
        if let About::Busy(Some(seconds)) = about {
            failure.retry_after_s = Some(seconds);
        }
        Trouble { failure, about }
    }
}

/// What a status and a dialect's word for it say of the provider, and what the caller is told.
fn decide(status: u16, kind: ErrorKind, wait: Option<u64>) -> (About, ErrorKind) {
    match (status, kind) {
        // Nobody follows a redirect.
        (300..=399, _) => (About::Ill, ErrorKind::Upstream),
        // Money that is spent there does not come back in a moment, and is not the caller's.
        (_, ErrorKind::Quota) => (About::Ours, ErrorKind::Upstream),
        (401 | 403 | 405, _) | (_, ErrorKind::Unauthorized | ErrorKind::Forbidden) => {
            (About::Ours, ErrorKind::Upstream)
        }
        // It does not know the model: another target of the pool may.
        (404, _) | (_, ErrorKind::NotFound) => (About::Ours, ErrorKind::NotFound),
        // Whoever is only busy says when to come back; a proxy with nobody behind it does not.
        (503, _) if wait.is_none() => (About::Ill, ErrorKind::Unavailable),
        (503 | 529, _) | (_, ErrorKind::Unavailable) => (About::Busy(wait), ErrorKind::Unavailable),
        (429, _) | (_, ErrorKind::Overloaded) => (About::Busy(wait), ErrorKind::Overloaded),
        (408 | 500.., _) | (_, ErrorKind::Internal | ErrorKind::Deadline | ErrorKind::Timeout) => {
            (About::Ill, ErrorKind::Upstream)
        }
        (_, kind) => (About::Request, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, status: u16, lines: &[(&'static str, &str)], body: &str) -> Trouble {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect();
        let refusal = Refusal { dialect, status, headers: &headers, body: body.as_bytes() };
        let now = "2026-11-21T12:00:00Z".parse().expect("a time");
        refusal.trouble("far", refusal.error(), now)
    }

    #[track_caller]
    fn check(trouble: &Trouble, about: About, kind: ErrorKind, retry_after_s: Option<u64>) {
        let Failure { error, retry_after_s: said } = &trouble.failure;
        assert_eq!((trouble.about, error.kind, *said), (about, kind, retry_after_s), "{error:?}");
    }

    #[test]
    fn openai_s_words() {
        let chat = |status, lines: &[_], body| read(Dialect::Chat, status, lines, body);
        let busy = |wait| About::Busy(wait);
        let limit =
            r#"{"error":{"message":"Slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
        let found = chat(429, &[("retry-after", "7")], limit);
        check(&found, busy(Some(7)), ErrorKind::Overloaded, Some(7));
        assert_eq!(found.failure.error.message, "The provider 'far' answers: Slow down");
        let found = chat(429, &[("x-ratelimit-reset-tokens", "9s")], limit);
        check(&found, busy(Some(9)), ErrorKind::Overloaded, Some(9));
        check(&chat(429, &[], limit), busy(None), ErrorKind::Overloaded, Some(1));
        // Money that is spent there is no rate: nobody waits for it.
        for dialect in [Dialect::Chat, Dialect::Responses] {
            let spent = r#"{"error":{"message":"You exceeded your quota sk-1","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
            let found = read(dialect, 429, &[("retry-after", "7")], spent);
            check(&found, About::Ours, ErrorKind::Upstream, None);
            assert_eq!(
                found.failure.error.message,
                "The provider 'far' does not serve this server."
            );
            assert_eq!(found.failure.error.code.as_deref(), Some("provider_error"));
        }
        for status in [401, 403] {
            check(&chat(status, &[], ""), About::Ours, ErrorKind::Upstream, None);
        }
        check(&chat(402, &[], ""), About::Ours, ErrorKind::Upstream, None);
        check(&chat(404, &[], ""), About::Ours, ErrorKind::NotFound, None);
        check(&chat(413, &[], ""), About::Request, ErrorKind::TooLarge, None);
        let wrong =
            r#"{"error":{"message":"No","param":"messages","code":"context_length_exceeded"}}"#;
        let found = chat(400, &[("retry-after", "7")], wrong);
        check(&found, About::Request, ErrorKind::Invalid, None);
        let sealed = r#"{"error":{"message":"Not mine","code":"invalid_encrypted_content"}}"#;
        check(&chat(400, &[], sealed), About::Unfit, ErrorKind::Invalid, None);
        let ApiError { message, param, code, .. } = found.failure.error;
        assert_eq!((&*message, param.as_deref()), ("No", Some("messages")));
        assert_eq!(code.as_deref(), Some("context_length_exceeded"));
        let found = chat(503, &[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")], "");
        check(&found, busy(Some(30)), ErrorKind::Unavailable, Some(30));
        check(&chat(503, &[], ""), About::Ill, ErrorKind::Unavailable, Some(1));
        for status in [301, 307, 408, 500, 502, 504, 599] {
            check(&chat(status, &[], "<html>"), About::Ill, ErrorKind::Upstream, None);
        }
    }

    #[test]
    fn each_dialect_s_own_words() {
        let anthropic =
            |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}}}}"#);
        let messages = |status, kind| read(Dialect::Messages, status, &[], &anthropic(kind));
        check(
            &messages(529, "overloaded_error"),
            About::Busy(None),
            ErrorKind::Unavailable,
            Some(1),
        );
        check(&messages(400, "billing_error"), About::Ours, ErrorKind::Upstream, None);
        check(&messages(400, "invalid_request_error"), About::Request, ErrorKind::Invalid, None);
        check(&messages(500, "api_error"), About::Ill, ErrorKind::Upstream, None);

        // Google calls a wrong key a wrong argument, and says in the body when to come back.
        let body = r#"{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#;
        check(&read(Dialect::Gemini, 400, &[], body), About::Ours, ErrorKind::Upstream, None);
        let body = r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"36s"}]}}]"#;
        let found = read(Dialect::Gemini, 429, &[], body);
        check(&found, About::Busy(Some(36)), ErrorKind::Overloaded, Some(36));

        // Amazon's name of an error is in a header.
        let converse = |status, name| {
            read(Dialect::Converse, status, &[("x-amzn-errortype", name)], r#"{"message":"m"}"#)
        };
        for (status, name, about, kind) in [
            (429, "ThrottlingException", About::Busy(None), ErrorKind::Overloaded),
            (
                400,
                "ServiceQuotaExceededException:http://x/",
                About::Busy(None),
                ErrorKind::Overloaded,
            ),
            (429, "ModelNotReadyException", About::Busy(None), ErrorKind::Unavailable),
            (400, "ValidationException", About::Request, ErrorKind::Invalid),
            (403, "AccessDeniedException", About::Ours, ErrorKind::Upstream),
            (400, "ExpiredTokenException", About::Ours, ErrorKind::Upstream),
            (404, "ResourceNotFoundException", About::Ours, ErrorKind::NotFound),
            (500, "InternalServerException", About::Ill, ErrorKind::Upstream),
        ] {
            let later = matches!(about, About::Busy(_)).then_some(1);
            check(&converse(status, name), about, kind, later);
        }
    }

    /// Neither a long body nor one of another kind makes more than an error.
    #[test]
    fn any_body_is_read() {
        for dialect in [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Converse] {
            let long = format!(r#"{{"error":{{"message":"{}\u001b[31m"}}}}"#, "x".repeat(60_000));
            for body in ["", "null", "[]", "[[]]", "<html>", "{\"error\":1}", "\u{0}", &*long] {
                let trouble = read(dialect, 400, &[], body);
                let message = &trouble.failure.error.message;
                assert!(!message.is_empty() && message.len() < 4 << 10, "{dialect} {body}");
                assert!(!message.contains('\u{1b}'));
            }
        }
    }
}
