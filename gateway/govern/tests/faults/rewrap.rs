//! SIGKILL while everything is sealed with another master key: all of it is, or nothing.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use govern::Id;
use govern::entity::{Entity as _, Organisation, User};
use govern::governor::Clock;
use govern::identity::session::totp_place;
use govern::policy::Recording;
use govern::secret::{Keyring, Master};
use govern::store::Store;
use govern::store::documents::Edit;
use hearth_tests::simulation::random::Random;
use sqlx::Row as _;

use super::shop::{BEGIN, Folder, Shop, open, price, put, settings};
use super::till::{say, start};

const ROUNDS: u64 = 20;
const TEXTS: usize = 200;
const PEOPLE: usize = 20;

/// Each of two keys in use, beside the other.
fn keyrings() -> [Arc<Keyring>; 2] {
    let keys = || ["5b", "07"].map(|pair| Master::parse(&(pair.repeat(31) + "08")).expect("a key"));
    let [[a, b], [old_a, old_b]] = [keys(), keys()];
    [(a, old_b), (b, old_a)].map(|(current, old)| Arc::new(Keyring { current, old: vec![old] }))
}

/// Texts and secrets, all sealed with the first key.
async fn fill(folder: &Path) {
    let [keyring, _] = keyrings();
    let shop = Shop::open(&settings(folder, None, Clock::System), price(0, 0)).await;
    shop.governor.record_with(Arc::clone(&keyring));
    let mut organisation = {
        let directory = shop.governor.directory();
        Organisation::clone(directory.organisation(&shop.organisation).expect("it"))
    };
    organisation.policy.record = Recording::Full;
    let mut edits = vec![Edit::put(&organisation)];
    edits.extend((0..PEOPLE).map(|number| {
        let id = Id::new(User::KIND, BEGIN);
        let totp = Some(keyring.seal(b"twenty bytes of code", &totp_place(&id)));
        let email = format!("{number}@example.org");
        Edit::put(&User {
            id,
            organisation: shop.organisation.clone(),
            email,
            totp,
            ..User::default()
        })
    }));
    put(&shop.governor, edits).await;
    let principal = {
        let directory = shop.governor.directory();
        let key = shop.principal.key.as_ref().expect("a key");
        directory.principal(directory.key(&key.id).expect("it")).expect("whole")
    };
    for number in 0..TEXTS {
        let ask = shop.ask(&number.to_string(), 5, 9);
        let operation = shop.governor.admit(&principal, &ask).expect("let in");
        operation.record(b"asked", b"answered");
        drop(operation.finish());
    }
    shop.governor.recorded().await;
}

/// Changes the master key for ever.
#[test]
#[ignore = "a process of its own, for the next test"]
fn till_to_be_killed() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let folder = std::env::var_os("HEARTH_TILL").expect("a folder");
        let governor = open(&settings(Path::new(&folder), None, Clock::System)).await;
        for keyring in keyrings().iter().cycle() {
            governor.rewrap(keyring).await.expect("sealed anew");
            say("turned");
        }
    });
}

/// What all that is sealed begins with.
async fn sealed_with(folder: &Path) -> BTreeSet<String> {
    let store = Store::open(&folder.join("hearth.db").display().to_string()).await.expect("it");
    let texts = sqlx::query("SELECT sealed FROM body_keys").fetch_all(store.read()).await;
    let mut all: Vec<String> = texts.expect("keys").iter().map(|row| row.get(0)).collect();
    assert_eq!(all.len(), TEXTS);
    let people = sqlx::query("SELECT body FROM documents WHERE kind = 'user'");
    for row in people.fetch_all(store.read()).await.expect("people") {
        let user: User = serde_json::from_str(row.get(0)).expect("a person");
        all.extend(user.totp);
    }
    assert_eq!(all.len(), TEXTS + PEOPLE);
    store.close().await;
    all.iter().map(|sealed| sealed[..15].to_owned()).collect()
}

#[test]
fn a_rotation_that_is_killed_has_changed_all_or_nothing() {
    let folder = Folder::new("rewrap");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(fill(&folder.0));
    let mut random = Random::new(std::process::id().into());
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let (mut child, out) = start("rewrap::till_to_be_killed", &folder.0, "");
        let turned = BufReader::new(out).lines().map_while(Result::ok);
        let turned = turned.filter(|line| line == "till turned");
        assert_eq!(turned.take(2).count(), 2, "it runs");
        std::thread::sleep(Duration::from_micros(random.between(0, 40_000)));
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        let with = runtime.block_on(sealed_with(&folder.0));
        assert_eq!(with.len(), 1, "two keys have sealed it: {with:?}");
        seen.extend(with);
    }
    assert_eq!(seen.len(), 2, "it was killed with either key in use");
}
