//! Keys, and people who signed in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use govern::directory::{Directory, DirectoryError};
use govern::entity::{Key, Organisation, Project, Team, User};
use govern::identity::key::{Minted, authenticate, parse, rotate};
use govern::identity::principal::{Principal, signed_in};
use govern::policy::Policy;
use govern::{Denied, Rule};

use super::tree::{NOW, delete, grant, id, key, put, scope, two, user, with_key};

/// The rule that refuses, or `None`.
fn rule(answer: &Result<Principal, Denied>) -> Option<Rule> {
    answer.as_ref().err().map(|denied| denied.rule)
}

#[test]
fn a_key_is_found_with_all_that_it_belongs_to() {
    let (directory, _, shown) = with_key(|key| {
        key.user = Some(id("ann"));
        key.grants = vec![grant("monitor", "organisation:a")];
    });
    let principal = authenticate(&directory, Some(&shown), None, NOW).expect("let in");
    let names: Vec<String> = principal.layers().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["organisation a", "team a1", "project a1p", "user ann", "key ci"]);
    let scopes: Vec<String> = principal.scopes().iter().map(ToString::to_string).collect();
    let expect = ["everything", "organisation:a", "team:a1", "project:a1p", "user:ann", "key:ci"];
    assert_eq!(scopes, expect);
    assert_eq!(principal.grants, [grant("monitor", "organisation:a")]);
}

#[test]
fn only_the_whole_key_is_let_in() {
    let (directory, key, shown) = with_key(|_| {});
    assert_eq!(rule(&authenticate(&directory, Some(&shown), None, NOW)), None);
    let prefix = &key.prefix;
    let mut wrong = vec![
        String::new(),
        "hk-".to_owned(),
        prefix.clone(),
        format!("{prefix}-"),
        format!("{prefix}-{}", "0".repeat(32)),
        Minted::new().shown,
        shown.to_uppercase(),
        format!(" {shown}"),
        format!("{shown} "),
        format!("{shown}\n"),
        format!("{shown}\0"),
        format!("{shown}0"),
        format!("Bearer {shown}"),
        shown.replacen("hk-", "sk-", 1),
        shown.replace('-', "_"),
        key.hash.clone(),
        format!("{prefix}-{}", &key.hash[..32]),
        format!("{prefix}-' OR '1'='1"),
        "é".repeat(24),
        format!("hk-{}", "é".repeat(30)),
        "x".repeat(1 << 20),
    ];
    for at in 0..shown.len() {
        wrong.push(shown[..at].to_owned());
        let mut letters = shown.clone().into_bytes();
        letters[at] = if letters[at] == b'7' { b'8' } else { b'7' };
        wrong.push(String::from_utf8(letters).expect("ASCII"));
        let mut upper = shown.clone().into_bytes();
        upper[at] = upper[at].to_ascii_uppercase();
        wrong.push(String::from_utf8(upper).expect("ASCII"));
    }
    let mut sentences = BTreeSet::new();
    for text in wrong.iter().filter(|text| **text != shown) {
        let answer = authenticate(&directory, Some(text), None, NOW);
        assert_eq!(rule(&answer), Some(Rule::UnknownKey), "{text}");
        sentences.extend(answer.err().map(|denied| denied.message));
    }
    assert_eq!(sentences.len(), 1, "the same for all of them: {sentences:?}");
    assert_eq!(rule(&authenticate(&directory, None, None, NOW)), Some(Rule::UnknownKey));
    assert_eq!(parse(&shown), Some(prefix.as_str()));
}

#[test]
fn a_key_without_its_hash_lets_nobody_in() {
    for hash in ["", "-", &"-".repeat(64)] {
        let (directory, _, shown) = with_key(|key| key.hash = hash.to_owned());
        let answer = authenticate(&directory, Some(&shown), None, NOW);
        assert_eq!(rule(&answer), Some(Rule::UnknownKey), "{hash:?}");
    }
}

#[test]
fn times_are_kept_to_the_millisecond() {
    let check = |revoked_at, expires_at, expect| {
        let (directory, _, shown) = with_key(|key| {
            (key.revoked_at, key.expires_at) = (revoked_at, expires_at);
        });
        let answer = authenticate(&directory, Some(&shown), None, NOW);
        assert_eq!(rule(&answer), expect, "{revoked_at:?} {expires_at:?}");
    };
    check(None, None, None);
    check(Some(NOW + 1), None, None);
    check(Some(NOW), None, Some(Rule::RevokedKey));
    check(Some(NOW - 1), None, Some(Rule::RevokedKey));
    check(None, Some(NOW + 1), None);
    check(None, Some(NOW), Some(Rule::ExpiredKey));
    check(None, Some(i64::MIN), Some(Rule::ExpiredKey));
    check(Some(NOW), Some(NOW), Some(Rule::RevokedKey));
    check(Some(i64::MAX), Some(i64::MAX), None);
}

#[test]
fn what_a_key_belongs_to_must_be_there() {
    let check = |change: govern::directory::Change, expect| {
        let (mut directory, _, shown) = with_key(|key| key.user = Some(id("ann")));
        directory.apply(&change).expect("a good change");
        let answer = authenticate(&directory, Some(&shown), None, NOW);
        assert_eq!(rule(&answer), Some(expect), "{change:?}");
    };
    check(put(&User { disabled: true, ..user("ann", "a") }), Rule::DisabledUser);
    check(put(&user("ann", "b")), Rule::RevokedKey);
    check(delete::<User>("ann"), Rule::RevokedKey);
    check(delete::<Project>("a1p"), Rule::RevokedKey);
    check(delete::<Team>("a1"), Rule::RevokedKey);
    check(delete::<Organisation>("a"), Rule::RevokedKey);
    check(delete::<Key>("ci"), Rule::UnknownKey);

    let (directory, _, shown) = with_key(|key| key.project = Some(id("b1p")));
    let answer = authenticate(&directory, Some(&shown), None, NOW);
    assert_eq!(rule(&answer), Some(Rule::RevokedKey), "another organisation's project");
    let (directory, _, shown) = with_key(|key| key.project = None);
    let principal = authenticate(&directory, Some(&shown), None, NOW).expect("let in");
    assert!(principal.team.is_none() && principal.project.is_none());
}

#[test]
fn the_door_is_asked_last() {
    let (directory, _, shown) = with_key(|key| {
        let networks = vec![serde_json::from_str("\"10.0.0.0/8\"").expect("a network")];
        key.policy = Policy { networks, ..Policy::default() };
    });
    let from = |source: Option<&str>, shown: &str| {
        let source = source.map(|text| text.parse::<IpAddr>().expect("an address"));
        rule(&authenticate(&directory, Some(shown), source, NOW))
    };
    assert_eq!(from(Some("10.1.2.3"), &shown), None);
    assert_eq!(from(Some("192.0.2.1"), &shown), Some(Rule::Network));
    assert_eq!(from(None, &shown), Some(Rule::Network));
    assert_eq!(from(Some("192.0.2.1"), &shown[..47]), Some(Rule::UnknownKey));
}

#[test]
fn rotation_overlaps_and_then_ends() {
    const HOUR: i64 = 3_600_000;
    let (mut directory, key, shown) = with_key(|key| {
        key.expires_at = Some(NOW + 9 * HOUR);
        key.grants = vec![grant("monitor", "team:a1")];
    });
    let (old, new, minted) = rotate(&key, HOUR, NOW).expect("it is alive");
    assert_eq!(old, Key { revoked_at: Some(NOW + HOUR), ..(*key).clone() });
    assert_eq!(new.replaces.as_ref(), Some(&key.id));
    assert_eq!((&new.grants, new.expires_at), (&key.grants, key.expires_at));
    assert_ne!((&new.id, &new.prefix, &new.hash), (&key.id, &key.prefix, &key.hash));
    for changed in [&old, &new] {
        directory.apply(&put(changed)).expect("a good key");
    }
    let at = |shown: &str, now| rule(&authenticate(&directory, Some(shown), None, now));
    assert_eq!((at(&shown, NOW), at(&minted.shown, NOW)), (None, None));
    assert_eq!(at(&shown, NOW + HOUR - 1), None);
    assert_eq!(at(&shown, NOW + HOUR), Some(Rule::RevokedKey));
    assert_eq!(at(&minted.shown, NOW + HOUR), None);

    let (again, heir, _) = rotate(&old, 5 * HOUR, NOW).expect("it is alive");
    assert_eq!(again.revoked_at, Some(NOW + HOUR), "no rotation puts a revocation off");
    assert_eq!(heir.revoked_at, None);
    for (overlap, end) in [(0, NOW), (-1, NOW), (i64::MIN, NOW), (i64::MAX, i64::MAX)] {
        assert_eq!(rotate(&key, overlap, NOW).expect("alive").0.revoked_at, Some(end));
    }
    let dead = rotate(&old, HOUR, NOW + HOUR).err().map(|denied| denied.rule);
    assert_eq!(dead, Some(Rule::RevokedKey), "what is dead has no heir");
}

#[test]
fn secrets_are_not_shown() {
    let minted = Minted::new();
    let secret = minted.shown.rsplit('-').next().expect("a secret");
    let text = format!("{minted:?}");
    assert!(text.contains(&minted.prefix), "{text}");
    assert!(!text.contains(secret) && !text.contains(&minted.hash), "{text}");
    let keys: BTreeSet<String> = (0..1000).map(|_| Minted::new().shown).collect();
    assert_eq!(keys.len(), 1000);
    assert!(keys.iter().all(|key| key.len() == 48 && parse(key) == Some(&key[..15])));
}

#[test]
fn who_signed_in_acts_with_their_own_grants() {
    let mut directory = two();
    let ann = User { grants: vec![grant("admin", "organisation:a")], ..user("ann", "a") };
    directory.apply(&put(&ann)).expect("a good user");
    let principal = signed_in(&directory, &ann.id, None, NOW).expect("let in");
    assert_eq!(principal.grants, ann.grants);
    assert_eq!(
        principal.scopes(),
        [scope("everything"), scope("organisation:a"), scope("user:ann")]
    );
    let (mut own, shown) = key("own", "a", Some("a1p"));
    own.user = Some(ann.id.clone());
    directory.apply(&put(&own)).expect("a good key");
    let by_key = authenticate(&directory, Some(&shown), None, NOW).expect("let in");
    assert!(by_key.grants.is_empty(), "a key has nothing of its user's");

    let check = |user: User, expect| {
        let mut directory = two();
        directory.apply(&put(&user)).expect("a good user");
        assert_eq!(rule(&signed_in(&directory, &user.id, None, NOW)), Some(expect));
    };
    check(User { disabled: true, ..ann.clone() }, Rule::DisabledUser);
    check(User { service: true, ..ann.clone() }, Rule::Permission);
    check(User { organisation: id("gone"), ..ann }, Rule::DisabledUser);
    assert_eq!(rule(&signed_in(&directory, &id("nobody"), None, NOW)), Some(Rule::DisabledUser));
}

#[test]
fn two_keys_of_one_prefix_are_refused() {
    let (mut directory, first, shown) = with_key(|_| {});
    let (mut second, _) = key("second", "b", None);
    second.prefix.clone_from(&first.prefix);
    let error = directory.apply(&put(&second)).expect_err("the prefix is taken");
    assert!(matches!(&error, DirectoryError::PrefixTaken { id, .. } if *id == second.id));
    assert!(directory.key(&second.id).is_none());
    assert_eq!(rule(&authenticate(&directory, Some(&shown), None, NOW)), None);
    directory.apply(&delete::<Key>("ci")).expect("known or not");
    directory.apply(&put(&second)).expect("it is free now");
}

/// Most keys of a deployment that issue 6 names.
const KEYS: usize = 10_000;

#[test]
fn ten_thousand_keys_cost_what_one_costs() {
    let mut directory = Directory::default();
    let shown: Vec<String> = {
        let base = two();
        let all = base.organisations().map(|it| put(&**it));
        let all = all.chain(base.teams().map(|it| put(&**it)));
        let all: Vec<_> = all.chain(base.projects().map(|it| put(&**it))).collect();
        all.iter().for_each(|change| directory.apply(change).expect("a good document"));
        let mut add = |at: usize| {
            let (key, shown) = key(&format!("key_{at:05}"), "a", Some("a1p"));
            directory.apply(&put(&key)).expect("a good key");
            shown
        };
        (0..KEYS).map(&mut add).collect()
    };
    let begin = Instant::now();
    for shown in &shown {
        assert_eq!(rule(&authenticate(&directory, Some(shown), None, NOW)), None);
    }
    let mean = begin.elapsed() / u32::try_from(KEYS).expect("a small number");
    println!("authenticate: {mean:?} on average among {KEYS} keys");
    assert!(mean.as_micros() < 1000, "{mean:?}");
}
