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

#[derive(Default)]
struct State {
    spills: bool,
    /// Below half since then.
    calm: Option<Instant>,
    /// Looked at last.
    asked: Option<Instant>,
}

/// How the pressure stands to its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pressure {
    Low,
    Middle,
    High,
}

impl Overflow {
    pub(super) fn new(when: &OverflowWhen) -> Self {
        Self { when: when.clone(), state: Mutex::default() }
    }

    /// Whether others are to answer now.
    pub(super) fn spills(&self, own: &[Arc<Target>], view: &dyn View, now: Instant) -> bool {
        let pressure = self.pressure(own, view, now);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Of the least pressed local target: while one keeps the promise, nobody overflows.
    fn pressure(&self, own: &[Arc<Target>], view: &dyn View, now: Instant) -> Pressure {
        let locals = own.iter().filter_map(|target| {
            let Seat::Local(model) = &target.seat else { return None };
            let well = matches!(target.health.standing(now), Standing::Well | Standing::Probe);
            let local = view.local(model).filter(|_| well);
            Some(local.map_or(Pressure::High, |local| self.of(&local, target)))
        });
        let least = locals.min_by_key(|pressure| match pressure {
            Pressure::Low => 0,
            Pressure::Middle => 1,
            Pressure::High => 2,
        });
        least.unwrap_or(Pressure::Low)
    }

    fn of(&self, local: &Local, target: &Target) -> Pressure {
        let OverflowWhen { ttft_ms, queue, wait_ms } = self.when;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wait = ms(local.wait);
        let first = wait.saturating_add(ms(target.health.first_byte()));
        // A first byte of an idle engine is as fast as it gets: nobody flees from that.
        let first = if local.waiting == 0 { 0 } else { first };
        let bounds = [(ttft_ms, first), (queue, local.waiting), (wait_ms, wait)];
        let set = || bounds.iter().filter_map(|(bound, value)| bound.map(|bound| (bound, *value)));
        if set().any(|(bound, value)| value >= bound.max(1)) {
            Pressure::High
        } else if set().any(|(bound, value)| value * 2 >= bound.max(1)) {
            Pressure::Middle
        } else {
            Pressure::Low
        }
    }
}
