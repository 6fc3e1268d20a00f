//! What a changed policy, budget or price would have made of the requests that the ledger has. The
//! lines are replayed in the order of their times through the rules, prices and windows that
//! requests meet when they come in; nothing is changed and nothing is held.
//!
//! The ledger knows less than a request: what it does not have is not judged, and the answer says
//! so. Where a time or an order is lost the replay is lenient: of requests that run at once it
//! holds the least that each of them held. So requests that a directory let in, replayed through
//! the same directory, are let in again, except where only the order within a millisecond decided.
//!
//! Memory does not grow with the ledger: lines come in pages, and every table here is bounded.

mod books;
mod count;
mod judge;
mod lines;

use std::sync::Arc;

use crate::directory::Directory;
use crate::entity::PriceSheet;
use crate::report::ReportError;
use crate::store::Store;
use crate::store::batch::QUARTER_MS;
use crate::{Id, Millis, Money};

use books::Books;
use judge::Judge;

/// What is replayed, and through what.
#[derive(Clone)]
pub struct Question {
    /// Only this one's requests; `None`: everybody's. Budgets over everything are judged only where
    /// everybody's are.
    pub organisation: Option<Id>,
    /// The first millisecond; falls on a quarter of an hour.
    pub from: Millis,
    /// The first millisecond after it.
    pub to: Millis,
    /// The directory with the changes.
    pub directory: Arc<Directory>,
    /// Prices in the place of all sheets, over the whole range.
    pub sheet: Option<Arc<PriceSheet>>,
}

/// What would have been.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Lines of the ledger that were replayed.
    pub requests: u64,
    /// Of these, those that would have been refused.
    pub refused: u64,
    /// Those whose answer was longer than it might have been: refused where it was asked for, cut
    /// where nothing was said.
    pub shortened: u64,
    /// Those that a budget would have ended on their way.
    pub cut: u64,
    /// What they cost, by the ledger.
    pub recorded: Money,
    /// What they would have cost.
    pub would_be: Money,
    /// Refusals by rule, the most frequent first; so the next three.
    pub by_rule: Vec<Count>,
    /// Refusals by key.
    pub by_key: Vec<Count>,
    /// Refusals by team.
    pub by_team: Vec<Count>,
    /// Refusals by model.
    pub by_model: Vec<Count>,
    /// The first that would have been refused.
    pub examples: Vec<Example>,
    /// What the answer does not hold.
    pub not_judged: Vec<NotJudged>,
}

/// How many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Of what; `others` behind the first hundred.
    pub name: String,
    /// How many.
    pub requests: u64,
}

/// One request that would have been refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The operation.
    pub operation: String,
    /// The rule.
    pub rule: &'static str,
}

/// Something that the ledger does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotJudged {
    /// What: a policy's field, or a thing.
    pub what: &'static str,
    /// Requests that it is about; `None`: any of them.
    pub requests: Option<u64>,
    /// Why not.
    pub why: &'static str,
}

/// Replays the ledger.
///
/// # Errors
/// The range makes no sense, a time zone is not known, or the database fails.
pub async fn run(store: &Store, question: &Question) -> Result<Findings, ReportError> {
    let Question { organisation, from, to, directory, sheet } = question;
    if from.rem_euclid(QUARTER_MS) != 0 {
        return Err(ReportError::Quarter("from"));
    }
    if *from < 0 || to < from {
        return Err(ReportError::Range);
    }
    let mut books = Books::open(directory, organisation.as_ref())?;
    for question in books.opening(*from) {
        let (scope, model, window) = (&question.scope, question.model.as_deref(), question.window);
        books.opened(&question, store.spent(scope, model, window).await?);
    }
    let mut judge = Judge::new(directory, sheet.as_deref(), books);
    lines::stream(store, organisation.as_ref(), (*from, *to), |line| judge.take(line)).await?;
    Ok(judge.findings())
}
