//! Why a request was not done, as HTTP. Shape and most statuses are those of every other route
//! ([`crate::api::Failure`]); two more are known only here: what stands in the way (409) and a
//! repetition that is none (422).

use axum::response::{IntoResponse, Response};
use govern::Denied;
use govern::governor::EditError;
use govern::role::Permission;
use govern::store::StoreError;
use wire::{ApiError, ErrorKind};

use crate::api::Failure;

const CONFLICT: u16 = 409;
const UNPROCESSABLE: u16 = 422;

/// The code of a permission that is lacking.
pub(super) const LACKING: &str = "permission_denied";

/// A refusal.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    failure: Failure,
    /// In place of the failure's own.
    status: Option<u16>,
}

impl Refusal {
    /// A field is wrong.
    pub(super) fn invalid(param: impl Into<String>, why: impl Into<String>) -> Self {
        ApiError::new(ErrorKind::Invalid, "invalid_value", why).with_param(param).into()
    }

    /// There is no such thing, or it is none of the caller's business: the words are the same.
    pub(super) fn hidden() -> Self {
        let message = "There is no such thing, or it is not yours to see.";
        Failure::new(ErrorKind::NotFound, "not_found", message).into()
    }

    /// The thing may be known, the deed may not be done.
    pub(super) fn lacking(permission: Permission) -> Self {
        let message = format!(
            "This needs the permission '{}' there, which no role of whoever asks gives.",
            permission.name()
        );
        Failure::new(ErrorKind::Forbidden, LACKING, message).into()
    }

    /// More is given than the giver has.
    pub(super) fn wider(param: &str, why: &str) -> Self {
        let message = format!("Nobody gives more than they have: {why}.");
        ApiError::new(ErrorKind::Forbidden, LACKING, message).with_param(param).into()
    }

    /// Something that is there stands in the way.
    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        let failure = Failure::new(ErrorKind::Invalid, code, message);
        Self { failure, status: Some(CONFLICT) }
    }

    /// An idempotency key came again with another request.
    pub(super) fn other_request() -> Self {
        let message = "This Idempotency-Key was sent before, with another request.";
        let failure = Failure::new(ErrorKind::Invalid, "idempotency_key_reused", message);
        Self { failure, status: Some(UNPROCESSABLE) }
    }

    /// The server's fault. The cause is for the log alone.
    pub(super) fn internal(why: impl std::fmt::Display) -> Self {
        tracing::error!(%why, "an admin request failed");
        Failure::new(ErrorKind::Internal, "internal_error", "The server failed.").into()
    }

    /// The same about a field within another one.
    pub(super) fn within(mut self, outer: &str) -> Self {
        self.failure.error.param = self.failure.error.param.map(|inner| format!("{outer}{inner}"));
        self
    }

    /// The stable name of what is wrong.
    pub(super) fn code(&self) -> &str {
        self.failure.error.code.as_deref().unwrap_or_default()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, status: None }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Failure::from(error).into()
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Failure::from(denied).into()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken => {
                Self::conflict("name_taken", "Another one in the same place has this name.")
            }
            StoreError::Database(_) => {
                tracing::error!(%error, "an admin request failed");
                let message = "The database cannot be reached; try again.";
                Failure::new(ErrorKind::Unavailable, "governance_unavailable", message).into()
            }
            error => Self::internal(error),
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Store(error) => error.into(),
            EditError::Wrong(why) => Self::internal(why),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let response = self.failure.into_response();
        match self.status {
            Some(status) => super::answer::with_status(response, status),
            None => response,
        }
    }
}
