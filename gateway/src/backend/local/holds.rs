//! Grammars on the engine's thread: one travels with its request and is let go at the request's
//! end.

use std::sync::Arc;

use text::grammar::Grammar;

use super::{Compute, Runner};

/// An engine that holds what it draws to grammars.
pub trait Holds {
    /// A request with this number of a grammar follows.
    fn set_grammar(&mut self, number: u64, grammar: Arc<Grammar>);

    /// The request has ended.
    fn drop_grammar(&mut self, number: u64);
}

impl<C: Compute> Holds for Runner<C> {
    fn set_grammar(&mut self, number: u64, grammar: Arc<Grammar>) {
        Self::set_grammar(self, number, grammar);
    }

    fn drop_grammar(&mut self, number: u64) {
        Self::drop_grammar(self, number);
    }
}
