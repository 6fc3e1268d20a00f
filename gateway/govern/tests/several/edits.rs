//! Changes made at one gateway hold at all.

use std::time::{Duration, Instant};

use govern::entity::{Budget, Key};
use govern::governor::EditError;
use govern::identity::key::Minted;
use govern::ledger::writer::Note;
use govern::store::documents::Edit;
use govern::{Money, Rule};

use super::gateway::{Gateway, wait};
use super::rules::{Pair, pair};
use super::shop::{BEGIN, key};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn keys_hold_and_end_at_all_gateways_within_a_second() {
    let Pair { a, b, folder: _folder, .. } = pair("keys", 1);
    let (organisation, project) = (&a.shop().organisation, &a.shop().project);
    let minted = Minted::new();
    let shown = Some(minted.shown.as_str());
    let (prefix, hash) = (minted.prefix.clone(), minted.hash.clone());
    let key = Key { label: "new".to_owned(), prefix, hash, ..key(organisation, project, None) };
    let rule = |gateway: &Gateway| {
        gateway.governor().authenticate(shown, None).map_err(|denied| denied.rule).err()
    };
    assert_eq!(rule(&b), Some(Rule::UnknownKey));
    a.put(vec![Edit::put(&key)]).expect("an edit");
    assert_eq!(rule(&a), None);
    wait(SECOND, "it is known", || rule(&b).is_none());
    let revoked = Key { revoked_at: Some(BEGIN), ..key };
    b.put(vec![Edit::put(&revoked)]).expect("an edit");
    assert_eq!(rule(&b), Some(Rule::RevokedKey));
    wait(SECOND, "it is revoked", || rule(&a) == Some(Rule::RevokedKey));
}

/// A gateway that lives and says nothing may have requests that a changed budget counts. It does
/// not help that the budget had counted the same before.
#[test]
fn a_changed_budget_waits_for_all_gateways() {
    let mut pair = pair("deaf", 70_000);
    let run = |sql: &str| {
        let store = pair.a.governor().store();
        let done = pair.a.run(sqlx::query(sqlx::AssertSqlSafe(sql)).execute(store.read()));
        done.expect("a statement");
    };
    run("INSERT INTO gateways (id, name, token, until, revision) \
         SELECT 'deaf', 'deaf', 'x', 9000000000000, value FROM counters");
    assert!(pair.a.admit(0, 10).is_ok(), "it knows the budget as it is");
    let other = Budget { scope: govern::Scope::Everything, ..pair.budget.clone() };
    for budget in [&other, &pair.budget] {
        pair.b.put(vec![Edit::put(budget)]).expect("an edit");
    }
    pair.both_know();
    for gateway in [&pair.a, &pair.b] {
        let rule = gateway.admit(0, 10).map_err(|denied| denied.rule).err();
        assert_eq!(rule, Some(Rule::Unavailable));
    }
    run("UPDATE gateways SET revision = 1000000 WHERE id = 'deaf'");
    pair.a.admit_within(10, SECOND);
    run("UPDATE gateways SET revision = value FROM counters WHERE id = 'deaf'");
    // Another amount is the same money.
    pair.budget.limits[0].nano_usd = Money(700_000);
    pair.b.put(vec![Edit::put(&pair.budget)]).expect("an edit");
    pair.both_know();
    let operation = pair.a.admit(0, 50_000).expect("it is leased");
    assert!(pair.a.generate(&operation, 20_000) == 20_000);
}

/// Each adds one to what it finds: none may be judged by what was there before another one's.
#[test]
fn edits_are_judged_by_the_newest_of_all_gateways() {
    const EACH: i64 = 25;
    let pair = pair("judged", 1);
    let add = |gateway: &Gateway| {
        for _ in 0..EACH {
            let judge = |directory: &govern::directory::Directory, _| {
                let old = directory.budget(&pair.budget.id).expect("a budget");
                let mut new = Budget::clone(old);
                new.limits[0].nano_usd = new.limits[0].nano_usd.plus(Money(1));
                Ok::<_, EditError>((vec![Edit::put(&new)], Note::default(), ()))
            };
            gateway.run(gateway.governor().edit(judge)).expect("an edit");
        }
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| add(&pair.a));
        scope.spawn(|| add(&pair.b));
    });
    for gateway in [&pair.a, &pair.b] {
        wait(SECOND, "the last one is known", || {
            let directory = gateway.governor().directory();
            let budget = directory.budget(&pair.budget.id).expect("a budget");
            budget.limits[0].nano_usd == Money(1 + 2 * EACH)
        });
    }
    assert!(begun.elapsed() < 15 * SECOND, "{:?}", begun.elapsed());
}
