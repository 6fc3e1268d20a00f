//! The ledger's lines in the order of their times, with what a replay needs of each.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::ledger::{Outcome, ServiceTier, Tokens};
use crate::report::{ReportError, Sql};
use crate::store::{Store, StoreError};
use crate::{Id, Millis, Money};

/// Lines read at a time.
const PAGE: usize = 4000;

/// A line.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) operation: String,
    pub(super) attempt: i64,
    pub(super) admitted_at: Millis,
    pub(super) settled_at: Millis,
    /// Organisation, team, project, user, key.
    pub(super) whose: [String; 5],
    pub(super) model: String,
    pub(super) source: String,
    pub(super) failed: bool,
    pub(super) tokens: Tokens,
    pub(super) device_us: u64,
    pub(super) service_tier: ServiceTier,
    pub(super) cost: Money,
}

const COLUMNS: &str = "operation, attempt, admitted_at, settled_at, organisation, team, project, \
                       user_id, key_id, model, source, outcome, input_tokens, cache_read_tokens, \
                       cache_write_tokens, output_tokens, device_us, cost_nano_usd, service_tier";

/// Passes every line of a range on.
pub(super) async fn stream(
    store: &Store,
    organisation: Option<&Id>,
    (from, to): (Millis, Millis),
    mut take: impl FnMut(&Line),
) -> Result<(), ReportError> {
    let mut last = Line { admitted_at: from, ..Line::default() };
    loop {
        let mut sql = Sql::of(format!("SELECT {COLUMNS} FROM ledger WHERE admitted_at >= "));
        // The bound that an index knows, beside the one that is exact.
        sql.number(last.admitted_at).push(" AND admitted_at < ").number(to);
        sql.push(" AND (admitted_at, operation, attempt) > (").number(last.admitted_at);
        sql.push(", ").text(&last.operation).push(", ").number(last.attempt).push(")");
        sql.filters(organisation, &[])?;
        sql.push(&format!(" ORDER BY admitted_at, operation, attempt LIMIT {PAGE}"));
        let rows = sql.statement().fetch_all(store.read()).await?;
        for row in &rows {
            last = line(row)?;
            take(&last);
        }
        if rows.len() < PAGE {
            return Ok(());
        }
    }
}

fn line(row: &AnyRow) -> Result<Line, StoreError> {
    let text = |at: usize| row.try_get::<String, _>(at);
    let count = |at: usize| row.try_get::<i64, _>(at).map(|count| count.try_into().unwrap_or(0));
    Ok(Line {
        operation: text(0)?,
        attempt: row.try_get(1)?,
        admitted_at: row.try_get(2)?,
        settled_at: row.try_get(3)?,
        whose: [text(4)?, text(5)?, text(6)?, text(7)?, text(8)?],
        model: text(9)?,
        source: text(10)?,
        failed: row.try_get::<&str, _>(11)? == Outcome::Failed.name(),
        tokens: Tokens {
            input: count(12)?,
            cache_read: count(13)?,
            cache_write: count(14)?,
            output: count(15)?,
            reasoning: 0,
        },
        device_us: count(16)?,
        cost: Money(row.try_get(17)?),
        service_tier: match row.try_get::<&str, _>(18)? == ServiceTier::Flex.name() {
            true => ServiceTier::Flex,
            false => ServiceTier::Default,
        },
    })
}
