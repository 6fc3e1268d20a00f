//! The journal as a process leaves it behind: killed, damaged, without power.

use super::*;
use crate::ledger::{Outcome, ServiceTier};
use crate::{Id, Money};

fn entry(name: &str) -> Entry {
    Entry {
        operation: Id::of(name).expect("an id"),
        attempt: 1,
        tokens: Tokens { input: 7, ..Tokens::default() },
        ..Entry::default()
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("hearth-journal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(name)
}

#[test]
fn what_is_open_comes_back_with_what_was_handed_out() {
    let path = folder("open");
    let (journal, left) = Journal::open(&path).expect("opens");
    assert!(left.is_empty());
    assert!(matches!(Journal::open(&path), Err(JournalError::Taken(_))), "one process");
    let [a, b, c] = ["a", "b", "c"].map(|name| journal.begin(&entry(name)).expect("a slot"));
    let tokens = Tokens { input: 7, output: 5, reasoning: 2, cache_read: 3, cache_write: 0 };
    journal.progress(a, tokens).expect("written");
    let done = Entry {
        tokens: Tokens { input: 8, cache_write: 1, ..tokens },
        outcome: Outcome::BudgetStop,
        cost: Money(-3),
        settled_at: 11,
        duration_ms: 12,
        first_token_ms: 13,
        device_us: 14,
        service_tier: ServiceTier::Flex,
        ..entry("b")
    };
    journal.settled(b, &done).expect("written");
    journal.free([c]);
    assert_eq!(journal.taken(), 2);
    drop(journal);
    let (journal, left) = Journal::open(&path).expect("opens");
    let recovered = |name| Entry { outcome: Outcome::Recovered, ..entry(name) };
    let open = Entry { tokens, ..recovered("a") };
    // The first one is still open: whether the ledger has the third is not known here.
    assert_eq!(left, [(a, open), (b, done), (c, recovered("c"))]);
    assert_eq!(journal.taken(), 3);
    // What takes the place of another has nothing of its tail.
    journal.free([a, b]);
    for _ in 3..TOGETHER {
        journal.begin(&entry("x")).expect("a slot");
    }
    let mut again = ["d", "e"].map(|name| journal.begin(&entry(name)).expect("a slot"));
    again.sort_by_key(|slot| slot.at);
    assert_eq!((again[0].at, again[1].at), (a.at, b.at));
    drop(journal);
    let (journal, left) = Journal::open(&path).expect("opens");
    assert_eq!(left.len(), TOGETHER);
    assert_eq!(left[..2], [(again[0], recovered("d")), (again[1], recovered("e"))]);
    // All up to the last of those that are done with.
    let first = left.iter().map(|(slot, _)| *slot).filter(|slot| *slot != again[1]);
    journal.free(first);
    assert_eq!(journal.taken(), 1);
    drop(journal);
    let (journal, left) = Journal::open(&path).expect("opens");
    assert_eq!(left, [(again[1], recovered("e"))]);
    journal.free([again[1]]);
    assert_eq!(journal.taken(), 0);
    drop(journal);
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), 0);
    assert!(Journal::open(&path).expect("opens").1.is_empty());
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn damaged_slots_are_free_and_torn_tails_count_nothing() {
    let path = folder("damaged");
    let (journal, _) = Journal::open(&path).expect("opens");
    let [a, b] = ["a", "b"].map(|name| journal.begin(&entry(name)).expect("a slot"));
    for slot in [a, b] {
        journal.progress(slot, Tokens { output: 9, ..Tokens::default() }).expect("written");
    }
    drop(journal);
    let file = OpenOptions::new().write(true).open(&path).expect("opens");
    file.write_all_at(b"x", layout::tail_place(a.at) + 20).expect("written");
    file.write_all_at(b"x", layout::place(b.at) + 20).expect("written");
    let (journal, left) = Journal::open(&path).expect("opens");
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].0, left[0].1.tokens.output), (a, 0));
    let again = journal.begin(&entry("c")).expect("a slot");
    assert_eq!((again.at, again.sequence > b.sequence), (b.at, true));
    std::fs::remove_file(path).expect("removed");
}

/// Ends an entry, and waits until the disk has it.
fn end(journal: &Journal, slot: Slot, entry: &Entry) {
    let record = journal.settled(slot, entry).expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(journal.keep(record, Duration::from_secs(10)));
}

#[test]
fn what_has_ended_outlives_its_slot() {
    let path = folder("ends");
    let ends = folder("ends.ends");
    let (journal, _) = Journal::open(&path).expect("opens");
    let names: Vec<String> = (0..100).map(|count| format!("e{count}")).collect();
    let done = |name: &str| Entry { outcome: Outcome::Done, settled_at: 5, ..entry(name) };
    let slots: Vec<Slot> =
        names.iter().map(|name| journal.begin(&entry(name)).expect("a slot")).collect();
    for (slot, name) in slots.iter().zip(&names) {
        end(&journal, *slot, &done(name));
    }
    let open = journal.begin(&entry("open")).expect("a slot");
    // The database has the first ones.
    journal.free(slots[..50].iter().copied());
    drop(journal);
    // The power fails: the disk has nothing of the slots.
    std::fs::remove_file(&path).expect("removed");
    let (journal, left) = Journal::open(&path).expect("opens");
    let there = |left: &[(Slot, Entry)], name: &str| {
        left.iter().filter(|(_, entry)| *entry == done(name)).count()
    };
    // Nobody knows which of them the database has.
    assert_eq!(left.len(), 100);
    assert!(names.iter().all(|name| there(&left, name) == 1));
    // What begins now is newer than all of it.
    let next = journal.begin(&entry("next")).expect("a slot");
    assert!(next.sequence > left.iter().map(|(slot, _)| slot.sequence).max().unwrap_or(0));
    assert!(open.sequence >= slots[99].sequence);
    // The blocks of what the database has take the next ones.
    journal.free(left.iter().map(|(slot, _)| *slot).filter(|slot| slot.sequence % 2 == 0));
    let size = std::fs::metadata(&ends).expect("the file").len();
    end(&journal, next, &done("next"));
    for count in 0..5000 {
        let slot = journal.begin(&entry("x")).expect("a slot");
        end(&journal, slot, &done(&format!("x{count}")));
        journal.free([slot]);
    }
    assert_eq!(std::fs::metadata(&ends).expect("the file").len(), size);
    drop(journal);
    let (journal, left) = Journal::open(&path).expect("opens");
    let odd = names.iter().step_by(2).filter(|name| there(&left, name) == 1).count();
    assert_eq!((odd, there(&left, "next")), (50, 1));
    journal.free(left.iter().map(|(slot, _)| *slot));
    assert_eq!(journal.taken(), 0);
    drop(journal);
    assert_eq!(std::fs::metadata(&ends).expect("the file").len(), 0);
    [path, ends].iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
}

#[test]
fn damaged_ends_lose_no_more_than_their_block() {
    let path = folder("torn");
    let ends = folder("torn.ends");
    let (journal, _) = Journal::open(&path).expect("opens");
    for count in 0..60 {
        let slot = journal.begin(&entry("x")).expect("a slot");
        end(&journal, slot, &entry(&format!("x{count}")));
    }
    drop(journal);
    let whole = std::fs::read(&ends).expect("the file");
    let used = whole.iter().rposition(|byte| *byte != 0).expect("entries");
    let in_a_block = 4096 / layout::record(1, &entry("x59")).expect("short").len();
    for at in (0..used).step_by(37) {
        let block = &whole[at / 4096 * 4096..][..4096];
        if block.iter().rposition(|byte| *byte != 0) < Some(at % 4096) {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes.truncate(if at % 2 == 0 { whole.len() } else { used + 1 });
        std::fs::write(&ends, &bytes).expect("written");
        std::fs::write(&path, []).expect("written");
        let (journal, left) = Journal::open(&path).expect("opens");
        let there = left.len();
        assert!(there + in_a_block + 1 >= 60 && there < 60, "{there} with byte {at} damaged");
        drop(journal);
    }
    [path, ends].iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
}

#[test]
fn what_an_earlier_version_left_open_is_not_lost() {
    let path = folder("older");
    let json = entry("a").json();
    let mut bytes = [0; 2048 * 3];
    let slot = &mut bytes[2048..];
    slot[4..8].copy_from_slice(&u32::try_from(json.len()).expect("short").to_le_bytes());
    slot[8..8 + json.len()].copy_from_slice(json.as_bytes());
    let sum = crc32fast::hash(&slot[4..8 + json.len()]);
    slot[..4].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    assert!(matches!(Journal::open(&path), Err(JournalError::Older(_))));
    // As that version leaves it when the ledger has it.
    bytes[2048..2056].fill(0);
    std::fs::write(&path, bytes).expect("written");
    assert!(Journal::open(&path).expect("opens").1.is_empty());
    std::fs::remove_file(path).expect("removed");
}

/// Where a few callers ask one after the other, all of them soon wait.
#[test]
fn nobody_is_waited_for_who_does_not_come() {
    let (queue, ended) = channel();
    let mut waiting = vec![0];
    for number in 1..4 {
        queue.send(number).expect("sent");
    }
    let begun = std::time::Instant::now();
    ends::gather(&ended, &mut waiting, Duration::from_secs(60));
    assert_eq!(waiting, [0, 1, 2, 3]);
    assert!(begun.elapsed().as_secs() < 30);
}
