//! Recorded work: what is queued between two calls becomes a graph that is queued as one.
//!
//! Why the device keeps the driver's handles and a [`Graph`] only a number: a graph may be dropped
//! while the device is busy, on another thread, or after the device. Its number then goes on a
//! list, and the device destroys what is on it. Must not know what was recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::result::{DriverError, graph, stream};
use cudarc::driver::sys::{CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::Nvidia;

/// Numbers of graphs whose owners are gone.
#[derive(Clone, Default)]
pub(super) struct Retired(Arc<Mutex<Vec<u64>>>);

impl Retired {
    fn push(&self, graph: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(graph);
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Work that was recorded on one device, to be queued there any number of times.
pub struct Graph {
    pub(super) number: u64,
    retired: Retired,
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.retired.push(self.number);
    }
}

/// Whether calls are recorded instead of queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recording {
    No,
    /// `count` things so far.
    Yes {
        count: usize,
    },
    /// It failed: the rest of what would be recorded is left out, and there will be no graph.
    /// `begun`: the stream is recording.
    Failed {
        begun: bool,
    },
}

/// One number for each graph of the process: a graph of another device is then never mistaken.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Nvidia {
    pub(super) fn begin_recording(&mut self) {
        assert!(self.recording == Recording::No, "graphs do not nest");
        self.destroy_retired();
        if self.fault.is_some() {
            self.recording = Recording::Failed { begun: false };
            return;
        }
        // Only this thread's calls are watched: others may claim memory meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        let begun = self.bind().and_then(|()| unsafe { stream::begin_capture(self.stream, mode) });
        self.recording = match begun {
            Ok(()) => Recording::Yes { count: 0 },
            Err(_) => Recording::Failed { begun: false },
        };
    }

    pub(super) fn end_recording(&mut self) -> Option<Graph> {
        let recording = std::mem::replace(&mut self.recording, Recording::No);
        assert!(recording != Recording::No, "no graph is recorded");
        if recording == (Recording::Failed { begun: false }) {
            return None;
        }
        // SAFETY: the stream lives as long as `self` and is recording.
        let recorded = unsafe { stream::end_capture(self.stream) }.ok()?;
        if recorded.is_null() {
            return None;
        }
        let ready = match recording {
            // SAFETY: the graph was made just now.
            Recording::Yes { count } => unsafe { self.instantiate(recorded) }.ok().zip(Some(count)),
            _ => None,
        };
        // SAFETY: as above; what was made from it does not refer to it.
        let _ = unsafe { graph::destroy(recorded) };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.graphs.insert(number, ready?);
        Some(Graph { number, retired: self.retired.clone() })
    }

    /// # Safety
    /// `recorded` is a graph that was not destroyed.
    unsafe fn instantiate(
        &self,
        recorded: cudarc::driver::sys::CUgraph,
    ) -> Result<CUgraphExec, DriverError> {
        let plain = CUgraphInstantiate_flags(0);
        // SAFETY: as the caller promises.
        let ready = unsafe { graph::instantiate(recorded, plain) }?;
        // The first replay is then as fast as the others.
        // SAFETY: `ready` was made just now; the stream lives as long as `self`.
        if let Err(error) = unsafe { graph::upload(ready, self.stream) } {
            // SAFETY: `ready` is used no more.
            let _ = unsafe { graph::exec_destroy(ready) };
            return Err(error);
        }
        Ok(ready)
    }

    /// Destroys graphs whose owners are gone. One that still runs is freed when it has run.
    pub(super) fn destroy_retired(&mut self) {
        for number in self.retired.take() {
            if let Some((ready, _)) = self.graphs.remove(&number) {
                // SAFETY: it was made by the driver, and nobody can queue it any more.
                let _ = unsafe { graph::exec_destroy(ready) };
            }
        }
    }

    /// Leaves a recording that nobody will end.
    pub(super) fn abandon_recording(&mut self) {
        if self.recording != Recording::No {
            drop(self.end_recording());
        }
    }
}
