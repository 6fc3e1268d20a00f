//! The journal's file: full, damaged, older than the database, or somebody else's.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;

use govern::entity::Budget;
use govern::governor::{Clock, OpenError};
use govern::journal::{Journal, JournalError, SLOTS_MAX};
use govern::ledger::{Entry, Outcome, Tokens};
use govern::store::StoreError;
use govern::store::documents::Edit;
use govern::{Fsync, Governor, Id, Settings};
use hearth_tests::simulation::random::Random;
use sqlx::Row as _;

use super::ledger::check_sums;
use super::shop::{Folder, Shop, generate, limit, open, price, put, settings};
use super::till::{check, hear, say, shop, start};

const OPEN: usize = 40;

/// The layout of the file: a head, then blocks of 32 tails of 128 bytes, and 32 slots.
const HEAD: usize = 4096;
const TAILS: usize = 32 * 128;
const SLOT: usize = 1024;

fn slot(number: usize) -> usize {
    HEAD + (number / 32 + 1) * TAILS + number * SLOT
}

#[test]
fn a_full_journal_takes_no_more_and_goes_on_when_one_is_free() {
    let folder = Folder::new("full");
    let (journal, _) = Journal::open(&folder.0.join("journal")).expect("opens");
    let entry = Entry { operation: Id::of("op_1").expect("a name"), ..Entry::default() };
    let mut last = journal.begin(&entry).expect("a slot");
    for _ in 1..SLOTS_MAX {
        last = journal.begin(&entry).expect("a slot");
    }
    assert!(matches!(journal.begin(&entry), Err(JournalError::Full)));
    assert_eq!(journal.taken(), SLOTS_MAX);
    journal.free([last]);
    assert_eq!(journal.taken(), SLOTS_MAX - 1);
    journal.begin(&entry).expect("the free one");
    assert!(matches!(journal.begin(&entry), Err(JournalError::Full)));
}

/// Leaves requests open and waits for its end.
#[test]
#[ignore = "a process of its own, for the next test"]
fn till_with_open_requests() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let shop = shop().await;
        let mut open = Vec::new();
        for count in 0..OPEN {
            let request = format!("{}-{count}", std::process::id());
            let operation = shop.admit_as(&request, 7, 5000).expect("it is let in");
            operation.hands_out(count as u64, 0);
            say(&format!("begins {request} 0"));
            say(&format!("paid {request} {}", operation.allowance()));
            say(&format!("out {request} {count}"));
            open.push(operation);
        }
        std::future::pending::<()>().await;
    });
}

#[test]
fn damage_costs_what_was_damaged_and_nothing_else() {
    let mut random = Random::new(std::process::id().into());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // What becomes of the file, and how many requests are lost with it.
    type Damage = fn(&mut Vec<u8>, &mut Random) -> usize;
    let damages: [(&str, Damage); 5] = [
        ("none", |_, _| 0),
        ("some slots", |file, random| {
            let first = random.index(OPEN - 7);
            for number in first..first + 7 {
                let at = slot(number) + random.index(150);
                file[at] ^= 1 << random.index(8);
            }
            7
        }),
        ("its end is missing", |file, random| {
            let kept = random.index(OPEN);
            // An entry has 150 bytes or more.
            file.truncate(slot(kept) + 1 + random.index(150));
            OPEN - kept
        }),
        ("something behind it", |file, random| {
            file.extend((0..5000).map(|_| random.bits() as u8));
            0
        }),
        ("all of it", |file, random| {
            file.iter_mut().for_each(|byte| *byte = random.bits() as u8);
            OPEN
        }),
    ];
    for (name, damage) in damages {
        let folder = Folder::new("damaged");
        let mut said = BTreeMap::new();
        let (mut child, out) = start("journal::till_with_open_requests", &folder.0, "");
        let mut out = BufReader::new(out);
        hear(&mut out, &mut said, 3 * OPEN);
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        assert_eq!(said.len(), OPEN);
        let path = folder.0.join("journal");
        let mut file = fs::read(&path).expect("the journal");
        let lost = damage(&mut file, &mut random);
        fs::write(&path, file).expect("written");
        eprintln!("{name}: {lost} lost");
        let settings = settings(&folder.0, None, Clock::System);
        runtime.block_on(async { check(&open(&settings).await, &said, lost).await });
    }
}

async fn with_budget(settings: &Settings) -> (Shop, Budget) {
    let shop = Shop::open(settings, price(1, 10)).await;
    let budget = shop.budget(vec![limit(100_000)]);
    put(&shop.governor, vec![Edit::put(&budget)]).await;
    (shop, budget)
}

/// A process that dies between the commit and the journal's word about it leaves an entry that the
/// ledger has: it is not booked again, nor told again.
#[tokio::test]
async fn what_the_ledger_has_is_not_settled_again() {
    let folder = Folder::new("twice");
    let settings = settings(&folder.0, None, Clock::System);
    let (shop, budget) = with_budget(&settings).await;
    let operation = shop.admit_as("r", 7, 50).expect("money is there");
    let made = generate(&operation, 30);
    let early = fs::read(folder.0.join("journal")).expect("the journal");
    operation.used(Tokens { input: 7, output: made.into(), ..Tokens::default() }, Outcome::Done, 0);
    let cost = operation.finish().cost.0;
    drop(operation);
    shop.governor.flush().await;
    assert_eq!(shop.standing(&budget.id), (cost, 0));
    drop(shop);
    drop(open(&settings).await);
    drop(wait_closed(&settings.journal).await);
    fs::write(folder.0.join("journal"), early).expect("written");
    let shop = Shop::open(&settings, price(1, 10)).await;
    assert_eq!(shop.standing(&budget.id), (cost, 0));
    assert_eq!(shop.governor.open_operations(), 0);
    check_sums(&shop.governor).await;
}

/// The ledger has the first attempt when the process dies, and not the second.
#[tokio::test]
async fn an_attempt_is_settled_whatever_became_of_the_one_before_it() {
    let folder = Folder::new("attempts");
    let settings = settings(&folder.0, None, Clock::System);
    let (shop, budget) = with_budget(&settings).await;
    let first = shop.admit_as("r", 7, 50).expect("money is there");
    let second = shop.governor.again(&shop.principal, &shop.ask("r", 7, 50), &first);
    let second = second.expect("another attempt");
    second.hands_out(20, 0);
    shop.governor.flush().await;
    let dead = Folder::new("attempts-dead");
    for file in fs::read_dir(&folder.0).expect("a folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), dead.0.join(file.file_name())).expect("a copy");
    }
    let settings = super::shop::settings(&dead.0, None, Clock::System);
    let shop = Shop::open(&settings, price(1, 10)).await;
    assert_eq!(shop.standing(&budget.id), (7 + 20 * 10, 0));
    check_sums(&shop.governor).await;
}

/// An answer has left, and the power fails: of its end the disk has what was waited for, and
/// nothing else since the request began.
///
/// With several threads whoever waits asks the disk itself, with one another thread does.
#[test]
fn what_was_waited_for_outlives_the_power() {
    for threads in [1, 2] {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(threads).enable_all().build().expect("a runtime");
        runtime.block_on(die(Fsync::Always, "journal.ends"));
    }
}

/// Where nobody waits for the disk, a process that dies loses nothing all the same: the kernel has
/// its slots.
#[tokio::test]
async fn what_nobody_waited_for_outlives_the_process() {
    die(Fsync::EverySecond, "journal").await;
}

/// Of all that is written for an answer before it ends, one file is left.
async fn die(fsync: Fsync, left: &str) {
    let folder = Folder::new("power");
    let settings = Settings { fsync, ..settings(&folder.0, None, Clock::System) };
    let (shop, budget) = with_budget(&settings).await;
    shop.governor.flush().await;
    let dead = Folder::new("power-dead");
    let copy = |name: &std::ffi::OsStr| {
        fs::copy(folder.0.join(name), dead.0.join(name)).expect("a copy");
    };
    fs::read_dir(&folder.0)
        .expect("a folder")
        .for_each(|file| copy(&file.expect("a file").file_name()));
    let operation = shop.admit_as("r", 7, 50).expect("money is there");
    let used = Tokens { input: 7, output: 30, ..Tokens::default() };
    operation.used(used, Outcome::Done, 3);
    let receipt = operation.finish();
    let cost = receipt.cost.0;
    receipt.durable(std::time::Duration::from_secs(5)).await;
    copy(left.as_ref());
    let ends = fs::metadata(folder.0.join("journal.ends")).expect("a file").len();
    assert_eq!(ends > 0, fsync == Fsync::Always);
    let settings = super::shop::settings(&dead.0, None, Clock::System);
    let shop = Shop::open(&settings, price(1, 10)).await;
    assert_eq!(shop.standing(&budget.id), (cost, 0));
    check_sums(&shop.governor).await;
    let rows = sqlx::query("SELECT request_id, output_tokens, outcome FROM ledger");
    let rows = rows.fetch_all(shop.governor.store().read()).await.expect("the ledger");
    let [row] = &rows[..] else { panic!("{} lines of one request", rows.len()) };
    let line: (String, i64, String) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(line, ("r".to_owned(), 30, "done".to_owned()));
}

/// The journal's file, once nobody has it.
async fn wait_closed(path: &std::path::Path) -> Journal {
    for _ in 0..5000 {
        match Journal::open(path) {
            Ok((journal, _)) => return journal,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
        }
    }
    panic!("the journal stays open");
}

#[tokio::test]
async fn nobody_shares_a_database_or_a_journal() {
    let folder = Folder::new("shared");
    let first = settings(&folder.0, None, Clock::System);
    let _governor = open(&first).await;
    let other_journal = Settings { journal: folder.0.join("other"), ..first.clone() };
    let refused = Governor::open(&other_journal).await;
    assert!(matches!(refused, Err(OpenError::Store(StoreError::InUse(_)))));
    let database = folder.0.join("other.db").display().to_string();
    let other_database = Settings { url: database, ..first.clone() };
    let refused = Governor::open(&other_database).await;
    assert!(matches!(refused, Err(OpenError::Journal(JournalError::Taken(_)))));
}
