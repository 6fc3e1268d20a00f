//! A disk without room: here a bound on the size of files, which no privilege lifts.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::process::{Child, ChildStdout, Command};
use std::time::Duration;

use govern::Rule;
use govern::governor::Clock;

use super::shop::{Folder, open, settings};
use super::till::{Said, check, hear, say, shop, start};

/// Serves until it is refused for want of a place to write down, and says so.
#[test]
#[ignore = "a process of its own, for the next test"]
fn till_on_a_full_disk() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let shop = shop().await;
        for count in 0.. {
            let request = format!("{}-{count}", std::process::id());
            say(&format!("asks {request} 0"));
            let operation = match shop.admit_as(&request, 7, 5000) {
                Ok(operation) => operation,
                Err(denied) => {
                    assert_eq!(denied.rule, Rule::Unavailable, "{denied}");
                    break;
                }
            };
            say(&format!("begins {request} 0"));
            say(&format!("paid {request} {}", operation.allowance()));
            operation.hands_out(1, 0);
            say(&format!("out {request} 1"));
            operation.answered(1, 0);
            say(&format!("ends {request} {}", operation.finish().cost.0));
        }
        // A refused request holds nothing: what is spent is all that there is.
        let budget = shop.governor.directory().budgets().next().expect("a budget").id.clone();
        let (_, held) = shop.standing(&budget);
        say(&format!("paid held {held}"));
        while shop.governor.open_operations() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        say("paid written 0");
        std::future::pending::<()>().await;
    });
}

/// A process that has filled its disk: 4096 blocks of 512 bytes are less than its database needs.
fn full(folder: &Folder, said: &mut BTreeMap<String, Said>) -> (Child, BufReader<ChildStdout>) {
    // The first start makes the schema.
    let settings = settings(&folder.0, None, Clock::System);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { drop(open(&settings).await) });
    let before = "trap '' XFSZ; ulimit -S -f 4096";
    let (child, out) = start("disk::till_on_a_full_disk", &folder.0, before);
    let mut out = BufReader::new(out);
    hear_of("held", &mut out, said);
    assert!(said.len() > 200, "{} requests before the disk was full", said.len());
    (child, out)
}

fn hear_of(word: &str, out: &mut BufReader<ChildStdout>, said: &mut BTreeMap<String, Said>) {
    while !said.contains_key(word) {
        hear(out, said, 1);
    }
    assert_eq!(said.remove(word).expect("the last word").paid, 0);
}

/// What the ledger says of all that was said.
fn look(folder: &Folder, said: &BTreeMap<String, Said>) {
    let settings = settings(&folder.0, None, Clock::System);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { check(&open(&settings).await, said, 0).await });
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let (folder, mut said) = (Folder::new("disk"), BTreeMap::new());
    let (mut child, _out) = full(&folder, &mut said);
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    look(&folder, &said);
}

/// What could not be written is written when there is room again, by the same process: the journal
/// says so, and without the journal the database has it.
#[test]
fn a_disk_that_has_room_again_gets_everything() {
    let (folder, mut said) = (Folder::new("room"), BTreeMap::new());
    let (mut child, mut out) = full(&folder, &mut said);
    // The writer has tried in vain a few times.
    std::thread::sleep(Duration::from_millis(500));
    let pid = format!("--pid={}", child.id());
    let lifted = Command::new("prlimit").args([&pid, "--fsize=unlimited"]).status();
    assert!(lifted.expect("prlimit, of util-linux").success());
    hear_of("written", &mut out, &mut said);
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    fs::remove_file(folder.0.join("journal")).expect("the journal");
    look(&folder, &said);
}
