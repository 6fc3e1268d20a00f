//! What has to be true of any database, whatever happened to it.

use govern::Governor;
use govern::audit::verify;
use sqlx::Row as _;

use super::records::all_records;

/// Sums of quarters are those of the ledger, one record of the audit is there for each line, and
/// the chain is whole.
pub(super) async fn check_sums(governor: &Governor) {
    let sums = |of: &str, requests: &str| {
        format!(
            "SELECT organisation || ' ' || team || ' ' || project || ' ' || user_id || ' ' || \
             key_id || ' ' || model || ' ' || label AS about, CAST(SUM({requests}) AS BIGINT), \
             CAST(SUM(input_tokens) AS BIGINT), CAST(SUM(cache_read_tokens) AS BIGINT), \
             CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(cost_nano_usd) AS BIGINT) \
             FROM {of} GROUP BY organisation, team, project, user_id, key_id, model, label \
             ORDER BY about"
        )
    };
    let read = async |sql: String| -> Vec<(String, [i64; 5])> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(governor.store().read()).await;
        let rows = rows.expect("sums");
        rows.iter().map(|row| (row.get(0), [1, 2, 3, 4, 5].map(|at| row.get(at)))).collect()
    };
    assert_eq!(read(sums("quarters", "requests")).await, read(sums("ledger", "1")).await);
    let records = all_records(governor.store()).await;
    verify(records.iter().cloned(), &[]).expect("a whole chain");
    let told = records.iter().filter(|record| record.kind == "request").count();
    let lines = sqlx::query("SELECT COUNT(*) FROM ledger").fetch_one(governor.store().read()).await;
    assert_eq!(told as i64, lines.expect("a count").get::<i64, _>(0), "audit and ledger");
}
