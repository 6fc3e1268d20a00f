//! The whole audit of a database, to be looked at in a test.

use std::ops::ControlFlow;

use govern::audit::Record;
use govern::report::{chains, stream_chain};
use govern::store::Store;

/// All records, chain by chain, in the order of their numbers.
pub(super) async fn all_records(store: &Store) -> Vec<Record> {
    let mut all = Vec::new();
    for chain in chains(store).await.expect("the chains") {
        let take = |record| {
            all.push(record);
            ControlFlow::<()>::Continue(())
        };
        stream_chain(store, &chain, take).await.expect("the audit");
    }
    all
}
