//! Adapters on the engine's thread: what is read elsewhere is put on the device between two
//! steps, and let go there.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Adapter, AdapterBase, Compute, LoadError, LocalEngine, Message, Runner};

/// A device takes an adapter in between two steps, which take milliseconds; a thread that is
/// silent for so long is gone or hangs.
const ANSWER: Duration = Duration::from_secs(60);

/// The engine's side refused an adapter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AdapterRefused(pub String);

/// An engine that takes adapters in.
pub trait Adapts {
    /// Puts an adapter on the device under `number`, from 1.
    ///
    /// # Errors
    /// It does not fit the model or the device.
    fn set_adapter(&mut self, number: u32, adapter: &ReadAdapter) -> Result<(), AdapterRefused> {
        let _ = (number, adapter);
        Err(AdapterRefused("this engine takes no adapters".to_owned()))
    }

    /// Lets an adapter go; no request uses it any more.
    fn drop_adapter(&mut self, number: u32) {
        let _ = number;
    }
}

/// What an adapter's files have to fit.
pub struct AdapterFiles(AdapterBase);

/// An adapter's files, read and checked against the base.
pub struct ReadAdapter(Arc<Adapter>);

impl AdapterFiles {
    /// For adapters of this base.
    #[must_use]
    pub fn new(base: AdapterBase) -> Self {
        Self(base)
    }

    /// Reads the adapter in a folder.
    ///
    /// # Errors
    /// Its files are missing or damaged, or it is for another base.
    pub fn open(&self, folder: &Path) -> Result<ReadAdapter, LoadError> {
        self.0.open(folder).map(|read| ReadAdapter(Arc::new(read)))
    }
}

impl<C: Compute> Adapts for Runner<C> {
    fn set_adapter(&mut self, number: u32, adapter: &ReadAdapter) -> Result<(), AdapterRefused> {
        let set = Self::set_adapter(self, number, &adapter.0);
        set.map_err(|error| AdapterRefused(error.to_string()))
    }

    fn drop_adapter(&mut self, number: u32) {
        Self::drop_adapter(self, number);
    }
}

/// What the thread is asked to do.
pub(super) enum Change {
    Set(u32, Box<ReadAdapter>, mpsc::SyncSender<Result<(), AdapterRefused>>),
    Drop(u32, Box<dyn FnOnce() + Send>),
}

impl Change {
    pub(super) fn apply(self, engine: &mut impl Adapts) {
        match self {
            Self::Set(number, adapter, answer) => {
                let result = engine.set_adapter(number, &adapter);
                let done = result.is_ok();
                // Nobody waits any more: nobody will ever use or drop it either.
                if answer.send(result).is_err() && done {
                    engine.drop_adapter(number);
                }
            }
            Self::Drop(number, then) => {
                engine.drop_adapter(number);
                then();
            }
        }
    }
}

impl LocalEngine {
    /// Puts an adapter on the device under `number`; blocks until it is there.
    ///
    /// # Errors
    /// It does not fit, or the engine is gone.
    pub fn set_adapter(&self, number: u32, adapter: ReadAdapter) -> Result<(), AdapterRefused> {
        let gone = |_| AdapterRefused("the engine does not answer".to_owned());
        let (answer, result) = mpsc::sync_channel(1);
        let change = Change::Set(number, Box::new(adapter), answer);
        let sent = self.commands.send_timeout(Message::Adapter(change), ANSWER);
        sent.map_err(|_| AdapterRefused("the engine does not answer".to_owned()))?;
        result.recv_timeout(ANSWER).map_err(gone)?
    }

    /// Lets an adapter go that no request uses, and calls `then`. Does not wait; where the thread
    /// is gone, so is the adapter.
    pub(crate) fn drop_adapter(&self, number: u32, then: impl FnOnce() + Send + 'static) {
        let change = Message::Adapter(Change::Drop(number, Box::new(then)));
        // A full channel means a busy thread: waiting for it is short, and must not be done on a
        // thread that serves connections.
        if let Err(crossbeam::channel::TrySendError::Full(change)) = self.commands.try_send(change)
        {
            let commands = self.commands.clone();
            std::thread::spawn(move || commands.send(change));
        }
    }
}
