//! Sessions, links and steps of one-time codes, on both databases; and what providers' claims make
//! of people.

use govern::directory::{Change, Directory};
use govern::entity::{Entity, Grant, Organisation, Team, User};
use govern::identity::mapping::{
    Arrival, GroupRule, People, by_email, external_id, person as arrive,
};
use govern::identity::session::{IDLE_MS, LIFE_MS, LINK_MS, Sessions, csrf, csrf_fits};
use govern::store::Store;
use govern::{Id, Millis, Rule, Scope};
use hearth_tests::services::postgres;
use serde_json::{Value, json};
use sqlx::Row as _;

const NOW: Millis = 1_790_000_000_000;

fn user(name: &str) -> Id {
    Id::of(name).expect("a name")
}

/// Runs a test on SQLite and on PostgreSQL.
async fn on_both<F: AsyncFn(Store)>(name: &str, test: F) {
    let folder = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("hearth.db").display().to_string();
    for url in [file, postgres::shared().fresh()] {
        let store = Store::open(&url).await.expect("a store");
        test(store.clone()).await;
        store.close().await;
    }
    std::fs::remove_dir_all(&folder).expect("it was there");
}

#[tokio::test]
async fn sessions_end_in_time_and_when_told() {
    on_both("sessions", async |store| {
        let sessions = Sessions::of(&store);
        let ann = user("user_ann");
        let token = sessions.begin(&ann, "password", NOW).await.expect("begun");
        let at = async |now: Millis| {
            sessions.find(token.expose(), now).await.expect("an answer").map(|found| found.user)
        };
        assert_eq!(token.expose().len(), 43, "256 bits");
        assert_eq!(format!("{token:?}"), "***");
        assert_eq!(at(NOW).await, Some(ann.clone()));
        // Used now and then it lives for twelve hours, to the millisecond.
        let mut now = NOW;
        while now + IDLE_MS - 1 < NOW + LIFE_MS {
            now += IDLE_MS - 1;
            assert_eq!(at(now).await, Some(ann.clone()), "{}", now - NOW);
        }
        assert_eq!(at(NOW + LIFE_MS - 1).await, Some(ann.clone()));
        assert_eq!(at(NOW + LIFE_MS).await, None);
        // Unused it lives for an hour.
        let idle = sessions.begin(&ann, "password", NOW).await.expect("begun");
        let find = async |now| sessions.find(idle.expose(), now).await.expect("an answer");
        assert_eq!(find(NOW + IDLE_MS).await, None);
        assert!(find(NOW + IDLE_MS - 1).await.is_some());
        sessions.end(idle.expose()).await.expect("ended");
        assert_eq!(find(NOW).await, None);
        for wrong in ["", "x", &"x".repeat(43), &"'".repeat(43), &token.expose()[..42]] {
            assert_eq!(sessions.find(wrong, NOW).await.expect("an answer"), None, "{wrong}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_database_holds_no_token() {
    on_both("hashes", async |store| {
        let sessions = Sessions::of(&store);
        let token = sessions.begin(&user("user_ann"), "oidc:corp", NOW).await.expect("begun");
        let link = sessions.link(&user("user_ann"), NOW).await.expect("a link");
        for (table, token) in [("sessions", &token), ("links", &link)] {
            let sql = sqlx::AssertSqlSafe(format!("SELECT hash FROM {table}"));
            let row = sqlx::query(sql).fetch_one(store.read()).await.expect("a row");
            let hash: String = row.get(0);
            assert_eq!(hash.len(), 64);
            assert!(!hash.contains(token.expose()) && hash != token.expose());
        }
    })
    .await;
}

#[tokio::test]
async fn people_have_so_many_sessions_and_lose_all_at_once() {
    on_both("many", async |store| {
        let sessions = Sessions::of(&store);
        let (ann, bob) = (user("user_ann"), user("user_bob"));
        let mine = sessions.begin(&bob, "password", NOW).await.expect("begun");
        let mut tokens = Vec::new();
        for at in 0..25 {
            tokens.push(sessions.begin(&ann, "password", NOW + at).await.expect("begun"));
        }
        let mut alive = Vec::new();
        for token in &tokens {
            alive.push(sessions.find(token.expose(), NOW + 25).await.expect("an answer").is_some());
        }
        assert_eq!(alive, (0..25).map(|at| at >= 5).collect::<Vec<_>>(), "the oldest make room");
        sessions.end_all(&ann).await.expect("ended");
        for token in &tokens {
            let found = sessions.find(token.expose(), NOW + 25).await.expect("an answer");
            assert_eq!(found, None);
        }
        let other = sessions.find(mine.expose(), NOW + 25).await.expect("an answer");
        assert_eq!(other.map(|session| session.user), Some(bob));
    })
    .await;
}

#[tokio::test]
async fn a_link_is_good_once_and_for_a_day() {
    on_both("links", async |store| {
        let sessions = Sessions::of(&store);
        let ann = user("user_ann");
        let first = sessions.link(&ann, NOW).await.expect("a link");
        let link = sessions.link(&ann, NOW).await.expect("a link");
        let linked = async |token: &str, now| sessions.linked(token, now).await.expect("an answer");
        assert_eq!(linked(first.expose(), NOW).await, None, "the later one voids it");
        assert_eq!(linked(link.expose(), NOW + LINK_MS - 1).await, Some(ann.clone()));
        assert_eq!(linked(link.expose(), NOW + LINK_MS).await, None);
        let used = sessions.use_link(link.expose(), NOW + LINK_MS).await.expect("an answer");
        assert_eq!(used, None, "too old");
        let both = tokio::join!(
            sessions.use_link(link.expose(), NOW),
            sessions.use_link(link.expose(), NOW)
        );
        let users = [both.0, both.1].map(|used| used.expect("an answer"));
        assert_eq!(users.iter().flatten().collect::<Vec<_>>(), [&ann], "once");
        assert_eq!(linked(link.expose(), NOW).await, None);
    })
    .await;
}

#[tokio::test]
async fn no_step_counts_twice() {
    on_both("steps", async |store| {
        let sessions = Sessions::of(&store);
        let ann = user("user_ann");
        assert_eq!(sessions.last_step(&ann).await.expect("an answer"), None);
        for (step, expect) in [(5, true), (5, false), (4, false), (6, true), (6, false)] {
            let used = sessions.use_step(&ann, step).await.expect("an answer");
            assert_eq!(used, expect, "{step}");
        }
        assert_eq!(sessions.last_step(&ann).await.expect("an answer"), Some(6));
        assert!(sessions.use_step(&user("user_bob"), 1).await.expect("an answer"));
    })
    .await;
}

#[test]
fn the_proof_is_the_sessions_own() {
    let (one, two) = ("a".repeat(43), "b".repeat(43));
    assert!(csrf_fits(&one, &csrf(&one)));
    for wrong in [csrf(&two), one.clone(), String::new(), csrf(&one)[1..].to_owned()] {
        assert!(!csrf_fits(&one, &wrong), "{wrong}");
    }
    assert!(!csrf(&one).contains(&one[..8]));
}

/// An organisation with two teams, and another one with a team.
struct World {
    directory: Directory,
    home: Id,
    research: Id,
    support: Id,
    foreign: Id,
}

impl World {
    fn new() -> Self {
        let mut directory = Directory::default();
        let [home, other] = ["home", "other"].map(|name| {
            let organisation = Organisation::new(name, NOW);
            put(&mut directory, &organisation);
            organisation.id
        });
        let mut team = |organisation: &Id, name: &str| {
            let (id, organisation) = (Id::new(Team::KIND, NOW), organisation.clone());
            let team = Team { id, organisation, name: name.to_owned(), ..Team::default() };
            put(&mut directory, &team);
            team.id
        };
        let (research, support) = (team(&home, "research"), team(&home, "support"));
        let foreign = team(&other, "research");
        Self { directory, home, research, support, foreign }
    }

    fn people(&self) -> People {
        let rule = |group: &str, team: Option<&Id>, role: Option<&str>| GroupRule {
            group: group.to_owned(),
            team: team.cloned(),
            grant: role.map(|role| self.grant(role)),
        };
        People {
            organisation: self.home.clone(),
            domains: vec!["example.org".to_owned()],
            emails_are_verified: false,
            groups_claim: "groups".to_owned(),
            groups: vec![
                rule("lab", Some(&self.research), None),
                rule("desk", Some(&self.support), Some("developer")),
                rule("boss", None, Some("admin")),
                rule("spies", Some(&self.foreign), None),
            ],
        }
    }

    fn grant(&self, role: &str) -> Grant {
        Grant { role: role.to_owned(), scope: Scope::Organisation(self.home.clone()) }
    }

    fn arrive(&self, people: &People, claims: &Value) -> Result<Arrival, Rule> {
        let claims = claims.as_object().expect("an object");
        arrive(&self.directory, "corp", people, claims, NOW).map_err(|denied| denied.rule)
    }
}

fn put<E: Entity>(directory: &mut Directory, entity: &E) {
    let body = serde_json::to_string(entity).expect("plain data");
    let change = Change { kind: E::KIND.to_owned(), id: entity.id().clone(), body: Some(body) };
    directory.apply(&change).expect("a good document");
}

/// Claims of Ann, with some of them replaced.
fn ann(other: &Value) -> Value {
    let mut claims = json!({
        "sub": "1", "email": "Ann@Example.org", "email_verified": true, "name": "Ann\u{7} Lee ",
        "groups": ["lab", "chess"],
    });
    for (name, value) in other.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

#[test]
fn who_gets_an_account() {
    let world = World::new();
    let people = world.people();
    for (other, expect) in [
        (json!({}), Ok(())),
        (json!({ "email_verified": "true" }), Ok(())),
        (json!({ "email_verified": false }), Err(Rule::Permission)),
        (json!({ "email_verified": null }), Err(Rule::Permission)),
        (json!({ "email": "ann@sub.example.org" }), Err(Rule::Permission)),
        (json!({ "email": "ann@example.org.evil.org" }), Err(Rule::Permission)),
        (json!({ "email": "ann@evil.org@example.org" }), Err(Rule::Permission)),
        (json!({ "email": "ann" }), Err(Rule::Permission)),
        (json!({ "email": "@example.org" }), Err(Rule::Permission)),
        (json!({ "email": "an n@example.org" }), Err(Rule::Permission)),
        (json!({ "email": format!("{}@example.org", "a".repeat(300)) }), Err(Rule::Permission)),
        (json!({ "email": null }), Err(Rule::Permission)),
        (json!({ "sub": null }), Err(Rule::Permission)),
        (json!({ "sub": "" }), Err(Rule::Permission)),
    ] {
        let arrived = world.arrive(&people, &ann(&other));
        assert_eq!(arrived.map(|_| ()), expect, "{other}");
    }
    let nobody = People { domains: Vec::new(), ..people.clone() };
    assert!(world.arrive(&nobody, &ann(&json!({}))).is_err());
    let all = People { domains: vec!["*".to_owned()], emails_are_verified: true, ..people };
    let far = json!({ "email": "ann@far.org", "email_verified": null });
    assert!(world.arrive(&all, &ann(&far)).is_ok());
}

#[test]
fn groups_give_and_take_teams_and_roles() {
    let mut world = World::new();
    let people = world.people();
    let Arrival { user, before } = world.arrive(&people, &ann(&json!({}))).expect("welcome");
    assert_eq!(
        (before, user.email.as_str(), user.name.as_str()),
        (None, "ann@example.org", "Ann Lee")
    );
    assert_eq!(
        (user.organisation.clone(), user.teams.clone()),
        (world.home.clone(), vec![world.research.clone()])
    );
    assert_eq!((user.grants.len(), user.external_id.as_deref()), (0, Some("corp:1")));
    // What an administrator gave stays; what a group gave goes with the group.
    let own = world.grant("auditor");
    let kept = User { grants: vec![own.clone()], ..user };
    put(&mut world.directory, &kept);
    let groups = |groups: Value| ann(&json!({ "groups": groups }));
    let check = |world: &mut World, claims: &Value, teams: &[&Id], roles: &[&str]| {
        let Arrival { user, before } = world.arrive(&people, claims).expect("welcome");
        assert_eq!(before.map(|before| before.id.clone()), Some(kept.id.clone()), "{claims}");
        assert_eq!(user.teams.iter().collect::<Vec<_>>(), teams, "{claims}");
        let mut expect = vec![own.clone()];
        expect.extend(roles.iter().map(|role| world.grant(role)));
        assert_eq!(user.grants, expect, "{claims}");
        put(&mut world.directory, &user);
    };
    let (research, support) = (world.research.clone(), world.support.clone());
    check(&mut world, &groups(json!(["lab", "desk"])), &[&research, &support], &["developer"]);
    check(&mut world, &groups(json!(["desk", "boss"])), &[&support], &["developer", "admin"]);
    check(&mut world, &groups(json!("lab")), &[&research], &[]);
    check(&mut world, &groups(json!(["spies"])), &[], &[]);
    check(&mut world, &groups(json!({ "lab": true })), &[], &[]);
    check(&mut world, &groups(json!(["LAB", 1, null])), &[], &[]);
}

#[test]
fn accounts_are_found_again_and_not_taken_over() {
    let mut world = World::new();
    let people = world.people();
    let mut invited = User {
        id: Id::new(User::KIND, NOW),
        organisation: world.home.clone(),
        email: "ann@example.org".to_owned(),
        ..User::default()
    };
    put(&mut world.directory, &invited);
    let arrived = world.arrive(&people, &ann(&json!({}))).expect("welcome");
    assert_eq!(arrived.user.id, invited.id, "an invited address is the account's");
    let unverified = world.arrive(&people, &ann(&json!({ "email_verified": false })));
    assert_eq!(unverified.err(), Some(Rule::Permission), "but not unless it is verified");
    // Somebody else at the provider comes with the same address later.
    invited = arrived.user;
    put(&mut world.directory, &invited);
    let other = world.arrive(&people, &ann(&json!({ "sub": "2" })));
    assert_eq!(other.err(), Some(Rule::Permission));
    assert_eq!(external_id("corp", "1"), "corp:1");
    // The account moves with its owner, whatever the address is now.
    let moved = json!({ "email": "ann.lee@example.org" });
    let arrived = world.arrive(&people, &ann(&moved)).expect("welcome");
    assert_eq!(
        (arrived.user.id, arrived.user.email.as_str()),
        (invited.id.clone(), "ann.lee@example.org")
    );
    let arrived = world.arrive(&people, &ann(&json!({ "email_verified": false })));
    assert_eq!(
        arrived.expect("welcome").user.email,
        "ann@example.org",
        "an unverified one is not kept"
    );
    for (change, rule) in [
        (User { disabled: true, ..invited.clone() }, Rule::DisabledUser),
        (User { service: true, ..invited.clone() }, Rule::Permission),
    ] {
        put(&mut world.directory, &change);
        assert_eq!(world.arrive(&people, &ann(&json!({}))).err(), Some(rule));
    }
}

#[test]
fn addresses_name_one_person_or_nobody() {
    let mut world = World::new();
    let other = world.directory.team(&world.foreign).expect("a team").organisation.clone();
    for (organisation, email, service) in [
        (&world.home, "Ann@example.org", false),
        (&world.home, "bob@example.org", false),
        (&other, "bob@example.org", false),
        (&world.home, "bot@example.org", true),
    ] {
        let user = User {
            id: Id::new(User::KIND, NOW),
            organisation: organisation.clone(),
            email: email.to_owned(),
            service,
            ..User::default()
        };
        put(&mut world.directory, &user);
    }
    for (email, organisation, expect) in [
        ("ann@example.org", None, true),
        (" ANN@example.org ", None, true),
        ("ann@example.org", Some("other"), false),
        ("bob@example.org", None, false),
        ("bob@example.org", Some("home"), true),
        ("bot@example.org", None, false),
        ("", None, false),
    ] {
        let found = by_email(&world.directory, email, organisation);
        assert_eq!(found.is_some(), expect, "{email} {organisation:?}");
    }
}
