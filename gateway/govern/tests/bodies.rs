//! Recorded texts: what a policy asks for is kept and read back, nobody without the key reads any,
//! and what was erased can be read from no copy.

#[path = "money/shop.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use govern::backup::{BackupError, backup, restore};
use govern::bodies::{BYTES_MAX, BodyError, Erase};
use govern::entity::{Entity as _, Key, Organisation, User};
use govern::governor::Clock;
use govern::ledger::{Outcome, Tokens};
use govern::policy::{Label, Policy, Recording};
use govern::report::{RecordQuery, records};
use govern::secret::{Keyring, Master};
use govern::store::documents::Edit;
use govern::{Ask, Class, Denied, Id, Operation, Principal};
use hearth_tests::services::postgres;
use shop::{BEGIN, Folder, Shop, price, put, settings};

const DAY_MS: i64 = 86_400_000;
const SECRET: &str = "the red door's code is 4711";

struct World {
    shop: Shop,
    clock: Arc<AtomicI64>,
    folder: Folder,
    url: String,
    people: Vec<Principal>,
}

fn keyring() -> Arc<Keyring> {
    let text = "5b".repeat(31) + "5c";
    Arc::new(Keyring { current: Master::parse(&text).expect("a key"), old: Vec::new() })
}

impl World {
    /// A shop with two people whose texts are recorded.
    async fn open(name: &str, url: Option<String>) -> Self {
        let folder = Folder::new(&format!("bodies-{name}"));
        let url = url.unwrap_or_else(|| folder.0.join("hearth.db").display().to_string());
        Self::again(folder, url).await
    }

    async fn again(folder: Folder, url: String) -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let settings = settings(&folder.0, Some(url.clone()), Clock::Set(Arc::clone(&clock)));
        let shop = Shop::open(&settings, price(0, 0)).await;
        let mut edits = Vec::new();
        let mut people: Vec<Principal> = Vec::new();
        for name in ["ada", "bob"] {
            let (organisation, project) = (&shop.organisation, &shop.project);
            let known = shop.governor.directory().users().find(|user| user.email == name).cloned();
            if known.is_some() {
                continue;
            }
            let user = User {
                id: Id::new(User::KIND, BEGIN),
                organisation: organisation.clone(),
                email: name.to_owned(),
                ..User::default()
            };
            let key = shop::key(organisation, project, Some(user.id.clone()));
            edits.push(Edit::put(&user));
            edits.push(Edit::put(&Key { label: name.to_owned(), ..key }));
        }
        put(&shop.governor, edits).await;
        {
            let directory = shop.governor.directory();
            for name in ["ada", "bob"] {
                let key = directory.keys().find(|key| key.label == name).expect("a key");
                people.push(directory.principal(key).expect("whole"));
            }
        }
        Self { shop, clock, folder, url, people }
    }

    async fn asks(&mut self, change: impl FnOnce(&mut Organisation)) {
        let mut organisation = {
            let directory = self.shop.governor.directory();
            Organisation::clone(directory.organisation(&self.shop.organisation).expect("it"))
        };
        change(&mut organisation);
        put(&self.shop.governor, vec![Edit::put(&organisation)]).await;
        let directory = self.shop.governor.directory();
        for person in &mut self.people {
            let key = person.key.clone().expect("a key");
            *person = directory.principal(&key).expect("whole");
        }
    }

    fn admit(&self, who: usize, label: Label) -> Result<Arc<Operation>, Denied> {
        let ask = Ask {
            model: "model".to_owned(),
            surface: "chat",
            input_tokens: 5,
            choices: 1,
            room: 100,
            label: Some(label),
            ..Ask::default()
        };
        self.shop.governor.admit(&self.people[who], &ask)
    }

    /// A request from its beginning to its recorded end; the operation's name.
    fn say(&self, who: usize, label: Label, request: &str, answer: &str) -> Id {
        let operation = self.admit(who, label).expect("let in");
        let tokens = Tokens { input: 5, output: 3, ..Tokens::default() };
        operation.used(tokens, Outcome::Done, 1);
        operation.record(request.as_bytes(), answer.as_bytes());
        drop(operation.finish());
        operation.id()
    }

    async fn texts(&self, operation: &Id) -> Result<Vec<(String, String)>, BodyError> {
        self.shop.governor.recorded().await;
        let found = self.shop.governor.bodies_of(&self.shop.organisation, operation).await?;
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).expect("text");
        let both =
            |body: &govern::bodies::Body| (text(body.request.expose()), text(body.answer.expose()));
        Ok(found.iter().map(both).collect())
    }
}

fn full(organisation: &mut Organisation) {
    organisation.policy = Policy { record: Recording::Full, ..Policy::default() };
}

async fn kept(name: &str, url: Option<String>) {
    let mut world = World::open(name, url).await;
    let early = world.admit(0, Label::Public).expect("let in");
    assert!(!early.records(), "nobody asked for it");
    drop(early);
    world.asks(full).await;
    let refused = world.admit(0, Label::Public).err().expect("it cannot be recorded");
    assert_eq!(refused.rule.class(), Class::Unavailable, "{refused}");
    world.shop.governor.record_with(keyring());
    let one = world.say(0, Label::Public, SECRET, "I see.");
    assert_eq!(world.texts(&one).await.expect("kept"), [(SECRET.to_owned(), "I see.".to_owned())]);
    let nobody = world.shop.governor.bodies_of(&Id::of("org_other").expect("an id"), &one).await;
    assert!(nobody.expect("none").is_empty(), "another organisation's");
    // Cut, and how long it was is known.
    let long = "x".repeat(BYTES_MAX + 7);
    let two = world.say(1, Label::Public, &long, "");
    let found = &world.texts(&two).await.expect("kept")[0];
    assert_eq!(found.0.len(), BYTES_MAX);
    let (all, next) = world
        .shop
        .governor
        .store()
        .bodies(&world.shop.organisation, None, None, 10)
        .await
        .expect("a page");
    assert!(next.is_none());
    let bytes: Vec<u64> = all.iter().map(|about| about.bytes).collect();
    assert_eq!(all.len(), 2);
    assert!(bytes.contains(&(BYTES_MAX as u64 + 7)), "{bytes:?}");
    // Only what is secret enough.
    world.asks(|organisation| organisation.policy.record_labels = vec![Label::Restricted]).await;
    assert!(!world.admit(0, Label::Public).expect("let in").records());
    assert!(world.admit(0, Label::Restricted).expect("let in").records());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_policy_asks_for_is_kept() {
    kept("sqlite", None).await;
    kept("postgres", Some(postgres::shared().fresh())).await;
}

async fn page(world: &World, kind: &str) -> usize {
    world.shop.governor.flush().await;
    let query = RecordQuery {
        organisation: Some(world.shop.organisation.clone()),
        kind: Some(kind.to_owned()),
        from: i64::MIN,
        to: i64::MAX,
        after: None,
        limit: 100,
    };
    records(world.shop.governor.store(), &query).await.expect("records").0.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_bounded_and_what_is_missing_is_said() {
    let mut world = World::open("room", None).await;
    world.asks(full).await;
    world.shop.governor.record_with(keyring());
    let mut open = Vec::new();
    let refused = loop {
        match world.admit(0, Label::Public) {
            Ok(operation) => open.push(operation),
            Err(denied) => break denied,
        }
        assert!(open.len() < 5000, "there is no end");
    };
    assert_eq!(refused.rule.class(), Class::Unavailable);
    assert!(open.len() > 100, "{}", open.len());
    assert_eq!(page(&world, "body").await, 0);
    // One that ran and was never recorded; the others never ran.
    open[0].hands_out(1, 0);
    open.clear();
    assert_eq!(page(&world, "body").await, 1);
    let again = world.say(0, Label::Public, "a", "b");
    assert_eq!(world.texts(&again).await.expect("kept").len(), 1, "there is room again");
}

/// Waits until nobody uses the database any more.
async fn restored(text: &[u8], url: &str) {
    for _ in 0..2000 {
        match restore(text, url, true).await {
            Ok(_) => return,
            Err(BackupError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is in use for ever");
}

async fn erased(name: &str, url: Option<String>) {
    let mut world = World::open(name, url).await;
    world.asks(full).await;
    world.shop.governor.record_with(keyring());
    let adas = world.say(0, Label::Public, SECRET, "one");
    let bobs = world.say(1, Label::Public, "bob's words", "two");
    world.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    let later = world.say(1, Label::Public, "bob's later words", "three");
    assert_eq!(world.texts(&later).await.expect("kept").len(), 1);
    let mut copy = Vec::new();
    backup(&world.url, BEGIN, &mut copy).await.expect("a backup");
    let text = String::from_utf8_lossy(&copy);
    assert!(text.contains(adas.as_str()) && !text.contains("body_keys"), "keys stay here");
    assert!(!text.contains(SECRET));

    let organisation = world.shop.organisation.clone();
    let user = world.people[0].user.as_ref().map(|user| user.id.clone());
    let of_ada = Erase { organisation: organisation.clone(), user, before: None };
    assert_eq!(world.shop.governor.erase_bodies(of_ada).await.expect("erased"), 1);
    let old = Erase { organisation: organisation.clone(), user: None, before: Some(BEGIN + 1) };
    assert_eq!(world.shop.governor.erase_bodies(old).await.expect("erased"), 1);
    for gone in [&adas, &bobs] {
        assert!(world.texts(gone).await.expect("none").is_empty());
    }
    assert_eq!(world.texts(&later).await.expect("kept").len(), 1);

    // An older copy comes back over it: the rows are there, and nobody can read them.
    let World { shop, folder, url, people, .. } = world;
    drop((shop, people));
    restored(&copy, &url).await;
    let world = World::again(folder, url).await;
    world.shop.governor.record_with(keyring());
    for gone in [&adas, &bobs] {
        let read = world.texts(gone).await;
        assert!(matches!(read, Err(BodyError::Erased)), "{read:?}");
    }
    assert_eq!(world.texts(&later).await.expect("kept")[0].1, "three", "what was not erased");
    drop(world.folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_comes_back_from_no_copy() {
    erased("erase-sqlite", None).await;
    erased("erase-postgres", Some(postgres::shared().fresh())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_sealed_and_go_when_their_time_is_over() {
    let mut world = World::open("retention", None).await;
    world
        .asks(|organisation| {
            full(organisation);
            organisation.retention_days = [(Label::Restricted, 2)].into();
        })
        .await;
    world.shop.governor.record_with(keyring());
    let short = world.say(0, Label::Restricted, SECRET, SECRET);
    let long = world.say(0, Label::Public, SECRET, SECRET);
    assert_eq!(world.texts(&short).await.expect("kept").len(), 1);
    for end in ["", "-wal"] {
        let bytes = std::fs::read(format!("{}{end}", world.url)).expect("a file");
        let found = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!found, "it lies open in hearth.db{end}");
    }
    // Another master key opens nothing.
    world.clock.store(BEGIN + 2 * DAY_MS, Ordering::SeqCst);
    let other = world.say(0, Label::Public, "a", "b");
    assert_eq!(world.texts(&other).await.expect("kept").len(), 1);
    world.shop.governor.recorded().await;
    assert!(world.texts(&short).await.expect("none").is_empty(), "two days are over");
    assert_eq!(world.texts(&long).await.expect("kept").len(), 1, "thirty are not");
}
