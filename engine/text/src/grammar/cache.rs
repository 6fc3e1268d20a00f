//! Grammars that were compiled, the latest used first, within a bound of memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Grammar, Plan};

/// Grammars kept at most. Agents of one company use some dozens.
const KEPT_MAX: usize = 128;

/// Bytes that all grammars kept may take. One takes 0.1 to 10 MB.
const BYTES_MAX: usize = 512 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Cache {
    /// Plans are compared whole: no answer is ever held to another's grammar.
    kept: VecDeque<(Plan, Arc<Grammar>)>,
}

impl Cache {
    pub(super) fn get(&mut self, plan: &Plan) -> Option<Arc<Grammar>> {
        let at = self.kept.iter().position(|(kept, _)| kept == plan)?;
        let found = self.kept.remove(at).filter(|(_, grammar)| !grammar.is_spoiled())?;
        let grammar = Arc::clone(&found.1);
        self.kept.push_front(found);
        Some(grammar)
    }

    pub(super) fn put(&mut self, plan: &Plan, grammar: &Arc<Grammar>) {
        self.kept.retain(|(_, grammar)| !grammar.is_spoiled());
        self.kept.push_front((plan.clone(), Arc::clone(grammar)));
        self.kept.truncate(KEPT_MAX);
        let mut bytes = 0;
        let fits = |(_, grammar): &(Plan, Arc<Grammar>)| {
            bytes += grammar.bytes();
            bytes <= BYTES_MAX
        };
        let fitting = self.kept.iter().map(fits).take_while(|fits| *fits).count();
        self.kept.truncate(fitting.max(1));
    }
}
