//! What follows behind an answer: that a request has ended, what it has really used, and that those
//! which run still run. One task tells the server, many in one call; nobody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Pipeline, Script};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};

use super::link::Link;
use super::place::{Cost, Place, Places};
use super::{Settings, at, micros, script};

/// Ends that go to the server in one call. Requests that ask meanwhile wait behind them: a
/// millisecond or two.
const BATCH: usize = 64;

/// Holders that are renewed by one command.
const HOLDERS: usize = 512;

/// Longest wait for the server to take a batch. No request waits for that.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request has ended.
pub(super) struct End {
    holder: String,
    places: Vec<Place>,
    /// Tokens that it counts for, and that it has used.
    change: (u64, u64),
}

impl End {
    /// `None`: the server need not hear of it.
    pub(super) fn new(holder: String, places: Places, change: (u64, u64)) -> Option<Self> {
        let tokens = |place: &Place| change.0 != change.1 && place.tokens_per_minute.is_some();
        let mut places = places.0;
        places.retain(|place| place.concurrent || tokens(place));
        (!places.is_empty()).then_some(Self { holder, places, change })
    }

    fn tell(&self, pipe: &mut Pipeline, script: &Script, settings: &Settings) {
        let (before, used) = self.change;
        let mut call = script.prepare_invoke();
        at(call.arg("end"), &settings.clock);
        call.arg(&self.holder);
        for place in &self.places {
            call.key(&place.rates).key(&place.running);
            let limit = place.tokens_per_minute.filter(|_| before != used);
            let cost = limit.map_or(Cost::NONE, |limit| Cost::of(before.abs_diff(used), limit));
            let cost = if used < before { cost.back() } else { cost };
            call.arg(cost.us).arg(cost.parts).arg(cost.rate).arg(i32::from(place.concurrent));
        }
        pipe.invoke_script(&call).ignore();
    }
}

/// The requests of this gateway that hold a place among those that run at once.
#[derive(Default)]
pub(super) struct Running {
    holders: Mutex<HashMap<String, Vec<String>>>,
    /// Ends that found no room since it was last said.
    dropped: AtomicU64,
}

impl Running {
    pub(super) fn begin(&self, holder: &str, places: &Places) {
        let bounded = places.0.iter().filter(|place| place.concurrent);
        let names: Vec<String> = bounded.map(|place| place.running.clone()).collect();
        if !names.is_empty() {
            self.holders().insert(holder.to_owned(), names);
        }
    }

    pub(super) fn end(&self, holder: &str) {
        self.holders().remove(holder);
    }

    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// All holders, by the counters that they stand in.
    fn by_place(&self) -> HashMap<String, Vec<String>> {
        let mut places: HashMap<String, Vec<String>> = HashMap::new();
        for (holder, names) in self.holders().iter() {
            for name in names {
                places.entry(name.clone()).or_default().push(holder.clone());
            }
        }
        places
    }

    fn renew(&self, pipe: &mut Pipeline, script: &Script, settings: &Settings) {
        for (place, holders) in self.by_place() {
            for some in holders.chunks(HOLDERS) {
                let mut call = script.key(&place);
                at(call.arg("renew"), &settings.clock);
                call.arg(micros(settings.hold));
                some.iter().for_each(|holder| {
                    call.arg(holder);
                });
                pipe.invoke_script(&call).ignore();
            }
        }
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the server, for as long as there is somebody to hear of. What cannot be told is let go:
/// places free themselves, and for tokens the estimate stands.
pub(super) async fn work(
    mut ends: Receiver<End>,
    link: Arc<Link>,
    running: Arc<Running>,
    settings: Settings,
) {
    let script = script();
    let mut batch = Vec::with_capacity(BATCH);
    let mut turn = interval(settings.renew);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut pipe = Pipeline::new();
        // The server forgets scripts when it is told to.
        pipe.load_script(&script).ignore();
        tokio::select! {
            taken = ends.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return;
                }
                batch.drain(..).for_each(|end: End| end.tell(&mut pipe, &script, &settings));
            }
            () = tick(&mut turn, &link) => {
                running.renew(&mut pipe, &script, &settings);
                let dropped = running.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!(dropped, "ends of requests did not get to the server of rates");
                }
            }
        }
        let Some(open) = link.open() else { continue };
        let mut connection = open.connection.clone();
        link.answer(&open, PATIENCE, pipe.exec_async(&mut connection)).await;
    }
}

/// Time to renew: after a while, and when the server is there again.
async fn tick(turn: &mut tokio::time::Interval, link: &Link) {
    tokio::select! {
        _ = turn.tick() => {}
        () = link.back.notified() => {}
    }
}
