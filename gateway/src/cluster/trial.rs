//! What comes of a request at a node, as far as it says how well the node does at a model. It may
//! speak and fail at every request that it gets; its line is short then and it may hold what is
//! asked, so it would be asked first again and again.
//!
//! A node without room and a request that is at fault itself say nothing.

use std::sync::Arc;
use std::time::Instant;

use super::member::Member;
use crate::breaker::Breaker;

/// A request for which a node was chosen. Dropped, it says nothing more.
pub(super) struct Trial {
    member: Arc<Member>,
    /// The model's name.
    model: Arc<str>,
    begun: Instant,
    /// It is the one that looks whether the node is well again.
    probes: bool,
    answers: bool,
}

impl Trial {
    /// Begins where the node is chosen, not where the request is sent: between the two others are
    /// chosen for.
    pub(super) fn new(member: &Arc<Member>, model: &Arc<str>) -> Self {
        let begun = Instant::now();
        let probes = member.learn(model, |breaker| breaker.begin(begun));
        let (member, model) = (Arc::clone(member), Arc::clone(model));
        Self { member, model, begun, probes, answers: false }
    }

    fn learn<T>(&self, tell: impl FnOnce(&mut Breaker) -> T) -> T {
        self.member.learn(&self.model, tell)
    }

    /// Something of an answer is there.
    pub(super) fn answers(&mut self) {
        if std::mem::replace(&mut self.answers, true) {
            return;
        }
        self.probes = false;
        let begun = self.begun;
        if self.learn(|breaker| breaker.answered(begun)) {
            let model = &*self.model;
            tracing::info!(node = %self.member.endpoint, model, "a node answers again");
        }
    }

    /// It did all that was asked of it.
    pub(super) fn ended(&mut self) {
        self.answers();
        let begun = self.begun;
        self.learn(|breaker| breaker.ended(begun));
    }

    /// It failed.
    pub(super) fn failed(&mut self) {
        let (begun, now) = (self.begun, Instant::now());
        self.probes = false;
        if let Some(pause) = self.learn(|breaker| breaker.failed(begun, now)) {
            let (node, model, pause_s) = (&self.member.endpoint, &*self.model, pause.as_secs());
            tracing::warn!(%node, model, pause_s, "a node fails at requests, and is left alone");
        }
    }

    /// It is late: it should have said something long ago.
    pub(super) fn late(&mut self) {
        if !self.answers {
            self.failed();
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.probes {
            self.learn(Breaker::unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::breaker::{FAILURES, PAUSE};

    /// What comes of a trial; whether the node is well while it is under way, and behind it.
    type Case = (fn(&mut Trial), bool, bool);

    /// A node that is to be tried again now.
    fn member() -> Arc<Member> {
        let member = Member::new("http://127.0.0.1:1".parse().expect("an endpoint"));
        let then = Instant::now().checked_sub(PAUSE * 2).expect("the machine is older");
        for _ in 0..FAILURES {
            member.learn("m", |breaker| breaker.failed(then, then));
        }
        assert!(member.is_well("m"), "it may be tried");
        member
    }

    #[test]
    fn one_tries_and_what_comes_of_it_counts_when_it_comes() {
        let outcomes: [Case; 5] = [
            (|_| {}, false, true),
            (Trial::answers, true, true),
            (Trial::ended, true, true),
            (Trial::failed, false, false),
            (Trial::late, false, false),
        ];
        for (at, (outcome, under_way, behind)) in outcomes.into_iter().enumerate() {
            let member = member();
            let mut trial = Trial::new(&member, &"m".into());
            assert!(!member.is_well("m"), "{at}: one at a time");
            drop(Trial::new(&member, &"m".into()));
            assert!(!member.is_well("m"), "{at}: another tells nothing of the one");
            assert!(member.is_well("other"), "{at}: nor does one model of another");
            outcome(&mut trial);
            assert_eq!(member.is_well("m"), under_way, "{at}");
            drop(trial);
            assert_eq!(member.is_well("m"), behind, "{at}");
        }
    }

    #[test]
    fn what_has_begun_is_not_late() {
        let member = member();
        let mut trial = Trial::new(&member, &"m".into());
        trial.answers();
        trial.late();
        assert!(member.is_well("m"));
        let failed = |member| {
            let mut trial = Trial::new(member, &"m".into());
            trial.answers();
            trial.failed();
        };
        failed(&member);
        assert!(!member.is_well("m"), "no answer has ended since it failed");
        let left =
            member.learn("m", |breaker| breaker.condition(Instant::now() + Duration::from_secs(3)));
        assert_eq!(left, crate::breaker::Condition::Probe);
    }
}
