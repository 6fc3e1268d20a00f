//! A process that serves requests and says each step aloud, once it is done; and what those words
//! promise about the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use govern::governor::Clock;
use govern::ledger::{Outcome, Tokens};
use govern::store::documents::Edit;
use govern::{Governor, Operation};
use hearth_tests::simulation::random::Random;
use sqlx::Row as _;

use super::ledger::check_sums;
use super::shop::{Shop, limit, price, put, settings};

pub(super) const INPUT: i64 = 5;
pub(super) const OUTPUT: i64 = 9;

/// Starts one of this program's own tests as a process, behind a shell that runs `before`.
pub(super) fn start(test: &str, folder: &Path, before: &str) -> (Child, ChildStdout) {
    let own = std::env::current_exe().expect("own path");
    let mut child = Command::new("sh")
        .args(["-c", &format!("{before}\nexec \"$0\" \"$@\"")])
        .arg(own)
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env("HEARTH_TILL", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let out = child.stdout.take().expect("its output");
    (child, out)
}

/// The shop of the process's folder, as the process before it left it.
pub(super) async fn shop() -> Shop {
    let folder = std::env::var_os("HEARTH_TILL").expect("a folder");
    let settings = settings(Path::new(&folder), None, Clock::System);
    let shop = Shop::open(&settings, price(INPUT as u64, OUTPUT as u64)).await;
    if shop.governor.directory().budgets().next().is_none() {
        put(&shop.governor, vec![Edit::put(&shop.budget(vec![limit(1 << 50)]))]).await;
    }
    shop
}

/// In one write: a line is whole or not there.
pub(super) fn say(line: &str) {
    let mut text = String::new();
    let _ = writeln!(text, "\ntill {line}");
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Serves one request. It may be killed at any word.
pub(super) async fn serve(shop: &Shop, request: &str, random: &mut Random) -> bool {
    say(&format!("asks {request} 0"));
    let Ok(operation) = shop.admit_as(request, 7, 5000) else { return false };
    say(&format!("begins {request} 0"));
    say(&format!("paid {request} {}", operation.allowance()));
    let made = hand_out(&operation, request, random).await;
    let used = Tokens { input: 7, output: made.into(), ..Tokens::default() };
    match random.below(8) {
        0 => {}
        1 => operation.used(used, Outcome::Failed, 0),
        2 => operation.used(used, Outcome::Cancelled, 0),
        _ => {
            operation.used(used, Outcome::Cancelled, 0);
            operation.answered(made.into(), 0);
            let receipt = operation.finish();
            let cost = receipt.cost.0;
            receipt.durable(Duration::from_millis(20)).await;
            say(&format!("ends {request} {cost}"));
        }
    }
    true
}

async fn hand_out(operation: &Arc<Operation>, request: &str, random: &mut Random) -> u32 {
    let wish = random.between(0, 400) as u32;
    let mut made = 0;
    while made < wish.min(operation.allowance()) {
        made += 1;
        operation.hands_out(made.into(), 0);
        say(&format!("out {request} {made}"));
        if let Some(allowance) = operation.made(made) {
            say(&format!("paid {request} {allowance}"));
        }
        if random.permille(20) {
            tokio::task::yield_now().await;
        }
    }
    made
}

/// What was said of one request.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Said {
    pub(super) begins: bool,
    pub(super) out: i64,
    pub(super) paid: i64,
    pub(super) ends: Option<i64>,
}

/// Hears what a process says until it ends, or until so many words.
pub(super) fn hear(
    out: &mut BufReader<ChildStdout>,
    said: &mut BTreeMap<String, Said>,
    words: usize,
) {
    let mut heard = 0;
    let mut line = String::new();
    while heard < words {
        line.clear();
        if out.read_line(&mut line).expect("a pipe") == 0 {
            return;
        }
        let mut parts = line.split_whitespace();
        let (Some("till"), Some(word), Some(request), Some(number)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        heard += 1;
        let about = said.entry(request.to_owned()).or_default();
        let number: i64 = number.parse().expect("a number");
        match word {
            "asks" => {}
            "begins" => about.begins = true,
            "out" => about.out = number,
            "paid" => about.paid = number,
            "ends" => about.ends = Some(number),
            other => panic!("{other}?"),
        }
    }
}

/// The ledger is what was said: each request that began once, with at least what was handed out
/// and at most what was paid for. `lost` may be missing.
pub(super) async fn check(governor: &Governor, said: &BTreeMap<String, Said>, lost: usize) {
    governor.flush().await;
    assert_eq!(governor.open_operations(), 0);
    let rows = sqlx::query("SELECT request_id, output_tokens, cost_nano_usd, outcome FROM ledger");
    let rows = rows.fetch_all(governor.store().read()).await.expect("the ledger");
    let (mut seen, mut sum) = (BTreeSet::new(), 0);
    for row in &rows {
        let (request, output, cost): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let outcome: String = row.get(3);
        assert!(seen.insert(request.clone()), "{request} stands twice");
        let about = said.get(&request).unwrap_or_else(|| panic!("nobody asked for {request}"));
        let what = format!("{request}: {output} tokens, {cost}, {outcome}; {about:?}");
        // The word that follows a token may not have been said any more.
        assert!(output == about.out || output == about.out + 1, "{what}");
        assert!(output <= about.paid, "{what}");
        let free = outcome == "failed" || (output == 0 && outcome != "done");
        let ran_for_nothing = output == 0 && cost == 7 * INPUT && outcome == "cancelled";
        let expected = if free { 0 } else { 7 * INPUT + output * OUTPUT };
        assert!(cost == expected || ran_for_nothing, "{what}");
        if let Some(end) = about.ends {
            assert_eq!((cost, outcome.as_str()), (end, "done"), "{what}");
        }
        sum += cost;
    }
    let missing = said.iter().filter(|(request, about)| about.begins && !seen.contains(*request));
    assert_eq!(missing.count(), lost, "requests that began and are not in the ledger");
    check_sums(governor).await;
    let budget = governor.directory().budgets().next().expect("a budget").id.clone();
    let standing = governor.books().standing(&budget, governor.now()).expect("an account");
    assert_eq!((standing[0].spent.0, standing[0].held.0), (sum, 0));
}
