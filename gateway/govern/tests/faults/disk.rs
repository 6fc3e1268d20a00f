//! A disk without room: here a bound on the size of files, which no privilege lifts.

use std::collections::BTreeMap;
use std::io::BufReader;

use govern::Rule;
use govern::governor::Clock;

use super::shop::{Folder, open, settings};
use super::till::{check, hear, say, shop, start};

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
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let folder = Folder::new("disk");
    // The first start makes the schema; 1024 blocks of 512 bytes are less than the database needs.
    let settings = settings(&folder.0, None, Clock::System);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { drop(open(&settings).await) });
    let before = "trap '' XFSZ; ulimit -f 1024";
    let (mut child, out) = start("disk::till_on_a_full_disk", &folder.0, before);
    let mut out = BufReader::new(out);
    let mut said = BTreeMap::new();
    while !said.contains_key("held") {
        let words = said.len();
        hear(&mut out, &mut said, 1);
        assert!(words <= said.len());
    }
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    assert_eq!(said.remove("held").expect("the last word").paid, 0);
    assert!(said.len() > 200, "{} requests before the disk was full", said.len());
    runtime.block_on(async { check(&open(&settings).await, &said, 0).await });
}
