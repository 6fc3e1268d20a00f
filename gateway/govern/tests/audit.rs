//! The audit trail: nothing that is altered, dropped, inserted or reordered stays unseen, and what
//! is exported is all of it.

use std::io::BufRead;

use govern::audit::export::{syslog, syslog_within, write_json_line};
use govern::audit::{Anchor, Broken, Chain, Fault, Record, Verifier, day, verify};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// 2026-11-21, midnight.
const DAY: i64 = 1_795_219_200_000;

fn golden() -> Vec<Record> {
    let mut chain = Chain::begin("gateway-1");
    let body = r#"{"model":"demo","label":"für alle"}"#.to_owned();
    vec![
        chain.next(1_795_276_800_000, "request", "org_1", body),
        chain.next(-1, "admin", "", "{}".to_owned()),
    ]
}

fn records(chain: &str, count: i64) -> Vec<Record> {
    let mut chain = Chain::begin(chain);
    let body = |n: i64| format!("{{\"n\":{n}}}");
    (0..count).map(|n| chain.next(DAY + n, "request", "org_1", body(n))).collect()
}

fn check(records: &[Record], anchors: &[Anchor]) -> Result<Vec<Anchor>, (i64, Fault)> {
    let summary = verify(records.iter().cloned(), anchors);
    summary.map(|found| found.heads).map_err(|Broken { number, why, .. }| (number, why))
}

/// Computed by the Python of the module's documentation: auditors have it too, so it never changes.
#[test]
fn hashes_are_those_of_the_documentation() {
    let [first, second] = &golden()[..] else { panic!("two") };
    assert_eq!(first.previous, "0".repeat(64));
    assert_eq!(first.hash, "5976baf18946cfd8c8ffaa5936de0c727dcd12d7755ced3dd8d1d88fcd1d7bde");
    assert_eq!(second.previous, first.hash);
    assert_eq!(second.hash, "1a262e433dfba910949f0c2a5560cf15b5c30aeab6243b0d5c178827a45606af");
}

#[test]
fn a_chain_goes_on_where_it_was() {
    let all = records("a", 5);
    let mut chain = Chain::resume(&all[2]);
    let next = chain.next(DAY + 3, "request", "org_1", "{\"n\":3}".to_owned());
    assert_eq!(next, all[3]);
}

#[test]
fn whole_chains_are_summed_up() {
    let mut all = records("b", 3);
    all.extend(records("a", 2));
    let found = verify(all.iter().cloned(), &[]).expect("whole");
    assert_eq!((found.records, found.first, found.last), (5, Some(DAY), Some(DAY + 2)));
    assert_eq!(found.heads, [Anchor::of(&all[2]), Anchor::of(&all[4])]);
    assert_eq!(found.heads[0].day, "2026-11-21");
    // Heads of today are tomorrow's anchors.
    all.splice(3..3, [Chain::resume(&all[2]).next(DAY, "admin", "", "{}".to_owned())]);
    assert!(check(&all, &found.heads).is_ok());
    assert_eq!(verify(std::iter::empty(), &[]).expect("none").records, 0);
    // Beyond any calendar: no day, and still a record.
    assert_eq!(day(i64::MAX), "");
}

#[test]
fn every_kind_of_trouble_has_its_name() {
    let all = records("a", 4);
    let number = |found| Fault::Number { found };
    let with = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut changed = all.clone();
        change(&mut changed);
        check(&changed, &[]).expect_err("broken")
    };
    assert_eq!(with(&|r| r[1].body.push(' ')), (2, Fault::Hash));
    assert_eq!(with(&|r| r[1].at += 1), (2, Fault::Hash));
    assert_eq!(with(&|r| r[1].hash = r[2].hash.clone()), (2, Fault::Hash));
    assert_eq!(with(&|r| r[1].hash.make_ascii_uppercase()), (2, Fault::Hash));
    // Altered with its hash computed anew: the next record tells.
    let rehashed = |r: &mut Vec<Record>| {
        r[1].body.push(' ');
        r[1].hash = r[1].hash_of_fields();
    };
    assert_eq!(with(&rehashed), (3, Fault::Previous));
    assert_eq!(with(&|r| drop(r.remove(0))), (1, number(2)));
    assert_eq!(with(&|r| drop(r.remove(2))), (3, number(4)));
    assert_eq!(with(&|r| r.swap(1, 2)), (2, number(3)));
    assert_eq!(with(&|r| r.insert(2, r[1].clone())), (3, number(2)));
    // Another chain in the middle, and one that comes twice.
    assert_eq!(with(&|r| drop(r.splice(2..2, records("b", 1)))), (3, Fault::Apart));
    let mut renamed = all.clone();
    renamed[3].chain = "b".to_owned();
    assert_eq!(check(&renamed, &[]), Err((1, number(4))));
    let said = check(&all[1..], &[])
        .map_err(|(number, why)| Broken { chain: "a\n".to_owned(), number, why }.to_string());
    assert_eq!(
        said.expect_err("broken"),
        r#"audit chain "a\n", record 1: it should stand here, and number 2 does"#
    );
}

#[test]
fn anchors_find_what_a_chain_alone_cannot() {
    let all = records("a", 4);
    let missing = || Fault::Missing { day: "2026-11-21".to_owned() };
    let anchor = |at: usize| [Anchor::of(&all[at])];
    // The last ones are gone, or all of them, or all beside another chain.
    assert_eq!(check(&all[..3], &anchor(3)), Err((4, missing())));
    assert_eq!(check(&[], &anchor(3)), Err((4, missing())));
    assert_eq!(check(&records("b", 9), &anchor(3)), Err((4, missing())));
    let mut before_another = all[..3].to_vec();
    before_another.extend(records("b", 9));
    assert_eq!(check(&before_another, &anchor(3)), Err((4, missing())));
    // A chain written anew, whole in itself.
    let mut chain = Chain::begin("a");
    let forged: Vec<_> =
        (0..4).map(|n| chain.next(DAY + n, "request", "org_1", "{}".to_owned())).collect();
    assert!(check(&forged, &[]).is_ok());
    let replaced = Fault::Anchor { day: "2026-11-21".to_owned() };
    assert_eq!(check(&forged, &anchor(1)), Err((2, replaced.clone())));
    // Two that disagree cannot both be met; one with a number that no record has never is.
    let mut wrong = anchor(1)[0].clone();
    wrong.hash = all[2].hash.clone();
    assert_eq!(check(&all, &[anchor(1)[0].clone(), wrong]), Err((2, replaced)));
    let nowhere = Anchor { number: 0, ..anchor(1)[0].clone() };
    assert_eq!(check(&all, &[nowhere]), Err((0, missing())));
    // By hand, perhaps in capitals.
    let by_hand = Anchor { hash: all[3].hash.to_uppercase(), ..anchor(3)[0].clone() };
    assert!(check(&all, &[by_hand]).is_ok());
}

/// A byte of a text, replaced by another so that it stays a text.
fn replace(text: &mut String, at: Index, by: char) -> bool {
    let Some((start, old)) = (!text.is_empty())
        .then(|| text.char_indices().nth(at.index(text.chars().count())))
        .flatten()
    else {
        return false;
    };
    text.replace_range(start..start + old.len_utf8(), by.encode_utf8(&mut [0; 4]));
    old != by
}

fn some_records() -> impl Strategy<Value = Vec<Record>> {
    let one = (any::<i64>(), "[a-z]{0,9}", "[a-z_0-9]{0,9}", ".{0,40}");
    vec(one, 1..12).prop_map(|all| {
        let mut chain = Chain::begin("gateway");
        all.into_iter().map(|(at, kind, whose, body)| chain.next(at, &kind, &whose, body)).collect()
    })
}

proptest! {
    #[test]
    fn any_change_is_found(
        all in some_records(),
        which in any::<Index>(),
        other in any::<Index>(),
        place in any::<Index>(),
        by in any::<char>(),
        bit in 0..64,
        what in 0..11,
    ) {
        let anchors = verify(all.iter().cloned(), &[]).expect("whole").heads;
        prop_assert!(check(&all, &anchors).is_ok());
        let (which, other) = (which.index(all.len()), other.index(all.len()));
        let mut changed = all.clone();
        let record = &mut changed[which];
        let is_changed = match what {
            0 => replace(&mut record.chain, place, by),
            1 => { record.number ^= 1_i64 << bit; true }
            2 => { record.at ^= 1_i64 << bit; true }
            3 => replace(&mut record.kind, place, by),
            4 => replace(&mut record.organisation, place, by),
            5 => replace(&mut record.body, place, by),
            6 => replace(&mut record.previous, place, by),
            7 => replace(&mut record.hash, place, by),
            8 => { changed.remove(which); true }
            9 => { changed.swap(which, other); which != other }
            _ => { changed.insert(other, all[which].clone()); true }
        };
        prop_assert_eq!(check(&changed, &anchors).is_err(), is_changed);
    }

    #[test]
    fn bytes_do_not_slip_between_fields(
        mut record in some_records().prop_map(|mut all| all.remove(0)),
        at in any::<Index>(),
    ) {
        // The end of one field goes to the beginning of the next.
        let hash = record.hash_of_fields();
        let cut = at.index(record.kind.len() + 1);
        let moved = record.kind.split_off(cut);
        record.organisation.insert_str(0, &moved);
        prop_assert_eq!(record.hash_of_fields() == hash, moved.is_empty());
    }

    #[test]
    fn lines_bring_back_every_record(all in some_records()) {
        let mut out = Vec::new();
        for record in &all {
            write_json_line(&mut out, record).expect("memory");
        }
        prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), all.len());
        let mut verifier = Verifier::new(&[Anchor::of(&all[all.len() - 1])]);
        for (line, record) in out.lines().zip(&all) {
            let read: Record = serde_json::from_str(&line.expect("text")).expect("a record");
            prop_assert_eq!(&read, record);
            verifier.push(&read).expect("whole");
        }
        prop_assert_eq!(verifier.finish().expect("whole").records, all.len() as u64);
    }

    #[test]
    fn syslog_brings_back_every_field(all in some_records()) {
        for record in &all {
            let message = syslog(record);
            let (_, rest) = message.split_once(" [audit@32473 ").expect("its fields");
            let (values, body) = values_of(rest);
            let number = record.number.to_string();
            let at = record.at.to_string();
            let Record { chain, kind, organisation, previous, hash, .. } = record;
            let fields = [chain, &number, &at, kind, organisation, previous, hash];
            prop_assert_eq!(values.iter().collect::<Vec<_>>(), fields);
            prop_assert_eq!(body, &record.body);
        }
    }
}

/// The values of one element of structured data, as RFC 5424 (6.3.3) reads them, and the text.
fn values_of(text: &str) -> (Vec<String>, &str) {
    let mut values = Vec::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter == ']' {
            return (values, text[at + 1..].strip_prefix(' ').expect("a space"));
        }
        if letter != '"' {
            continue;
        }
        let mut value = String::new();
        while let Some((_, letter)) = letters.next() {
            match letter {
                '"' => break,
                '\\' => value.push(letters.next().expect("an escaped letter").1),
                _ => value.push(letter),
            }
        }
        values.push(value);
    }
    panic!("the element does not end: {text}");
}

#[test]
fn a_syslog_message_is_written_as_the_standard_says() {
    let [first, second] = &golden()[..] else { panic!("two") };
    let (hash, zeros) = (&first.hash, "0".repeat(64));
    assert_eq!(
        syslog(first),
        format!(
            "<110>1 2026-11-21T16:00:00.000Z gateway-1 hearth - request [audit@32473 \
             chain=\"gateway-1\" number=\"1\" at=\"1795276800000\" kind=\"request\" \
             organisation=\"org_1\" previous=\"{zeros}\" hash=\"{hash}\"] {}",
            first.body
        )
    );
    assert!(syslog(second).starts_with("<110>1 - gateway-1 hearth - admin [audit@32473 "));
    let mut chain = Chain::begin(r#"two words"]\ é"#);
    let odd = chain.next(7, "", &"x".repeat(300), "{}".to_owned());
    let message = syslog(&odd);
    let head = r#"<110>1 1970-01-01T00:00:00.007Z two_words"]\__ hearth - - [audit@32473 "#;
    assert!(message.starts_with(head), "{message}");
    assert!(message.contains(r#" chain="two words\"\]\\ é" "#), "{message}");
    let long = Chain::begin(&"é".repeat(300)).next(7, &"k".repeat(40), "", "{}".to_owned());
    let words: Vec<_> = syslog(&long).split(' ').map(str::len).take(6).collect();
    assert_eq!(words[2], 255);
    assert_eq!(words[5], 32);
}

/// What is cut for a datagram says how much is missing, and keeps everything else.
#[test]
fn a_message_is_cut_within_its_body_only() {
    let record = &golden()[0];
    let (whole, length) = (syslog(record), syslog(record).len());
    assert_eq!(syslog_within(record, length), whole);
    let head = whole.len() - record.body.len() - 2;
    for bytes_max in head + 40..length {
        let cut = syslog_within(record, bytes_max);
        assert!(cut.len() <= bytes_max, "{bytes_max}: {cut}");
        assert!(cut.starts_with(&whole[..head - 1]), "{cut}");
        let (fields, text) = cut.rsplit_once("\"] ").expect("structured data");
        let missing = fields.rsplit_once(" cut=\"").expect("it says so").1;
        let missing: usize = missing.parse().expect("a number");
        assert_eq!(
            (text.len() + missing, record.body.starts_with(text)),
            (record.body.len(), true)
        );
    }
    // Without room for anything of the body, the fields are still there.
    let least = syslog_within(record, 0);
    assert!(least.ends_with(&format!(" cut=\"{}\"] ", record.body.len())), "{least}");
}
