//! A model that reads and does not write, which a test can hold and break: its vectors say what it
//! read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use gateway::backend::embed::{Embed, Input, LocalEmbedder, Options};
use gateway::backend::{PoolModel, Reads, Task};
use gateway::metrics::ModelMetrics;
use scheduler::types::Fault;

use super::fake::text_model;

const STEP: usize = 16;
pub(crate) const CONTEXT: usize = 12;

/// Reads tokens: a vector is `[tokens, first id, last id, skip]`, a score the last id.
pub(crate) struct Reader {
    pub(crate) scores: bool,
    pub(crate) steps: Arc<AtomicUsize>,
    /// Where a test holds it: one word per step.
    pub(crate) gate: Option<Receiver<Result<(), Fault>>>,
}

impl Embed for Reader {
    fn step_tokens(&self) -> usize {
        STEP
    }

    fn embed(&mut self, inputs: &[&Input]) -> Result<Vec<Vec<f32>>, Fault> {
        self.steps.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            // A test that is over lets go.
            gate.recv().unwrap_or(Ok(()))?;
        }
        let number = |n: usize| f32::from(u16::try_from(n).expect("small"));
        let id = |id: Option<&u32>| number(usize::try_from(*id.expect("a token")).expect("small"));
        let one = |input: &&Input| {
            let (first, last) = (id(input.ids.first()), id(input.ids.last()));
            let all = vec![number(input.ids.len()), first, last, number(input.skip)];
            if self.scores { vec![last] } else { all }
        };
        Ok(inputs.iter().map(one).collect())
    }
}

/// A model of this name that it reads for.
pub(crate) fn pool_model(
    (id, task): (&str, Task),
    reader: Reader,
    options: Options,
    metrics: Arc<ModelMetrics>,
) -> PoolModel {
    let scores = task == Task::Rerank;
    let engine = LocalEmbedder::start(reader, options, metrics).expect("a thread");
    PoolModel {
        id: id.to_owned(),
        created: 1_700_000_000,
        task,
        context: CONTEXT,
        size: if scores { 1 } else { 4 },
        normalises: !scores,
        text: Arc::new(text_model()),
        reads: Reads::default(),
        engine: engine.into(),
    }
}
