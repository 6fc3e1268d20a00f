//! An engine with a meter on it: counts steps for the metrics and remembers a device's death,
//! which the scheduler turns into refusals but does not otherwise tell.

use std::sync::Arc;
use std::time::Duration;

use scheduler::types::{Batch, Engine, Fault, StepOutput};
use text::grammar::Grammar;

use super::adapter::{AdapterRefused, Adapts, ReadAdapter};
use super::holds::Holds;
use crate::metrics::ModelMetrics;

pub(super) struct Observed<E> {
    engine: E,
    metrics: Arc<ModelMetrics>,
    dead: Option<String>,
}

impl<E> Observed<E> {
    pub(super) fn new(engine: E, metrics: &Arc<ModelMetrics>) -> Self {
        Self { engine, metrics: Arc::clone(metrics), dead: None }
    }

    /// Why the engine is gone for good, once it is.
    pub(super) fn dead(&self) -> Option<&str> {
        self.dead.as_deref()
    }
}

impl<E: Engine> Engine for Observed<E> {
    fn depth(&self) -> usize {
        self.engine.depth()
    }

    fn drafts_max(&self) -> u32 {
        self.engine.drafts_max()
    }

    fn launch(&mut self, batch: &Batch) {
        self.metrics.launched(batch.tokens.len());
        self.engine.launch(batch);
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        let result = self.engine.collect(out);
        match &result {
            Ok(()) => self.metrics.collected(Duration::from_micros(out.elapsed_us)),
            Err(Fault::Dead(why)) => self.dead = Some(why.clone()),
            Err(Fault::Step(why) | Fault::Lost(why)) => tracing::warn!("a step failed: {why}"),
        }
        result
    }
}

impl<E: Adapts> Adapts for Observed<E> {
    fn set_adapter(&mut self, number: u32, adapter: &ReadAdapter) -> Result<(), AdapterRefused> {
        self.engine.set_adapter(number, adapter)
    }

    fn drop_adapter(&mut self, number: u32) {
        self.engine.drop_adapter(number);
    }
}

impl<E: Holds> Holds for Observed<E> {
    fn set_grammar(&mut self, number: u64, grammar: Arc<Grammar>) {
        self.engine.set_grammar(number, grammar);
    }

    fn drop_grammar(&mut self, number: u64) {
        self.engine.drop_grammar(number);
    }
}
