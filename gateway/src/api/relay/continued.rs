//! A provider's stream that broke behind its first byte, and one of our own models that goes on
//! with it, where the pool says so: it is shown the text that was handed out as the beginning of
//! its own answer. The caller's stream goes on in the same events, and says who goes on with it.
//!
//! It is another attempt at the same request: judged, paid for and booked like one, and one of
//! those that the pool may try again.

use std::sync::Arc;
use std::time::Instant;

use wire::{ErrorKind, StreamOptions, Usage, Writer};

use super::super::App;
use super::super::bill::Bill;
use super::super::envelope::Caller;
use super::super::error::Failure;
use super::super::forward::{self, Inbound};
use super::super::generate::{self, Rest};
use super::super::kept::Keep;
use super::super::prepare::Begun;
use super::super::sse::Sse;
use super::super::surface::{Page, Surface};
use super::super::turn::{self, Turn};
use crate::metrics::Retry;
use crate::route::{Pool, Seat, Target};
use crate::upstream::Trouble;

/// What it takes to go on with a stream that breaks.
pub(in super::super) struct Rescue {
    app: Arc<App>,
    caller: Caller,
    inbound: Inbound,
    pool: Arc<Pool>,
}

/// A model that goes on, and what the stream says of it.
pub(super) struct Goes {
    rest: Rest,
    by: String,
    before: Usage,
}

impl Rescue {
    /// For a request whose stream is to go on; `None`: it is none.
    pub(in super::super) fn of(turn: &Turn<'_>) -> Option<Box<Self>> {
        let glance = &turn.inbound.glance;
        if !turn.pool.continues || !turn.is_read || !glance.stream || glance.choices != 1 {
            return None;
        }
        Some(Box::new(Self {
            app: Arc::clone(turn.app),
            caller: turn.caller.clone(),
            inbound: turn.inbound.clone(),
            pool: Arc::clone(turn.pool),
        }))
    }

    /// The request's id.
    pub(super) fn id(&self) -> &str {
        &self.caller.request_id
    }

    /// How the request came.
    pub(super) fn surface(&self) -> &Surface {
        &self.inbound.surface
    }

    /// Has a model go on behind this text, which a chat may have made. `before` is what was used
    /// for that, and `bill` who pays for it.
    pub(super) async fn go_on(
        &self,
        (text, in_chat): (String, bool),
        before: Usage,
        bill: Option<Bill>,
    ) -> Result<Goes, Failure> {
        let Self { app, caller, inbound, pool } = self;
        let mut asked = forward::asked_of(app, caller, (inbound, pool), None)?;
        asked.input = asked.input.saturating_add(before.completion_tokens);
        let plan = forward::plan(app, pool, &asked);
        let here = plan.order.iter().find_map(|target| match &target.seat {
            Seat::Local(model) => Some((target, model)),
            Seat::Provider(..) => None,
        });
        let nobody = |why| Failure::new(ErrorKind::Unavailable, "not_continued", why);
        let (target, model) = here.ok_or_else(|| nobody("no model here may go on with it"))?;
        if !pool.retry(Retry::Continue) {
            return Err(nobody("the pool has tried again too often"));
        }
        let begun = Begun { text, tokens: before.completion_tokens, in_chat };
        let rest = self.rest(target, (model, &begun), bill).await.map_err(|t| t.failure)?;
        let (id, by, pool) = (self.id(), &target.name, &pool.name);
        tracing::info!(id, by, pool, tokens = begun.tokens, "a broken stream is continued");
        Ok(Goes { rest, by: target.name.clone(), before })
    }

    async fn rest(
        &self,
        target: &Target,
        what: (&str, &Begun),
        bill: Option<Bill>,
    ) -> Result<Rest, Trouble> {
        let Self { app, inbound, .. } = self;
        let mut open = target.health.begin(Instant::now());
        let request = (&inbound.surface, &inbound.body);
        let caller = self.caller.clone().of_arm(target);
        let rest = generate::rest(app, &caller, request, what, bill).await;
        let rest = rest.map_err(turn::of_local);
        turn::seen(&mut open, true, &rest);
        rest
    }

    /// The rest of the stream, in this writer's words: on its page or, where it was passed on as it
    /// came, on a new one that is kept like the beginning.
    pub(super) fn stream(
        &self,
        goes: Goes,
        page: Result<Page, Option<Arc<Keep>>>,
        writer: Box<dyn Writer>,
    ) -> Box<Sse> {
        let Goes { rest: Rest { run, page: mut own, options }, by, before } = goes;
        let page = page.unwrap_or_else(|keep| {
            own.keep = keep;
            own
        });
        let how = (options, self.app.limits.ping_every);
        Box::new(Sse::rest(&page, writer, run, (before, by), how))
    }
}

impl Goes {
    /// What the stream carries beside text.
    pub(super) fn options(&self) -> StreamOptions {
        self.rest.options
    }
}
