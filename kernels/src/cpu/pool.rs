//! A fixed pool of threads that run the tasks of one op at a time.
//!
//! Tasks are claimed one by one, so a thread that the system does not schedule costs nothing: the
//! others, the caller among them, take its share, and nobody waits for a thread that has claimed
//! nothing. Idle threads spin for a moment, then yield, then sleep: two threads on one shared core
//! must not be slower than one. It does not know what the tasks compute.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Looks at the flag between two pauses before giving the core away: some microseconds, about the
/// gap between two ops of a decoder step.
const SPINS: usize = 200;
/// Offers of the core to other threads before sleeping.
const YIELDS: usize = 100;

type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The op that is being run. Only read by a thread that holds a claimed, unfinished task.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    tasks: usize,
}

/// A counter on a cache line of its own.
#[repr(align(128))]
struct Padded(AtomicUsize);

struct Shared {
    /// Tasks nobody has claimed. Set by the caller, counted down by claims.
    unclaimed: Padded,
    /// Tasks that have returned.
    finished: Padded,
    job: UnsafeCell<Job>,
    /// Threads asleep on `wake`, changed under `sleep`.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// The caller sleeps on `done`, changed under `sleep`.
    caller_sleeps: AtomicBool,
    done: Condvar,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the one caller (it holds `Pool::busy`) while no task is claimed, and
// read only by threads that hold a claimed task; `unclaimed` orders the two. What it points to is
// `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Claims and runs tasks until none is left.
    fn work(&self, worker: usize) {
        let mut left = self.unclaimed.0.load(Ordering::Acquire);
        while left > 0 {
            let claim = self.unclaimed.0.compare_exchange_weak(
                left,
                left - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match claim {
                Ok(_) => {
                    self.run_claimed(left, worker);
                    left = self.unclaimed.0.load(Ordering::Acquire);
                }
                Err(now) => left = now,
            }
        }
    }

    fn run_claimed(&self, left: usize, worker: usize) {
        // SAFETY: this thread holds a claimed task that is not finished, so the caller is still
        // inside `run`: `job` is not written and the closure is alive.
        let (job, work) = unsafe {
            let job = *self.job.get();
            (job, &*job.work)
        };
        let task = job.tasks - left;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(task, worker))) {
            lock(&self.panic).get_or_insert(panic);
        }
        // After this the caller may return: neither `job` nor `work` is touched again.
        if self.finished.0.fetch_add(1, Ordering::SeqCst) + 1 == job.tasks
            && self.caller_sleeps.load(Ordering::SeqCst)
        {
            let _guard = lock(&self.sleep);
            self.done.notify_one();
        }
    }

    fn worker_loop(&self, worker: usize) {
        let ready =
            || self.unclaimed.0.load(Ordering::SeqCst) > 0 || self.stop.load(Ordering::SeqCst);
        loop {
            if !wait_awake(ready) {
                let mut guard = lock(&self.sleep);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while !ready() {
                    guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            self.work(worker);
        }
    }

    /// The caller has no more to claim: waits for the tasks that others still run.
    fn wait_finished(&self, tasks: usize) {
        let finished = || self.finished.0.load(Ordering::SeqCst) == tasks;
        if wait_awake(finished) {
            return;
        }
        let mut guard = lock(&self.sleep);
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !finished() {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }
}

/// Waits a moment without sleeping; whether `ready` came true.
fn wait_awake(ready: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if ready() {
            return true;
        }
        std::hint::spin_loop();
    }
    for _ in 0..YIELDS {
        if ready() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Threads that run the tasks of one op at a time; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held during a run.
    busy: Mutex<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller included; at least one. If the system refuses a
    /// thread, the pool is smaller: see [`Pool::threads`].
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let nothing: &Work<'static> = &|_, _| ();
        let shared = Arc::new(Shared {
            unclaimed: Padded(AtomicUsize::new(0)),
            finished: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { work: nothing, tasks: 0 }),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            caller_sleeps: AtomicBool::new(false),
            done: Condvar::new(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let spawn = |worker: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("kernel-{worker}"))
                .spawn(move || shared.worker_loop(worker))
        };
        let threads = (1..threads).map_while(|worker| spawn(worker).ok()).collect();
        Self { shared, busy: Mutex::new(()), threads }
    }

    /// Threads that take part in a run: worker numbers are below this.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work(task, worker)` once for every task below `tasks`, in no set order, and returns
    /// when all have returned. No two calls that run at once have the same `worker`; the caller is
    /// worker 0. A run inside a run, or beside another thread's, is done by its caller alone.
    ///
    /// # Panics
    /// Passes on the first panic of a task, after the others have returned.
    pub fn run(&self, tasks: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let alone = tasks <= 1 || self.threads.is_empty();
        let guard = if alone { None } else { self.busy.try_lock().ok() };
        if guard.is_none() {
            (0..tasks).for_each(|task| work(task, 0));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is read only by threads that hold a
        // claimed task, and this function returns after all tasks have finished.
        let work: *const Work<'static> =
            unsafe { std::mem::transmute(std::ptr::from_ref::<Work<'_>>(work)) };
        // SAFETY: no task is claimed, so no thread reads `job`; `busy` is held, so none writes it.
        unsafe { *shared.job.get() = Job { work, tasks } };
        shared.finished.0.store(0, Ordering::SeqCst);
        shared.unclaimed.0.store(tasks, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&shared.sleep);
            shared.wake.notify_all();
        }
        shared.work(0);
        shared.wait_finished(tasks);
        let panic = lock(&shared.panic).take();
        drop(guard);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = lock(&self.shared.sleep);
            self.shared.wake.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its tasks: it has none of its own.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in 1..5 {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 7, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task, worker| {
                    assert!(worker < pool.threads());
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn many_short_runs_with_sleeps_between() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for round in 0..2000 {
            pool.run(4, &|task, _| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            if round % 400 == 0 {
                // Long enough for the workers to fall asleep; the result does not depend on it.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(sum.into_inner(), 2000 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, &|task, _| assert!(task != 5, "task five"));
        }));
        assert!(caught.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(8, &|_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 8);
    }

    #[test]
    fn a_run_inside_a_run_is_done_in_place() {
        let pool = Pool::new(2);
        let ran = AtomicUsize::new(0);
        pool.run(4, &|_, _| {
            pool.run(3, &|_, _| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(ran.into_inner(), 12);
    }
}
