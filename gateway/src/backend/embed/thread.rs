//! The thread that owns a model: takes requests, fills steps, hands vectors back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use scheduler::Stats;
use scheduler::types::{Fault, Refusal};
use tokio::sync::oneshot;

use super::{Answer, Embed, Input, Message, Shared, Took};

/// A request: its inputs, and what has been made of them.
pub(super) struct Work {
    inputs: Vec<Input>,
    vectors: Vec<Vec<f32>>,
    /// Inputs from here on were in no step yet.
    next: usize,
    /// Inputs whose vectors are not there yet.
    missing: usize,
    /// Tokens that are not computed yet.
    tokens: usize,
    answer: oneshot::Sender<Answer>,
    taken: Instant,
    started: Option<Instant>,
    deadline: Option<Instant>,
}

impl Work {
    pub(super) fn new(
        inputs: Vec<Input>,
        tokens: usize,
        answer: oneshot::Sender<Answer>,
        deadline: Option<Instant>,
    ) -> Self {
        let missing = inputs.len();
        let vectors = vec![Vec::new(); missing];
        let taken = Instant::now();
        Self { inputs, vectors, next: 0, missing, tokens, answer, taken, started: None, deadline }
    }

    fn took(&self) -> Took {
        let started = self.started.unwrap_or_else(Instant::now);
        Took {
            queue_us: micros(started.saturating_duration_since(self.taken)),
            compute_us: micros(started.elapsed()),
        }
    }
}

pub(super) struct Driver<E> {
    model: E,
    commands: Receiver<Message>,
    shared: Arc<Shared>,
    /// In the order of their turns.
    open: VecDeque<Work>,
    reported: Stats,
    /// A step was computed.
    warm: bool,
}

/// Which input of which request stands in a step.
type Place = (usize, usize);

impl<E: Embed> Driver<E> {
    pub(super) fn new(model: E, commands: Receiver<Message>, shared: Arc<Shared>) -> Self {
        let (open, reported) = (VecDeque::new(), Stats::default());
        Self { model, commands, shared, open, reported, warm: false }
    }

    /// Runs to the end of its life; then every open request is told.
    pub(super) fn run_to_end(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.life.run(|| self.run());
        while let Ok(message) = self.commands.try_recv() {
            self.take(message);
        }
        let why = shared.life.why_stopped();
        for work in std::mem::take(&mut self.open) {
            self.end(work, Err(Refusal::Engine(why.clone())));
        }
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            while let Ok(message) = self.commands.try_recv() {
                self.take(message);
            }
            self.shared.life.turns();
            self.drop_stale();
            self.report();
            let draining = self.shared.life.drains();
            let idle = self.open.is_empty() && self.shared.open.load(Ordering::SeqCst) == 0;
            if self.shared.life.stops() || draining && idle {
                return Ok(());
            }
            if self.open.is_empty() {
                self.shared.life.waits();
                // Nothing to do; without handles there never will be.
                let Ok(message) = self.commands.recv() else { return Ok(()) };
                self.shared.life.turns();
                self.take(message);
            } else {
                self.step()?;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(work) => self.open.push_back(work),
            Message::Nudge => {}
        }
    }

    /// Ends requests whose caller has left or whose time is up.
    fn drop_stale(&mut self) {
        let now = Instant::now();
        for work in std::mem::take(&mut self.open) {
            if work.answer.is_closed() {
                self.shared.ended(work.tokens);
            } else if work.deadline.is_some_and(|deadline| deadline <= now) {
                self.end(work, Err(Refusal::Deadline));
            } else {
                self.open.push_back(work);
            }
        }
    }

    /// Computes what fits into a step and hands out what is complete.
    fn step(&mut self) -> Result<(), String> {
        let places = plan(&mut self.open, self.model.step_tokens());
        let input = |&(work, index): &Place| &self.open[work].inputs[index];
        let inputs: Vec<&Input> = places.iter().map(input).collect();
        let tokens = inputs.iter().map(|input| input.ids.len()).sum();
        let start = Instant::now();
        self.shared.metrics.launched(tokens);
        let result = self.model.embed(&inputs);
        let took = start.elapsed();
        self.shared.metrics.collected(took);
        self.learn(took, tokens);
        let vectors = match result {
            Ok(vectors) => vectors,
            Err(Fault::Dead(why)) => return Err(format!("the device is gone: {why}")),
            // Nothing that a step leaves on the device is needed by the next.
            Err(Fault::Step(why) | Fault::Lost(why)) => {
                self.fail(&places, &why);
                return Ok(());
            }
        };
        assert_eq!(vectors.len(), places.len(), "one vector per input");
        for (&(work, index), vector) in places.iter().zip(vectors) {
            let work = &mut self.open[work];
            let tokens = std::mem::take(&mut work.inputs[index]).ids.len();
            work.tokens -= tokens;
            self.shared.tokens.fetch_sub(tokens, Ordering::SeqCst);
            work.vectors[index] = vector;
            work.missing -= 1;
            work.started.get_or_insert(start);
        }
        for mut work in std::mem::take(&mut self.open) {
            if work.missing == 0 {
                let vectors = std::mem::take(&mut work.vectors);
                let took = work.took();
                self.end(work, Ok((vectors, took)));
            } else {
                self.open.push_back(work);
            }
        }
        Ok(())
    }

    /// Requests with an input in a step that failed end with it.
    fn fail(&mut self, places: &[Place], why: &str) {
        for (at, work) in std::mem::take(&mut self.open).into_iter().enumerate() {
            if places.iter().any(|&(failed, _)| failed == at) {
                self.end(work, Err(Refusal::Engine(why.to_owned())));
            } else {
                self.open.push_back(work);
            }
        }
    }

    /// A request's last word. Its place is free before, so that who reads it finds it so.
    fn end(&self, work: Work, answer: Answer) {
        self.shared.ended(work.tokens);
        let _ = work.answer.send(answer);
    }

    /// A running mean over about eight steps: steady, yet soon right after a change.
    fn learn(&mut self, took: Duration, tokens: usize) {
        // The first step also makes what the others find: kernels, pages of the weights.
        if !std::mem::replace(&mut self.warm, true) {
            return;
        }
        let tokens = u64::try_from(tokens.max(1)).unwrap_or(u64::MAX);
        let each = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / tokens;
        let before = self.shared.ns_per_token.load(Ordering::Relaxed);
        let mean = if before == 0 { each } else { (before * 7 + each) / 8 };
        self.shared.ns_per_token.store(mean, Ordering::Relaxed);
    }

    fn report(&mut self) {
        let running = self.open.iter().filter(|work| work.started.is_some()).count();
        let waiting = self.open.len() - running;
        self.shared.running.store(running, Ordering::Relaxed);
        let now = Stats { running, waiting, ..Stats::default() };
        if now != self.reported {
            self.shared.metrics.stats(&self.reported, &now);
            self.reported = now;
        }
    }
}

/// The inputs of the next step: one of each request in turn, as long as they fit; whoever does
/// not fit is the first of the step after it. The first input is taken whatever its length.
fn plan(open: &mut VecDeque<Work>, budget: usize) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let (mut left, mut first) = (budget, None);
    // So many requests one after the other had nothing that fits.
    let (mut passed, mut turn) = (0, 0);
    while passed < open.len() {
        let at = turn % open.len();
        turn += 1;
        let work = &mut open[at];
        let Some(input) = work.inputs.get(work.next) else {
            passed += 1;
            continue;
        };
        let tokens = input.ids.len();
        if tokens <= left || places.is_empty() {
            places.push((at, work.next));
            work.next += 1;
            left = left.saturating_sub(tokens);
            passed = 0;
        } else {
            first.get_or_insert(at);
            passed += 1;
        }
    }
    let first = first.unwrap_or(0);
    open.rotate_left(first);
    let len = open.len();
    places.iter_mut().for_each(|(work, _)| *work = (*work + len - first) % len);
    places
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests by the lengths of their inputs, and the steps that they become, as
    /// (request, input).
    fn check(requests: &[&[usize]], budget: usize, expect: &[&[Place]]) {
        let mut open: VecDeque<Work> = VecDeque::new();
        for (name, lengths) in requests.iter().enumerate() {
            let input = |&len: &usize| Input { ids: vec![0; len], ..Input::default() };
            let inputs = lengths.iter().map(input).collect();
            let (answer, _) = oneshot::channel();
            // Its tokens do not matter here; they keep its name while the line turns.
            open.push_back(Work::new(inputs, name, answer, None));
        }
        let mut steps = Vec::new();
        loop {
            let places = plan(&mut open, budget);
            if places.is_empty() {
                break;
            }
            let step: Vec<Place> = places.iter().map(|&(at, n)| (open[at].tokens, n)).collect();
            steps.push(step);
        }
        assert_eq!(steps, expect, "{requests:?} in steps of {budget}");
    }

    #[test]
    fn steps_take_turns() {
        check(&[], 10, &[]);
        check(&[&[3, 3, 3]], 10, &[&[(0, 0), (0, 1), (0, 2)]]);
        check(&[&[6, 6], &[2]], 10, &[&[(0, 0), (1, 0)], &[(0, 1)]]);
        // A long request does not keep a short one waiting.
        check(&[&[5, 5, 5, 5], &[5]], 10, &[&[(0, 0), (1, 0)], &[(0, 1), (0, 2)], &[(0, 3)]]);
        // What is longer than a step is computed alone.
        check(&[&[25], &[4]], 10, &[&[(0, 0)], &[(1, 0)]]);
        // Who does not fit comes first in the next step.
        check(&[&[8, 8], &[8], &[1, 1]], 10, &[&[(0, 0), (2, 0), (2, 1)], &[(1, 0)], &[(0, 1)]]);
    }
}
