//! When something that fails is left alone for a while, and when it is tried again: after failures
//! in a row, and then with one request at a time. Knows no clock, and nothing of what it is for.

use std::time::{Duration, Instant};

/// Failures in a row after which it is left alone for a while.
pub(crate) const FAILURES: u32 = 3;
/// The first pause; each failed try after one doubles it.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// In a row.
    failures: u32,
    /// Left alone until then.
    until: Option<Instant>,
    /// The end of the last pause. What was asked before it says nothing new.
    last: Option<Instant>,
    pause: Duration,
    /// One request looks whether it is well again, since then.
    probing: Option<Instant>,
}

/// Whether it may be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Yes.
    Well,
    /// Once, to see whether it is well again.
    Probe,
    /// Not for so long.
    Broken(Duration),
}

impl Breaker {
    /// Whether it may be asked.
    pub(crate) fn condition(&self, now: Instant) -> Condition {
        let Some(until) = self.until else { return Condition::Well };
        match until.checked_duration_since(now).filter(|left| !left.is_zero()) {
            Some(left) => Condition::Broken(left),
            // One that is waited for so long is one that nobody learns from.
            None if self.probing.is_some_and(|since| now < since + PAUSE_MAX) => {
                Condition::Broken(PAUSE)
            }
            None => Condition::Probe,
        }
    }

    /// It is asked now; `true`: to see whether it is well again.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let probes = self.condition(now) == Condition::Probe;
        if probes {
            self.probing = Some(now);
        }
        probes
    }

    /// The one request that looked tells nothing.
    pub(crate) fn unknown(&mut self) {
        self.probing = None;
    }

    /// It failed at what it was asked then. Some: it is left alone from now on, for so long. What
    /// it was asked before it was to be tried again says nothing new: of many that were under way
    /// together each would make the pause longer.
    pub(crate) fn failed(&mut self, asked: Instant, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if self.is_old(asked) || self.failures < FAILURES && self.probing.is_none() {
            return None;
        }
        self.probing = None;
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        self.until = Some(now + self.pause);
        self.last = self.until;
        Some(self.pause)
    }

    /// An answer has begun to what it was asked then; `true`: it was left alone until now.
    pub(crate) fn answered(&mut self, asked: Instant) -> bool {
        if self.is_old(asked) {
            return false;
        }
        self.probing = None;
        self.until.take().is_some()
    }

    /// An answer came to its end. Not before that is it well: who breaks off every answer in the
    /// middle begins well each time.
    pub(crate) fn ended(&mut self, asked: Instant) {
        if !self.is_old(asked) {
            (self.failures, self.pause) = (0, Duration::ZERO);
        }
    }

    /// It has failed, and has not answered since.
    pub(crate) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// It is another than it was, and may be tried now.
    pub(crate) fn renewed(&mut self, now: Instant) {
        self.until = self.until.map(|until| until.min(now));
        self.pause = Duration::ZERO;
    }

    fn is_old(&self, asked: Instant) -> bool {
        self.last.is_some_and(|last| asked < last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(breaker: &mut Breaker, now: Instant) -> bool {
        breaker.begin(now);
        breaker.failed(now, now).is_some()
    }

    #[test]
    fn left_alone_after_failures_and_tried_by_one() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let fails: Vec<bool> = (0..FAILURES).map(|_| asked(&mut breaker, now)).collect();
        assert_eq!(fails, [false, false, true]);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
            assert_eq!(breaker.condition(now), Condition::Broken(pause));
            assert!(!breaker.begin(now), "whoever asks now does not look for others");
            now += pause;
            assert_eq!(breaker.condition(now), Condition::Probe);
            assert!(breaker.begin(now) && !breaker.begin(now), "one at a time");
            assert_eq!(breaker.condition(now), Condition::Broken(PAUSE));
            assert_eq!(breaker.condition(now + PAUSE_MAX), Condition::Probe, "but not for ever");
            breaker.unknown();
            assert_eq!(breaker.condition(now), Condition::Probe);
            assert!(asked(&mut breaker, now));
        }
        now += PAUSE_MAX;
        assert!(breaker.begin(now) && breaker.answered(now) && !breaker.answered(now));
        assert_eq!(breaker.condition(now), Condition::Well);
        assert!(asked(&mut breaker, now), "no answer has ended yet");
        now += PAUSE_MAX;
        assert!(breaker.begin(now) && breaker.answered(now));
        breaker.ended(now);
        for fails in [false, false, true] {
            assert_eq!(asked(&mut breaker, now), fails);
        }
        assert_eq!(breaker.condition(now), Condition::Broken(PAUSE));
    }

    #[test]
    fn what_fails_together_fails_once() {
        let (mut breaker, begun) = (Breaker::default(), Instant::now());
        let later = begun + Duration::from_millis(1);
        for number in 1..50 {
            assert_eq!(breaker.failed(begun, later).is_some(), number == FAILURES);
        }
        // Nor do those make it longer that have nobody else to ask.
        assert!(!asked(&mut breaker, later));
        assert_eq!(breaker.condition(later), Condition::Broken(PAUSE));
        // Nor does what answers late bring it back, or make the next failure a new one.
        assert!(!breaker.answered(begun));
        breaker.ended(begun);
        assert!(breaker.failed(begun, later).is_none() && breaker.is_open());
        let again = later + PAUSE;
        assert_eq!([0; 9].map(|_| breaker.failed(again, again)).iter().flatten().count(), 1);
        assert_eq!(breaker.condition(again), Condition::Broken(PAUSE * 2));
        breaker.renewed(again);
        assert_eq!(breaker.condition(again), Condition::Probe);
    }
}
