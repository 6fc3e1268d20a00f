//! A copy of any size takes the same memory. Alone in its process, since it is the process that is
//! measured: SQLite has a thread of its own.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::time::Instant;

use govern::backup::{backup, migrate, restore};
use govern::store::Store;
use hearth_tests::services::postgres;

const MANY: i64 = 100_000;
const MANY_LINES: &str = "
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1 - 1)
INSERT INTO ledger
SELECT 'op_0k3v8w2n5q7r' || (10000000 + n), 1, 'gateway-1', n, n + 900,
    'org_0k3v8w2n5q7r1s4t6x9', 'team_0k3v8w2n5q7r1s4t6', 'proj_0k3v8w2n5q7r1s4t6', 'user_1',
    'key_0k3v8w2n5q7r1s4t6', 'model-1', 'local', 'chat', 'internal', 'price_0k3v8w2n5q7r1s4t6x9z',
    n % 7000, n % 3000, 0, n % 900, 0, n % 900 * 600, 'done', 'req-0k3v8w2n5q7r', '10.0.0.1', 40,
    900, 0, 'default', '' FROM numbers";

/// Far below what there is; SQLite's and the allocator's caches are in it.
const PEAK_MAX: u64 = 12 << 20;

/// A line of this process's status, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|found| found.strip_prefix(line)).expect("the line");
    let number = line.trim_matches(|c: char| !c.is_ascii_digit());
    number.parse::<u64>().expect("a number") << 10
}

/// Runs something, and says how much more memory the process had at once than before.
fn measured(what: &str, work: impl FnOnce()) -> u64 {
    // The peak begins anew.
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
    let (before, begun) = (memory("VmRSS:"), Instant::now());
    work();
    let peak = memory("VmHWM:").saturating_sub(before);
    println!("{what}: {MANY} rows, {} KiB, {:?}", peak >> 10, begun.elapsed());
    peak
}

fn check(kind: &str, folder: &Path, from: &str, to: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(from).await.expect("a store");
        let lines = sqlx::query(MANY_LINES).bind(MANY).execute(store.write()).await;
        assert_eq!(lines.expect("lines").rows_affected(), MANY.unsigned_abs());
        store.close().await;
    });
    let path = folder.join("backup");
    let peaks = [
        measured(&format!("{kind}, backup"), || {
            let out = BufWriter::new(File::create(&path).expect("a file"));
            runtime.block_on(backup(from, 0, out)).expect("a backup");
        }),
        measured(&format!("{kind}, restore"), || {
            let input = BufReader::new(File::open(&path).expect("a file"));
            runtime.block_on(restore(input, to, false)).expect("restored");
        }),
        measured(&format!("{kind}, migrate"), || {
            runtime.block_on(migrate(from, to, true)).expect("moved");
        }),
    ];
    assert!(std::fs::metadata(&path).expect("a file").len() > 2 * PEAK_MAX);
    assert!(peaks.iter().all(|peak| *peak < PEAK_MAX), "{kind}: {peaks:?}");
}

#[test]
fn memory_does_not_grow_with_what_there_is() {
    let folder = std::env::temp_dir().join(format!("hearth-backup-memory-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let [from, to] = ["a.db", "b.db"].map(|name| folder.join(name).display().to_string());
    check("SQLite", &folder, &from, &to);
    let server = postgres::shared();
    check("PostgreSQL", &folder, &server.fresh(), &server.fresh());
    std::fs::remove_dir_all(&folder).expect("removed");
}
