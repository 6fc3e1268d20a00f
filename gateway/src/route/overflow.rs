//! Overflow: when the local targets would keep a caller waiting longer than was promised, others
//! answer. It begins at once and ends slowly, so that requests do not go back and forth while the
//! queue is near its bound.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::target::{Seat, Standing, Target};
use super::{Local, View};
use crate::config::routing::OverflowWhen;

/// It ends when the pressure has been below half of each bound for this long.
const CALM: Duration = Duration::from_secs(2);

/// When others answer.
pub(super) struct Overflow {
    when: OverflowWhen,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    spills: bool,
    /// Below half since then.
    calm: Option<Instant>,
    /// Looked at last.
    asked: Option<Instant>,
}

/// What is told of it: its bounds, and what stands against them now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressed {
    /// Others would answer a request now.
    pub on: bool,
    /// The bounds.
    pub when: OverflowWhen,
    /// What each local target has, and how that stands to the bounds; `None`: it is not there.
    pub now: Vec<(String, Pressure, Option<OverflowWhen>)>,
}

/// How the pressure stands to its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Below half of each bound.
    Low,
    /// Below each bound.
    Middle,
    /// One bound is reached.
    High,
}

impl Pressure {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Middle => "middle",
            Self::High => "high",
        }
    }
}

impl Overflow {
    pub(super) fn new(when: &OverflowWhen) -> Self {
        Self { when: when.clone(), state: Mutex::default() }
    }

    /// Whether others are to answer now. With `looks_only`, nothing is remembered of the question.
    pub(super) fn spills(
        &self,
        own: &[Arc<Target>],
        view: &dyn View,
        (now, looks_only): (Instant, bool),
    ) -> bool {
        let pressure = self.pressure(own, view, now);
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copy = held.clone();
        let state = if looks_only { &mut copy } else { &mut *held };
        state.asked = Some(now);
        match pressure {
            Pressure::High => (state.spills, state.calm) = (true, None),
            Pressure::Middle => state.calm = None,
            Pressure::Low if state.spills => {
                let since = *state.calm.get_or_insert(now);
                state.spills = now.saturating_duration_since(since) < CALM;
            }
            Pressure::Low => {}
        }
        state.spills
    }

    /// Whether others answer, as of the last request. Without requests it ends by itself.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.spills && now.saturating_duration_since(state.asked.unwrap_or(now)) < CALM
    }

    /// What is told of it. Changes nothing.
    pub(super) fn told(&self, own: &[Arc<Target>], view: &dyn View, now: Instant) -> Pressed {
        let each = self.each(own, view, now);
        let each = each.map(|(target, pressure, has)| (target.name.clone(), pressure, has));
        let on = self.spills(own, view, (now, true));
        Pressed { on, when: self.when.clone(), now: each.collect() }
    }

    /// Of the least pressed local target: while one keeps the promise, nobody overflows.
    fn pressure(&self, own: &[Arc<Target>], view: &dyn View, now: Instant) -> Pressure {
        let least = self.each(own, view, now).map(|(_, pressure, _)| pressure);
        let least = least.min_by_key(|pressure| match pressure {
            Pressure::Low => 0,
            Pressure::Middle => 1,
            Pressure::High => 2,
        });
        least.unwrap_or(Pressure::Low)
    }

    /// The local targets, and what each has against the bounds.
    fn each<'a>(
        &'a self,
        own: &'a [Arc<Target>],
        view: &'a dyn View,
        now: Instant,
    ) -> impl Iterator<Item = (&'a Target, Pressure, Option<OverflowWhen>)> {
        own.iter().filter_map(move |target| {
            let Seat::Local(model) = &target.seat else { return None };
            let well = matches!(target.health.standing(now), Standing::Well | Standing::Probe);
            let has = view.local(model).filter(|_| well).map(|local| has(&local, target));
            let pressure = has.as_ref().map_or(Pressure::High, |has| self.of(has));
            Some((&**target, pressure, has))
        })
    }

    fn of(&self, has: &OverflowWhen) -> Pressure {
        let OverflowWhen { ttft_ms, queue, wait_ms } = self.when;
        let bounds = [(ttft_ms, has.ttft_ms), (queue, has.queue), (wait_ms, has.wait_ms)];
        let set = || bounds.iter().filter_map(|(bound, value)| Some(((*bound)?, (*value)?)));
        if set().any(|(bound, value)| value >= bound.max(1)) {
            Pressure::High
        } else if set().any(|(bound, value)| value.saturating_mul(2) >= bound.max(1)) {
            Pressure::Middle
        } else {
            Pressure::Low
        }
    }
}

/// What a target has against bounds.
fn has(local: &Local, target: &Target) -> OverflowWhen {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let wait = ms(local.wait);
    let first = wait.saturating_add(ms(target.health.first_byte()));
    // A first byte of an idle engine is as fast as it gets: nobody flees from that.
    let first = if local.waiting == 0 { 0 } else { first };
    OverflowWhen { ttft_ms: Some(first), queue: Some(local.waiting), wait_ms: Some(wait) }
}
