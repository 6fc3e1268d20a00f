//! Gateways that die, come back, or do not; and two that want to be one.

use std::time::Duration;

use govern::{Money, Rule, Settings};
use sqlx::Row as _;

use super::gateway::{Gateway, OUTPUT, back, wait, within};
use super::ledger::check_sums;
use super::rules::{Pair, pair};
use super::shop::Folder;

const SECOND: Duration = Duration::from_secs(1);

/// So much time passes at the database for one gateway's word.
fn age(gateway: &Gateway, name: &str, by: Duration) {
    let sql = "UPDATE gateways SET until = until - $1 WHERE name = $2";
    let query = sqlx::query(sql).bind(by.as_millis() as i64).bind(name);
    gateway.run(query.execute(gateway.governor().store().read())).expect("an update");
}

/// 700 spent, 700 handed out and not settled, the rest of 70,000 free or leased.
fn killed(name: &str) -> (Gateway, Settings, Folder, govern::entity::Budget) {
    let Pair { a, b, budget, folder, .. } = pair(name, 70_000);
    assert_eq!(b.serve(100), 700);
    b.run(b.governor().flush());
    let open = b.admit(0, 200).expect("money is there");
    assert_eq!(b.generate(&open, 100), 100);
    let settings = b.crash();
    std::mem::forget(open);
    (a, settings, folder, budget)
}

/// Spends all that one gateway can get, and returns how much that was.
fn spend_all(gateway: &Gateway) -> i64 {
    let mut cost = 0;
    loop {
        let operation = match gateway.admit(0, 300) {
            Ok(operation) => operation,
            Err(denied) if denied.rule == Rule::Budget => return cost,
            Err(denied) => panic!("{denied}"),
        };
        let made = gateway.generate(&operation, 300);
        operation.answered(made.into(), 0);
        cost += operation.finish().cost.0;
    }
}

#[test]
fn what_a_dead_gateway_leased_is_kept_for_it_until_it_comes_back() {
    let (a, settings, _folder, budget) = killed("back");
    let leased: i64 = a.slices(&budget).iter().sum();
    assert!(leased >= 700, "{leased}");
    let spent = spend_all(&a);
    assert!(spent <= 70_000 - 700 - leased && spent + 7 > 70_000 - 700 - leased - 700, "{spent}");
    // Its word ends; its money is not free for that.
    age(&a, "b", 9 * SECOND);
    std::thread::sleep(SECOND);
    assert_eq!(spend_all(&a), 0);
    // The one that has its journal is it, at once.
    let b = back(&settings);
    let rest = within(5 * SECOND, || match spend_all(&a) {
        0 => Err("nothing yet"),
        rest => Ok(rest),
    });
    let mut all = a.ledger();
    assert!(all <= 70_000);
    all += spend_all(&b) + spend_all(&a);
    assert!(all <= 70_000 && all + OUTPUT as i64 > 70_000, "{all}: {spent}, then {rest}");
    b.run(b.governor().flush());
    assert_eq!(a.ledger(), all);
    let sql = "SELECT cost_nano_usd FROM ledger WHERE outcome = 'recovered'";
    let rows = a.run(sqlx::query(sql).fetch_all(a.governor().store().read())).expect("rows");
    let costs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(costs, [700]);
    assert_eq!((a.told("gateway_lost"), a.told("gateway_back")), (0, 0));
    a.run(check_sums(a.governor()));
}

#[test]
fn one_that_is_lost_is_settled_and_counts_when_it_is_back_all_the_same() {
    let (a, settings, _folder, budget) = killed("lost");
    age(&a, "b", a.settings.sharing.lost + 4 * SECOND);
    wait(5 * SECOND, "it is lost", || a.told("gateway_lost") == 1);
    assert!(a.slices(&budget).len() <= 1);
    let spent = spend_all(&a);
    assert!(spent + 700 <= 70_000 && spent + 700 + OUTPUT as i64 > 70_000, "{spent}");
    a.run(a.governor().flush());
    let b = back(&settings);
    assert_eq!(b.ledger(), 700 + spent + 700, "money that was spent is never lost");
    assert_eq!(b.told("gateway_back"), 1);
    assert!(b.admit(0, 1).is_err_and(|denied| denied.rule == Rule::Budget));
    b.run(check_sums(b.governor()));
}

/// It lives, and everybody thinks that it does not: it must not spend what others may have now.
#[test]
fn one_that_was_taken_for_lost_while_it_lived_begins_anew() {
    let Pair { a, b, budget, folder: _folder, .. } = pair("anew", 70_000);
    let running = b.admit(0, 100).expect("money is there");
    // As if its renewals had not come through for long; the next one finds that it is gone.
    let sql = "WITH gone AS (DELETE FROM gateways WHERE name = 'b' RETURNING id) \
               DELETE FROM slices WHERE gateway IN (SELECT id FROM gone)";
    a.run(sqlx::query(sql).execute(a.governor().store().read())).expect("deleted");
    wait(2 * SECOND, "it is back", || a.told("gateway_back") == 1);
    // What its request holds is set aside again.
    wait(2 * SECOND, "its hold counts", || a.slices(&budget).contains(&700));
    let mut spent = spend_all(&a);
    assert_eq!(b.generate(&running, 100), 100);
    running.answered(100, 0);
    spent += running.finish().cost.0;
    spent += within(2 * SECOND, || Ok::<_, ()>(spend_all(&b)));
    assert!(spent <= 70_000 && spent + 2 * OUTPUT as i64 > 70_000, "{spent}");
    b.run(b.governor().flush());
    assert_eq!(a.ledger(), spent);
}

#[test]
fn two_gateways_of_one_name_are_refused() {
    let Pair { a, b, folder, .. } = pair("name", 1);
    let journal = folder.0.join("other");
    let other = Settings { journal, ..a.settings.clone() };
    let why = Gateway::refused(&other).expect("a refusal");
    assert!(why.contains("another gateway called `a`"), "{why}");
    // The journal says who it is: the same one comes back at once, whatever its word said.
    let settings = b.crash();
    let b = back(&settings);
    // The name of one that is long dead is free, and what it leased is not.
    let settings = b.crash();
    age(&a, "b", 9 * SECOND);
    let other = Settings { journal: folder.0.join("other"), ..settings };
    let again = Gateway::of(other);
    assert_eq!(again.governor().gateway(), "b");
    assert_eq!(Money(a.ledger()), Money::ZERO);
}
