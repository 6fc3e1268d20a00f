//! Wakes of a future by its own parts.
//!
//! The halves of a connection tell each other through channels that there is more to do, and so
//! wake the task that is just polling both. The runtime takes that for a task that gives way: it
//! puts it to the end of its queue and wakes another thread to help, which costs more than a short
//! request. Here the future is polled again there and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Who is to be polled when a future can go on: itself while it is being polled, else its task.
pub(crate) struct LocalWakes {
    state: Arc<State>,
    /// What the future is polled with.
    waker: Waker,
}

#[derive(Default)]
struct State {
    phase: AtomicU8,
    task: AtomicWaker,
}

/// Nobody waits; the task waits; the future is being polled; it was woken meanwhile.
const RESTING: u8 = 0;
const WAITING: u8 = 1;
const POLLING: u8 = 2;
const WOKEN: u8 = 3;

/// How often a future is polled again before other tasks have their turn.
const AGAIN: usize = 3;

impl Default for LocalWakes {
    fn default() -> Self {
        let state = Arc::<State>::default();
        Self { waker: Arc::clone(&state).into(), state }
    }
}

impl LocalWakes {
    /// Polls until it is ready or waits for somebody else.
    pub(crate) fn poll<T>(
        &self,
        context: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let State { phase, task } = &*self.state;
        task.register(context.waker());
        for _ in 0..=AGAIN {
            phase.store(POLLING, Ordering::SeqCst);
            if let ready @ Poll::Ready(_) = poll(&mut Context::from_waker(&self.waker)) {
                phase.store(RESTING, Ordering::SeqCst);
                return ready;
            }
            let wait = |now| (now == POLLING).then_some(WAITING);
            if phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, wait).is_ok() {
                return Poll::Pending;
            }
        }
        // It may have used up its task's turn, and then is never done within it.
        phase.store(WAITING, Ordering::SeqCst);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let next = |now| match now {
            POLLING => Some(WOKEN),
            WAITING => Some(RESTING),
            _ => None,
        };
        let before = self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        if before == Ok(WAITING) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicU8);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_woken_while_it_is_polled_is_polled_again_and_its_task_is_not() {
        let (wakes, task) = (LocalWakes::default(), Arc::new(Woken::default()));
        let outer = Waker::from(Arc::clone(&task));
        let woken = || task.0.swap(0, Ordering::SeqCst);
        // Wakes itself in the first polls, and is ready in one of them.
        let run = |itself: usize, ready: usize| {
            let mut polls = 0;
            let polled = wakes.poll(&Context::from_waker(&outer), |context| {
                polls += 1;
                if polls <= itself {
                    context.waker().wake_by_ref();
                }
                if polls == ready { Poll::Ready(()) } else { Poll::Pending }
            });
            (polls, polled.is_ready())
        };
        assert_eq!((run(0, 9), woken()), ((1, false), 0));
        wakes.waker.wake_by_ref();
        wakes.waker.wake_by_ref();
        assert_eq!(woken(), 1, "it waits, and is woken once");
        assert_eq!((run(1, 9), woken()), ((2, false), 0));
        assert_eq!((run(2, 2), woken()), ((2, true), 0));
        wakes.waker.wake_by_ref();
        assert_eq!(woken(), 0, "whoever has got something polls again anyway");
        assert_eq!((run(usize::MAX, 9), woken()), ((1 + AGAIN, false), 1), "others have a turn");
        wakes.waker.wake_by_ref();
        assert_eq!(woken(), 1);
    }

    #[test]
    fn no_wake_is_lost_between_threads() {
        for _ in 0..2_000 {
            let (wakes, task) = (LocalWakes::default(), Arc::new(Woken::default()));
            let (outer, inner) = (Waker::from(Arc::clone(&task)), wakes.waker.clone());
            let done = Arc::new(AtomicU8::new(0));
            let theirs = Arc::clone(&done);
            let other = std::thread::spawn(move || {
                theirs.store(1, Ordering::SeqCst);
                inner.wake();
            });
            let polled =
                wakes.poll(&Context::from_waker(&outer), |_| match done.load(Ordering::SeqCst) {
                    0 => Poll::Pending,
                    _ => Poll::Ready(()),
                });
            other.join().expect("no panic");
            assert!(polled.is_ready() || task.0.load(Ordering::SeqCst) == 1);
        }
    }
}
