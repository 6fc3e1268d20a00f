//! Responses that a provider makes in their own dialect and that are kept here all the same: it is
//! told to keep nothing, and all that the request goes on with.

use std::sync::Arc;

use axum::http::Extensions;
use wire::responses::{Before, Passed, Passing, Whom};
use wire::{Broken, Limits};

use super::super::envelope::Caller;
use super::super::error::Failure;
use super::super::surface::responses_id;
use super::super::{App, ids};
use super::{Keep, fits, keep, missed, resolve};

/// What of an answer that is passed on is kept, and what of it is not as its provider wrote it.
pub(in super::super) struct Own {
    passed: Passed,
    keep: Option<Arc<Keep>>,
    /// It has come to its end.
    ended: bool,
}

/// The request as this provider gets it, and what becomes of its answer.
pub(in super::super) fn pass(
    app: &App,
    caller: &Caller,
    (body, limits): (&[u8], &Limits),
    whom: Whom<'_>,
) -> Result<(Vec<u8>, Own), Failure> {
    // Others count for themselves.
    let limits = Limits { messages_max: usize::MAX, ..limits.clone() };
    let mut request = Passing::parse(body, &limits, &mut responses_id)?;
    fits(caller, &request.keeping)?;
    let (past, referred) = resolve(caller, &request.keeping, &mut request.input)?;
    request.seal(Before { history: &past.history, others: &past.others });
    let sent = request.body(&past.history, whom);
    let passed = request.answer(&ids::named("resp_"), whom.provider);
    let Passing { keeping, input, .. } = request;
    let keep = Keep::of(app, caller, (&keeping, past), (|| input, referred));
    Ok((sent, Own { passed, keep, ended: false }))
}

impl Own {
    /// Whole events as their caller reads them.
    pub(in super::super) fn events(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.passed.events(bytes, out);
    }

    /// A whole answer as its caller reads it.
    pub(in super::super) fn answer(&mut self, body: &[u8]) -> Result<Vec<u8>, Broken> {
        self.passed.answer(body)
    }

    /// Whoever runs it in the background has to know.
    pub(in super::super) fn tell(&self, extensions: &mut Extensions) {
        self.keep.iter().for_each(|keep| drop(extensions.insert(Arc::clone(keep))));
    }

    /// How it is kept, for whoever goes on with it.
    pub(in super::super) fn into_keep(self) -> Option<Arc<Keep>> {
        self.keep
    }

    /// Keeps it, where it has come to its end. `false`: it could not be kept.
    pub(in super::super) async fn keep(&mut self) -> bool {
        match (&self.keep, self.passed.finished()) {
            (Some(own), Some(response)) => {
                self.ended = true;
                // Boxed: few are, and each stream would keep room for it.
                Box::pin(keep(own, response)).await
            }
            _ => true,
        }
    }

    /// The same, of a stream whose last events these are: they say so where it could not be.
    /// `whole`: nothing else will come, whether its end could be read or not.
    pub(in super::super) async fn keep_of(&mut self, out: &mut Vec<u8>, whole: bool) {
        let is_kept = self.keep().await;
        if !is_kept || (whole && self.keep.is_some() && !std::mem::replace(&mut self.ended, true)) {
            missed(out);
        }
    }
}
