//! What was cut, altered or made up is refused, and the database that it was meant for is as it
//! was.

use govern::backup::{BackupError, TABLES, restore};
use govern::store::Kind;
use ring::digest::{SHA256, digest};

use super::backed_up;
use super::world::{Folder, KINDS, Random, dump, fill};

/// A whole backup of these lines: without the last one, whose sum is computed.
fn signed(lines: &[&str]) -> Vec<u8> {
    let mut text: Vec<u8> =
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
    let sum = hex::encode(digest(&SHA256, &text));
    text.extend_from_slice(format!("{{\"sha256\":\"{sum}\"}}\n").as_bytes());
    text
}

/// Cuts at each line's ends and at random places, and one byte altered at as many.
fn damaged(text: &[u8], random: &mut Random, count: usize) -> Vec<Vec<u8>> {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut cuts: Vec<usize> = ends.flat_map(|at| [at, at + 1]).collect();
    cuts.extend((0..count).map(|_| random.below(text.len())));
    cuts.extend([0, 1, text.len() - 2]);
    let mut all: Vec<Vec<u8>> = cuts.iter().map(|at| text[..*at].to_vec()).collect();
    // All of it is no damage.
    all.retain(|cut| cut.len() < text.len());
    for number in 0..count {
        let mut altered = text.to_vec();
        let at = random.below(text.len());
        altered[at] ^= 1 << random.below(8);
        if number % 4 == 0 {
            // A digit or a letter in place of another: still text.
            altered[at] = if text[at] == b'7' { b'8' } else { b'7' };
        }
        all.push(altered);
    }
    all
}

#[tokio::test]
async fn what_was_cut_or_altered_is_refused() {
    let folder = Folder::new();
    let from = folder.file("from.db");
    fill(&from, 3, 5).await;
    let (text, _) = backed_up(&from).await;
    let mut random = Random(11);
    for (kind, count) in KINDS.into_iter().zip([200, 40]) {
        let to = folder.fresh(kind, "to.db");
        fill(&to, 4, 6).await;
        let wanted = dump(&to).await;
        let all = damaged(&text, &mut random, count);
        for bytes in &all {
            let refused = restore(&bytes[..], &to, true).await;
            let by_text = matches!(
                &refused,
                Err(BackupError::Damaged { .. }
                    | BackupError::NotABackup
                    | BackupError::Newer(_)
                    | BackupError::Twice(_))
            );
            assert!(by_text, "{refused:?}: {}", String::from_utf8_lossy(bytes));
        }
        assert!(dump(&to).await == wanted, "{kind:?}");
        eprintln!("{kind:?}: {} damaged backups refused", all.len());
    }
}

#[tokio::test]
async fn what_is_made_up_is_refused_by_name() {
    let folder = Folder::new();
    let from = folder.file("from.db");
    fill(&from, 2, 7).await;
    let (text, _) = backed_up(&from).await;
    let text = String::from_utf8(text).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let lines = &lines[..lines.len() - 1];
    assert!(signed(lines) == text.as_bytes(), "the sum is that of the documentation");
    let header = lines[0];
    let row_at = lines.iter().position(|line| line.starts_with('[')).expect("a row");
    let with = |at: usize, line: &str| {
        let mut changed = lines.to_vec();
        changed[at] = line;
        signed(&changed)
    };
    let without = |at: usize| {
        let mut changed = lines.to_vec();
        changed.remove(at);
        signed(&changed)
    };
    let longer = lines[row_at].replace("[\"", "[\"one\",\"");
    let schema = header.replace("\"schema\":", "\"schema\":99");
    let twice = header.replace("\"documents\":2", "\"documents\":3");
    let mut repeated = lines.to_vec();
    repeated[0] = &twice;
    repeated.insert(row_at, lines[row_at]);
    let mut behind = text.clone().into_bytes();
    behind.push(b'\n');
    let to = folder.fresh(Kind::Sqlite, "to.db");
    for (bytes, expect) in [
        (with(0, "{\"hearth_backup\":2,\"of\":\"a later version\"}"), "later version"),
        (with(0, &schema), "later version"),
        (with(0, "{}"), "not a backup"),
        (b"PK\x03\x04".to_vec(), "not a backup"),
        (Vec::new(), "not a backup"),
        (with(1, "{\"table\":\"passwords\",\"columns\":[\"id\"]}"), "a table that is not known"),
        (with(1, "{\"table\":\"documents\",\"columns\":[\"x\"]}"), "a column that is not known"),
        (with(1, "{\"table\":\"documents; --\",\"columns\":[]}"), "a table that is not known"),
        (with(row_at, &longer), "does not fit its table"),
        (with(row_at, "[1,2,3,4,5,6,7]"), "does not fit its table"),
        (with(row_at, "[null]"), "a text or a whole number"),
        (without(row_at), "promises other rows"),
        (without(row_at - 1), "a row of no table"),
        (signed(&repeated), "two rows for documents would be one"),
        (behind, "something stands behind it"),
    ] {
        let refused = restore(&bytes[..], &to, false).await.expect_err("refused").to_string();
        assert!(refused.contains(expect), "{refused}, not {expect}");
    }
    assert!(
        dump(&to).await.iter().all(|(name, rows)| rows.len() == usize::from(*name == "counters"))
    );
    restore(text.as_bytes(), &to, false).await.expect("restored");
}

/// Of an earlier schema: what it did not have stays empty.
#[tokio::test]
async fn an_earlier_schema_has_fewer_tables() {
    let folder = Folder::new();
    let from = folder.file("from.db");
    fill(&from, 2, 8).await;
    let (text, rows) = backed_up(&from).await;
    let text = String::from_utf8(text).expect("text");
    let until = text.find("{\"table\":\"sessions\"").expect("a table");
    let mut lines: Vec<&str> = text[..until].lines().collect();
    let mut header: serde_json::Value = serde_json::from_str(lines[0]).expect("a header");
    header["schema"] = 2.into();
    // Tables stand in the order in which they came.
    let later: Vec<&str> =
        TABLES.iter().map(|table| table.name).skip_while(|name| *name != "sessions").collect();
    for gone in later.iter().copied() {
        let count = header["rows"].as_object_mut().expect("counts").remove(gone);
        assert_eq!(count, Some(rows[gone].into()));
    }
    let header = header.to_string();
    lines[0] = &header;
    let to = folder.file("to.db");
    restore(&signed(&lines)[..], &to, false).await.expect("restored");
    let (wanted, found) = (dump(&from).await, dump(&to).await);
    for ((name, wanted), (_, found)) in wanted.iter().zip(&found) {
        let gone = later.contains(name);
        assert!(if gone { found.is_empty() } else { found == wanted }, "{name}");
    }
}

/// A backup of before there were sums over days: they are made of those over quarters.
#[tokio::test]
async fn an_older_backup_has_its_days_summed_up() {
    let folder = Folder::new();
    let from = folder.file("from.db");
    fill(&from, 0, 1).await;
    let store = govern::store::Store::open(&from).await.expect("a store");
    // The last quarter of a day, the first two of the next, and one before 1970.
    let quarters = [86_400_000_i64 - 900_000, 86_400_000, 87_300_000, -900_000];
    for quarter in quarters {
        let sql =
            "INSERT INTO quarters VALUES ($1, 'o', 't', 'p', 'u', 'k', 'm', 'l', 1, 2, 3, 4, 5)";
        sqlx::query(sql).bind(quarter).execute(store.write()).await.expect("a row");
    }
    store.close().await;
    let (text, _) = backed_up(&from).await;
    let text = String::from_utf8(text).expect("text");
    let older = text.replacen("\"days\":0,", "", 1);
    let lines: Vec<&str> =
        older.lines().filter(|line| !line.starts_with("{\"table\":\"days\"")).collect();
    assert_eq!(lines.len() + 1, text.lines().count(), "there were no days in it");
    let older = signed(&lines[..lines.len() - 1]);
    for kind in KINDS {
        let to = folder.fresh(kind, "older.db");
        restore(&older[..], &to, false).await.expect("restored");
        let dumped = dump(&to).await;
        let (_, days) = dumped.iter().find(|(name, _)| *name == "days").expect("the table");
        let day = |start: &str, count: i64| {
            let mut row: Vec<String> =
                [start, "o", "t", "p", "u", "k", "m", "l"].map(str::to_owned).into();
            row.extend((1..=5).map(|number| (number * count).to_string()));
            row
        };
        let mut wanted = vec![day("0", 1), day("86400000", 2), day("-86400000", 1)];
        wanted.sort();
        assert_eq!(*days, wanted, "{kind:?}");
    }
}
