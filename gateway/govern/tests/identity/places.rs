//! Places of the tree: what lies under what, what a grant allows where, and that the indexes find
//! what a walk over all documents finds.

use std::collections::{BTreeMap, BTreeSet};

use govern::directory::{Change, Directory, DirectoryError};
use govern::entity::{
    Budget, Entity, Grant, Key, Organisation, PriceSheet, Project, Role, Team, User,
};
use govern::identity::key::authenticate;
use govern::policy::pattern;
use govern::role::{BUILT_IN, Permission, no_wider};
use govern::{Id, Scope};
use proptest::collection::vec;
use proptest::prelude::*;

use super::tree::{
    NOW, delete, grant, id, key, organisation, project, put, scope, team, two, user, with_key,
};

#[test]
fn wrong_documents_change_nothing() {
    let mut directory = two();
    let good = put(&team("a1", "a"));
    let body = |text: &str| Change { body: Some(text.to_owned()), ..good.clone() };
    let mut check = |change: Change, expect: &str| {
        let error = directory.apply(&change).expect_err("a wrong document").to_string();
        assert!(error.starts_with(expect), "{error}");
        assert_eq!(directory.team(&id("a1")).map(|team| &*team.name), Some("a1"));
    };
    check(body(""), "a1 cannot be read: ");
    check(body("{}"), "a1 cannot be read: missing field `id`");
    check(body("null"), "a1 cannot be read: ");
    check(
        body(r#"{"id":"a1","organisation":"a","name":"n","created_at":0,"x":1}"#),
        "a1 cannot be read: unknown field `x`",
    );
    check(Change { id: id("a2"), ..good.clone() }, "a2 says that it is a1");
    check(Change { kind: "teams".to_owned(), ..good.clone() }, "a1 is a `teams`, which ");
    let unknown = Change { kind: String::new(), body: None, ..good.clone() };
    assert!(matches!(directory.apply(&unknown), Err(DirectoryError::UnknownKind { .. })));
    directory.apply(&delete::<Team>("nowhere")).expect("nothing to delete is no error");
}

#[test]
fn permissions_hold_at_the_grant_and_below() {
    let (directory, ..) = with_key(|_| {});
    let places = [
        "everything",
        "organisation:a",
        "team:a1",
        "project:a1p",
        "key:ci",
        "user:ann",
        "organisation:b",
        "team:a2",
        "project:a2p",
        "team:b1",
        "project:b1p",
        "user:bob",
        "team:nowhere",
    ];
    // Which of these places a grant reaches.
    let reach: [(&str, &[usize]); 6] = [
        ("everything", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("organisation:a", &[1, 2, 3, 4, 5, 7, 8]),
        ("team:a1", &[2, 3, 4]),
        ("project:a1p", &[3, 4]),
        ("key:ci", &[4]),
        ("user:ann", &[5]),
    ];
    for role in BUILT_IN {
        for (level, reached) in reach {
            let grants = [grant(role.name, level)];
            for (at, place) in places.iter().enumerate() {
                let found = directory.permissions(&grants, &scope(place));
                let all: BTreeSet<Permission> = role.permissions.iter().copied().collect();
                let expect = if reached.contains(&at) { all } else { BTreeSet::new() };
                assert_eq!(found, expect, "{} at {level}, asked at {place}", role.name);
            }
        }
    }
    let both = [grant("monitor", "organisation:a"), grant("auditor", "team:a1")];
    let found = directory.permissions(&both, &scope("project:a1p"));
    assert!(found.contains(&Permission::MetricsRead) && found.contains(&Permission::AuditRead));
}

#[test]
fn own_roles_hold_in_their_organisation_and_hide_none() {
    let mut directory = two();
    let count = |directory: &Directory, role: &str, at: &str| {
        directory.permissions(&[grant(role, at)], &scope(at)).len()
    };
    assert_eq!(count(&directory, "keeper", "team:a1"), 2);
    assert_eq!(count(&directory, "keeper", "team:b1"), 0, "the other organisation's role");
    assert_eq!(count(&directory, "keeper", "everything"), 0);
    assert_eq!(count(&directory, "Owner", "team:a1"), 0);
    assert_eq!(count(&directory, "", "team:a1"), 0);
    let fake = Role {
        id: id("fake"),
        organisation: id("a"),
        name: "member".to_owned(),
        permissions: Permission::ALL.to_vec(),
        created_at: NOW,
    };
    directory.apply(&put(&fake)).expect("a good role");
    assert_eq!(count(&directory, "member", "team:a1"), 0);
    directory.apply(&delete::<Role>("keeper")).expect("a good change");
    assert_eq!(count(&directory, "keeper", "team:a1"), 0);
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let directory = two();
    let check = |mine: &[(&str, &str)], given: (&str, &str), expect: Result<(), &str>| {
        let mine: Vec<Grant> = mine.iter().map(|(role, at)| grant(role, at)).collect();
        let answer = no_wider(&directory, &mine, &[grant(given.0, given.1)]);
        assert_eq!(answer, expect.map_err(ToOwned::to_owned), "{mine:?} gives {given:?}");
    };
    let owner = [("owner", "organisation:a")];
    let foreign = |at: &str| format!("{at} is not yours to give anything in");
    for role in BUILT_IN {
        for at in ["organisation:a", "team:a1", "project:a2p", "user:ann"] {
            check(&owner, (role.name, at), Ok(()));
        }
        for at in ["everything", "organisation:b", "team:b1", "user:bob", "team:nowhere"] {
            check(&owner, (role.name, at), Err(&foreign(at)));
        }
    }
    check(&owner, ("keeper", "team:a1"), Ok(()));
    check(&owner, ("emperor", "team:a1"), Err("there is no role `emperor`"));
    let keeper = [("keeper", "team:a1")];
    check(&keeper, ("keeper", "project:a1p"), Ok(()));
    check(&keeper, ("keeper", "team:a2"), Err(&foreign("team:a2")));
    check(&keeper, ("member", "team:a1"), Ok(()));
    let wider = "`developer` allows tree.read in team:a1, which you may not do";
    check(&keeper, ("developer", "team:a1"), Err(wider));
    let wider = "`admin` allows tree.read in team:a1, which you may not do";
    check(&[("member", "organisation:a")], ("admin", "team:a1"), Err(wider));
    check(&[], ("member", "team:a1"), Err(&foreign("team:a1")));
    // Two narrow roles together may give what neither may.
    let two_roles = [("keeper", "team:a1"), ("auditor", "organisation:a")];
    let wider = "`developer` allows keys.write in team:a2, which you may not do";
    check(&two_roles, ("developer", "team:a1"), Ok(()));
    check(&two_roles, ("developer", "team:a2"), Err(wider));

    let mine = [grant("owner", "team:a1")];
    let given = [grant("member", "team:a1"), grant("owner", "team:b1")];
    assert!(no_wider(&directory, &mine, &given).is_err(), "all of them are looked at");
    assert_eq!(no_wider(&directory, &mine, &[]), Ok(()));
}

/// A change by numbers, small enough that names meet and links break.
type Draw = (u8, u8, u8, u8, bool);

/// Documents by kind and name, as a database has them.
type Rows = BTreeMap<(&'static str, Id), Row>;

/// One of them, with the names that it links to.
#[derive(Clone)]
struct Row {
    change: Change,
    above: Option<Scope>,
    /// What a key says of its organisation beside its project.
    organisation: Option<Id>,
    shown: String,
}

/// The document that these numbers mean.
fn row((kind, name, above, other, _): Draw) -> (&'static str, Id, Row) {
    let organisation_of = |at: u8| format!("org_{}", at % 3);
    let made = |change: Change, above: Option<String>| {
        let above = above.map(|text| scope(&text));
        Row { change, above, organisation: None, shown: String::new() }
    };
    let in_organisation = Some(format!("organisation:{}", organisation_of(above)));
    let model = ["*", "llama-*", "qwen"][usize::from(other % 3)].to_owned();
    match kind % 7 {
        0 => {
            let it = organisation(&organisation_of(name));
            (Organisation::KIND, it.id.clone(), made(put(&it), Some("everything".to_owned())))
        }
        1 => {
            let it = team(&format!("team_{}", name % 5), &organisation_of(above));
            (Team::KIND, it.id.clone(), made(put(&it), in_organisation))
        }
        2 => {
            let under = format!("team_{}", above % 6);
            let it = project(&format!("proj_{}", name % 7), &under);
            (Project::KIND, it.id.clone(), made(put(&it), Some(format!("team:{under}"))))
        }
        3 => {
            let it = user(&format!("user_{}", name % 4), &organisation_of(above));
            (User::KIND, it.id.clone(), made(put(&it), in_organisation))
        }
        4 => {
            let under = (other % 4 > 0).then(|| format!("proj_{}", above % 8));
            let own = organisation_of(other / 4);
            let (it, shown) = key(&format!("key_{}", name % 9), &own, under.as_deref());
            let above = under.map_or(format!("organisation:{own}"), |it| format!("project:{it}"));
            let row = Row { organisation: Some(id(&own)), shown, ..made(put(&it), Some(above)) };
            (Key::KIND, it.id, row)
        }
        5 => {
            let places =
                ["everything", "organisation:org_0", "team:team_1", "project:proj_2", "key:key_3"];
            let it = Budget {
                id: id(&format!("bud_{}", name % 20)),
                organisation: id(&organisation_of(above)),
                name: name.to_string(),
                scope: scope(places[usize::from(above % 5)]),
                model: (other > 99).then_some(model),
                limits: Vec::new(),
                time_zone: None,
                created_at: NOW,
            };
            (Budget::KIND, it.id.clone(), made(put(&it), None))
        }
        _ => {
            let mut it = PriceSheet::new("sheet", Vec::new(), NOW + i64::from(above % 16));
            it.id = id(&format!("price_{}", name % 12));
            (PriceSheet::KIND, it.id.clone(), made(put(&it), None))
        }
    }
}

/// The same numbers, applied to a directory and to plain rows.
fn both(draws: &[Draw]) -> (Directory, Rows) {
    let (mut directory, mut rows) = (Directory::default(), Rows::new());
    for draw in draws {
        let (kind, name, row) = row(*draw);
        if draw.4 {
            directory.apply(&row.change).expect("a good document");
            rows.insert((kind, name), row);
        } else {
            let gone = Change { body: None, ..row.change };
            directory.apply(&gone).expect("a good change");
            rows.remove(&(kind, name));
        }
    }
    (directory, rows)
}

fn row_of<'a>(rows: &'a Rows, place: &Scope) -> Option<&'a Row> {
    let (kind, name) = match place {
        Scope::Everything => return None,
        Scope::Organisation(name) => (Organisation::KIND, name),
        Scope::Team(name) => (Team::KIND, name),
        Scope::Project(name) => (Project::KIND, name),
        Scope::User(name) => (User::KIND, name),
        Scope::Key(name) => (Key::KIND, name),
    };
    rows.get(&(kind, name.clone()))
}

/// From a place upward, by nothing but links; `None` where one of them leads nowhere.
fn walk(rows: &Rows, place: &Scope) -> Option<Vec<Scope>> {
    let mut path = vec![place.clone()];
    let mut at = place.clone();
    while at != Scope::Everything {
        at = row_of(rows, &at)?.above.clone()?;
        path.push(at.clone());
    }
    path.reverse();
    let own = row_of(rows, place).and_then(|row| row.organisation.clone());
    let own = own.map(Scope::Organisation);
    own.is_none_or(|own| path.contains(&own)).then_some(path)
}

/// Every place that a name may mean, those that are not there too.
fn places() -> Vec<Scope> {
    let kinds = [("organisation:org", 4), ("team:team", 6), ("project:proj", 8)];
    let more = [("user:user", 5), ("key:key", 10)];
    let names = kinds.into_iter().chain(more);
    let named = names.flat_map(|(kind, to)| (0..to).map(move |at| scope(&format!("{kind}_{at}"))));
    std::iter::once(Scope::Everything).chain(named).collect()
}

fn documents<T: Entity>(rows: &Rows) -> Vec<T> {
    let of_kind = rows.iter().filter(|((kind, _), _)| *kind == T::KIND);
    let body = |row: &Row| row.change.body.clone().expect("rows have bodies");
    of_kind.map(|(_, row)| serde_json::from_str(&body(row)).expect("plain data")).collect()
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    // Three of four changes put something in: trees grow before they break.
    let alive = prop::bool::weighted(0.75);
    vec((any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), alive), 0..300)
}

fn places_are_where_their_links_say(draws: &[Draw]) -> Result<(), TestCaseError> {
    let (directory, rows) = both(draws);
    for below in places() {
        let path = walk(&rows, &below);
        prop_assert_eq!(directory.path(&below), path.clone());
        let organisation = path.as_ref().and_then(|path| path.get(1));
        let found = directory.organisation_of(&below).cloned().map(Scope::Organisation);
        prop_assert_eq!(found.as_ref(), organisation);
        for above in places() {
            let naive = path.as_ref().is_some_and(|path| path.contains(&above));
            prop_assert_eq!(directory.covers(&above, &below), naive, "{} {}", above, below);
        }
    }
    Ok(())
}

fn a_key_stays_in_its_team(draws: &[Draw]) -> Result<(), TestCaseError> {
    let (directory, rows) = both(draws);
    for key in documents::<Key>(&rows) {
        let place = Scope::Key(key.id.clone());
        let shown = &rows[&(Key::KIND, key.id.clone())].shown;
        let answer = authenticate(&directory, Some(shown), None, NOW);
        let Some(path) = walk(&rows, &place) else {
            prop_assert!(answer.is_err(), "{} leads nowhere", place);
            continue;
        };
        let principal = answer.map_err(|denied| TestCaseError::fail(denied.message))?;
        prop_assert_eq!(principal.scopes(), path.clone());
        // An owner of some place on its way sees what lies under that place, and nothing else.
        for owned in path {
            let grants = [Grant { role: "owner".to_owned(), scope: owned.clone() }];
            for other in places() {
                let mine = walk(&rows, &other).is_some_and(|path| path.contains(&owned));
                let held = directory.permissions(&grants, &other);
                prop_assert_eq!(!held.is_empty(), mine, "{} at {}", owned, other);
            }
        }
    }
    Ok(())
}

fn indexes_find_what_is_there(draws: &[Draw], model: &str) -> Result<(), TestCaseError> {
    let (directory, rows) = both(draws);
    let names = |kind| rows.keys().filter(move |key| key.0 == kind).map(|key| key.1.clone());
    prop_assert!(directory.keys().map(|it| it.id.clone()).eq(names(Key::KIND)));
    prop_assert!(directory.teams().map(|it| it.id.clone()).eq(names(Team::KIND)));
    prop_assert!(directory.budgets().map(|it| it.id.clone()).eq(names(Budget::KIND)));
    for now in NOW - 1..NOW + 17 {
        let begun = documents::<PriceSheet>(&rows)
            .into_iter()
            .filter(|sheet| sheet.effective_from <= now)
            .max_by_key(|sheet| (sheet.effective_from, sheet.id.clone()));
        let found = directory.prices_at(now);
        prop_assert_eq!(found.map(|it| it.id.clone()), begun.map(|it| it.id));
    }
    for key in directory.keys() {
        prop_assert_eq!(directory.key_by_prefix(&key.prefix).map(|it| &it.id), Some(&key.id));
        let Some(principal) = directory.principal(key) else { continue };
        let mut expect: Vec<Id> = documents::<Budget>(&rows)
            .into_iter()
            .filter(|budget| principal.scopes().contains(&budget.scope))
            .filter(|it| it.model.as_ref().is_none_or(|is| pattern::matches(is, model)))
            .map(|budget| budget.id)
            .collect();
        let found = directory.budgets_of(&principal, model);
        let mut found: Vec<Id> = found.iter().map(|budget| budget.id.clone()).collect();
        found.sort();
        expect.sort();
        prop_assert_eq!(found, expect);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_trees(draws in draws(), model in "(llama-|qwen)[a-z]{0,1}") {
        places_are_where_their_links_say(&draws)?;
        a_key_stays_in_its_team(&draws)?;
        indexes_find_what_is_there(&draws, &model)?;
    }
}
