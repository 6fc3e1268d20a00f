//! A few threads that move states of grammars on and compute masks. What is handed to them comes
//! back, whatever becomes of it: the engine waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};

use crossbeam::channel::{Receiver, Sender, bounded};
use scheduler::types::Token;
use text::grammar::{Allowed, Grammar, GrammarFault, State};

/// Most threads: a mask takes tens of microseconds, a step of a crowd a few milliseconds.
const THREADS_MAX: usize = 4;

/// A sequence's state and mask, on its way to a worker and back.
pub(super) struct Work {
    pub(super) slot: u32,
    pub(super) life: u64,
    /// Whose state is to be made: that takes a lock of the grammar's, so it is a worker's.
    begins: Option<Arc<Grammar>>,
    state: Option<State>,
    /// Made, and not yet in the state.
    pub(super) tokens: Vec<Token>,
    /// Drafts behind the tokens: they never come into the state itself.
    pub(super) drafts: Vec<Token>,
    /// Tokens of a mask in words, as the tokenizer has them.
    words: usize,
    /// `[draws, words]`, where what is allowed is [`Allowed::Only`].
    masks: Vec<u32>,
    /// Whether tokens that must come are asked for.
    forces: bool,
    /// Tokens that must come behind the last of the draws.
    pub(super) forced: Vec<Token>,
    /// What may come behind the tokens, then behind each draft that may.
    pub(super) allowed: Vec<Allowed>,
    /// Why it cannot go on.
    pub(super) fault: Option<GrammarFault>,
}

impl Work {
    /// A sequence that begins, or comes back with the tokens that it made.
    pub(super) fn new(
        place: (u32, u64),
        grammar: &Arc<Grammar>,
        tokens: Vec<Token>,
        forces: bool,
    ) -> Self {
        let (slot, life) = place;
        Self {
            slot,
            life,
            begins: Some(Arc::clone(grammar)),
            state: None,
            tokens,
            drafts: Vec::new(),
            words: grammar.words(),
            masks: Vec::new(),
            forces,
            forced: Vec::new(),
            allowed: Vec::new(),
            fault: None,
        }
    }

    /// A sequence that cannot begin.
    pub(super) fn failed((slot, life): (u32, u64), why: GrammarFault) -> Self {
        Self {
            slot,
            life,
            begins: None,
            state: None,
            tokens: Vec::new(),
            drafts: Vec::new(),
            words: 0,
            masks: Vec::new(),
            forces: false,
            forced: Vec::new(),
            allowed: Vec::new(),
            fault: Some(why),
        }
    }

    /// The mask of a draw; `None`: any token may come.
    pub(super) fn mask(&self, draw: usize) -> Option<&[u32]> {
        let mask = || &self.masks[draw * self.words..][..self.words];
        (self.allowed[draw] == Allowed::Only).then(mask)
    }

    fn run(&mut self) {
        // The grammar engine is not ours: a defect in it must cost one sequence, not a thread
        // that somebody waits for.
        let moved = catch_unwind(AssertUnwindSafe(|| self.advance()));
        let panicked = |_| Err(GrammarFault("the grammar engine panicked".to_owned()));
        self.fault = moved.unwrap_or_else(panicked).err();
    }

    fn advance(&mut self) -> Result<(), GrammarFault> {
        self.allowed.clear();
        self.masks.clear();
        self.forced.clear();
        if let Some(grammar) = self.begins.take() {
            self.state = Some(grammar.start());
        }
        let mut state = self.state.take().expect("a state that was begun");
        for token in self.tokens.drain(..) {
            state.push(token)?;
        }
        self.may_follow(&mut state)?;
        if !self.drafts.is_empty() {
            // A clone walks ahead: nothing has to be taken back of drafts that are not drawn.
            let mut ahead = state.clone();
            for draw in 0..self.drafts.len() {
                let draft = self.drafts[draw];
                let may = self.mask(draw).is_none_or(|mask| allows(mask, draft));
                // What must come is told with the draw before it, and what cannot come is not
                // drawn. A bound that is met on the way may never be met for real.
                let goes_on = may && self.forced.is_empty() && ahead.push(draft).is_ok();
                if !goes_on || self.may_follow(&mut ahead).is_err() {
                    break;
                }
            }
        }
        self.state = Some(state);
        Ok(())
    }

    /// Adds what may follow a state, and what must.
    fn may_follow(&mut self, state: &mut State) -> Result<(), GrammarFault> {
        let from = self.masks.len();
        self.masks.resize(from + self.words, 0);
        let allowed = state.allowed(&mut self.masks[from..])?;
        self.allowed.push(allowed);
        if self.forces {
            state.forced(&mut self.forced);
        }
        Ok(())
    }
}

/// Whether a mask has the token's bit.
fn allows(mask: &[u32], token: Token) -> bool {
    mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

/// The engine's ends of both channels.
struct Ends {
    jobs: Sender<Box<Work>>,
    done: Receiver<Box<Work>>,
}

/// The threads.
pub(super) struct Pool {
    /// `None` when it ends.
    ends: Option<Ends>,
    threads: Vec<JoinHandle<()>>,
    room: usize,
    /// Handed out and not back.
    out: usize,
}

impl Pool {
    /// Threads for `room` pieces of work at once, at least 1.
    pub(super) fn new(room: usize) -> Self {
        // Half of the processors: on a CPU the forward pass runs beside them.
        let cores = available_parallelism().map_or(1, usize::from);
        let count = (cores / 2).clamp(1, THREADS_MAX);
        // Both hold all that can be out, so nobody ever waits to send.
        let (jobs, waiting) = bounded::<Box<Work>>(room);
        let (finished, done) = bounded(room);
        let thread = |i| {
            let (waiting, finished) = (waiting.clone(), finished.clone());
            let work = move || {
                for mut work in waiting {
                    work.run();
                    if finished.send(work).is_err() {
                        break;
                    }
                }
            };
            let named = std::thread::Builder::new().name(format!("masks-{i}"));
            named.spawn(work).expect("a thread")
        };
        let threads = (0..count).map(thread).collect();
        Self { ends: Some(Ends { jobs, done }), threads, room, out: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.out == self.room
    }

    /// There must be room.
    pub(super) fn send(&mut self, work: Box<Work>) {
        assert!(!self.is_full(), "{} pieces of work out", self.out);
        self.out += 1;
        let sent = self.ends().jobs.send(work);
        assert!(sent.is_ok(), "{THERE}");
    }

    /// Waits for any work that is out.
    pub(super) fn receive(&mut self) -> Box<Work> {
        assert!(self.out > 0, "nothing to wait for");
        self.out -= 1;
        self.ends().done.recv().expect(THERE)
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("a pool that has not ended")
    }
}

const THERE: &str = "workers end with the pool";

impl Drop for Pool {
    fn drop(&mut self) {
        // Without the other ends each worker stops behind what it has in hand.
        self.ends = None;
        for thread in self.threads.drain(..) {
            // Panics of the work are caught: there is nothing else to report.
            let _ = thread.join();
        }
    }
}
