//! Copies of some requests for a target that nobody hears of: a new model or provider is tried with
//! what people really ask. A copy is made in the name of a key of its own, which pays for it, and
//! never keeps the request waiting that it is a copy of.

use std::sync::Arc;
use std::time::Instant;

use govern::Principal;
use http_body_util::BodyExt;
use serde_json::Value;
use wire::responses::Outline;

use super::envelope::Caller;
use super::forward::Inbound;
use super::surface::Surface;
use super::turn::Turn;
use super::{App, bill};
use crate::config::Secret;
use crate::route::{Asked, Mirror, Pool};
use crate::upstream::{About, Trouble};

/// Sends a copy, where the pool has a mirror and the request's draw is for it.
pub(super) fn copy(
    app: &Arc<App>,
    caller: &Caller,
    inbound: &Inbound,
    pool: &Arc<Pool>,
    asked: &Asked,
) {
    let Some(mirror) = pool.mirror.as_ref().filter(|mirror| mirror.takes(asked)) else { return };
    // A copy is in another key's name, but of what this caller says. What is kept here is not to
    // have an answer more that nobody has read.
    let names = caller
        .says
        .as_ref()
        .map_or(inbound.surface == Surface::Responses, |says| says.background || says.names());
    if asked.bars(&mirror.target) || names || caller.past.is_some() {
        return;
    }
    let Ok(place) = Arc::clone(&mirror.room).try_acquire_owned() else { return };
    let caller = match name(app, caller, mirror) {
        Ok(caller) => caller,
        Err(why) => {
            tracing::warn!(pool = pool.name, why, "no copy of a request was made");
            return;
        }
    };
    let (app, inbound, pool) = (Arc::clone(app), inbound.clone(), Arc::clone(pool));
    let least = asked.label;
    tokio::spawn(async move {
        let _place = place;
        let (Some(mirror), Some(inbound)) = (&pool.mirror, unkept(inbound)) else { return };
        let says = Outline::of(&inbound.body).map(Arc::new);
        let caller = Caller { says, ..caller };
        // Its own key may make it more secret than it was.
        let label = bill::label(&app, &caller, || inbound.ask(None)).map(|label| label.max(least));
        if label.is_ok_and(|label| label > mirror.target.max_label) {
            return;
        }
        let (app, caller, inbound, pool) = (&app, &caller, &inbound, &pool);
        let turn = Turn { app, caller, inbound, pool, is_read: false };
        let result = turn.copy(&mirror.target).await;
        let sent = |trouble: &Trouble| !matches!(trouble.about, About::Request | About::Unfit);
        if let Some(metrics) = pool.metrics().filter(|_| result.as_ref().err().is_none_or(sent)) {
            metrics.mirrored();
        }
        let (id, target) = (&*caller.request_id, &mirror.target.name);
        match result {
            Ok(response) => {
                let code = response.status().as_u16();
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                let ms = caller.arrived.elapsed().as_secs_f64() * 1e3;
                tracing::info!(id, pool_target = target, code, ms, "a copy was answered");
            }
            Err(Trouble { failure, about }) => {
                tracing::info!(
                    id,
                    pool_target = target,
                    ?about,
                    why = failure.error.message,
                    "a copy failed"
                );
            }
        }
    });
}

/// The same request, of whose answer nothing is kept; `None`: it cannot be read.
fn unkept(inbound: Inbound) -> Option<Inbound> {
    if inbound.surface != Surface::Responses {
        return Some(inbound);
    }
    let mut fields: Value = serde_json::from_slice(&inbound.body).ok()?;
    fields.as_object_mut()?.insert("store".to_owned(), Value::Bool(false));
    inbound.of_body(fields.to_string().into_bytes())
}

/// In whose name it is made. The request's id says what it is a copy of.
fn name(app: &App, caller: &Caller, mirror: &Mirror) -> Result<Caller, String> {
    let copy = format!("{}-copy", caller.request_id);
    let (Some(governor), Some(who)) = (app.door.governor(), &caller.who) else {
        return Ok(Caller { arrived: Instant::now(), request_id: copy.into(), ..caller.clone() });
    };
    let key = mirror.key.as_ref().map(Secret::reveal);
    let principal: Principal =
        governor.authenticate(key, who.peer()).map_err(|denied| denied.message)?;
    Ok(Caller::known(Arc::new(principal), copy.into(), who.peer(), Instant::now()))
}
