//! Answers with two choices, in turns: both arrive, each with its own number and end, and what was
//! used is said once.

use wire::{Answer, Broken};

use crate::answers::missing;
use crate::golden::Golden;
use crate::side::{From, In, well_nested};
use crate::told::two;
use crate::via::{Heard, Via, clients, whole};

/// What does not arrive of two choices, whole and streamed; `None`: this pair has none.
pub(crate) fn arrives(from: From, to: In) -> Option<[Vec<&'static str>; 2]> {
    let told = two(from).filter(|_| to.asks_for_several())?;
    let all = |answer: &Answer| -> Vec<Heard> {
        answer.choices.iter().map(|choice| Heard::of_choice(answer, choice)).collect()
    };
    let lost = |sent: &[Heard], got: &[Heard]| -> Vec<&'static str> {
        assert_eq!(sent.len(), got.len(), "{from:?} {to:?}");
        let mut names: Vec<_> = sent.iter().zip(got).flat_map(|(a, b)| missing(a, b)).collect();
        names.dedup();
        names
    };
    let (answer, body) = whole(from, to, &told.whole);
    let sent = all(&answer);
    assert_eq!(sent.len(), 2, "{from:?}");
    let got = all(&to.read(&body).expect("it can be read"));
    let (heard, bytes) = streamed(from, to, &told.stream);
    assert!(lost(&sent, &heard).is_empty(), "{from:?} {sent:?} {heard:?}");
    Some([lost(&sent, &got), lost(&sent, &clients(to, &bytes, 2))])
}

fn streamed(from: From, to: In, bytes: &[u8]) -> (Vec<Heard>, Vec<u8>) {
    let mut via = Via::of(from, to, 2);
    via.push(bytes).expect("it can be read");
    let (ended, first, mut heard, out) = via.end_all();
    ended.expect("it is whole");
    heard.insert(0, first);
    (heard, out)
}

fn pairs() -> impl Iterator<Item = (From, In)> {
    let pairs = From::ALL.into_iter().flat_map(|from| In::ALL.map(|to| (from, to)));
    pairs.filter(|(from, to)| two(*from).is_some() && to.asks_for_several())
}

#[test]
fn both_arrive() {
    assert_eq!(pairs().count(), 6);
    for (from, to) in pairs() {
        let [whole, stream] = arrives(from, to).expect("they have two");
        // A text has no place for them.
        let without: &[&str] = match to {
            In::Completions => &["the words of thoughts", "calls", "why it ended"],
            _ => &[],
        };
        assert_eq!((&*whole, &*stream), (without, without), "{from:?} {to:?}");
    }
}

#[test]
fn two_choices_as_every_caller_reads_them() {
    let mut golden = Golden::default();
    for (from, to) in pairs() {
        let told = two(from).expect("it has two");
        let names = format!("{} to {}", from.name(), to.name());
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("UTF-8");
            // Line ends that differ are seen.
            text.replace("\r\n", "\\r\n")
        };
        golden.add(format!("{names}, whole"), text(whole(from, to, &told.whole).1));
        golden.add(format!("{names}, stream"), text(streamed(from, to, &told.stream).1));
    }
    golden.check("answers_of_two.txt", &[]);
}

/// Wherever the provider's stream is cut, the caller's is sound, and is whole only with both.
#[test]
fn well_nested_at_every_byte() {
    for (from, to) in pairs() {
        let told = two(from).expect("it has two");
        for cut in 0..=told.stream.len() {
            let mut via = Via::of(from, to, 2);
            via.push(&told.stream[..cut]).expect("sound");
            assert!(!well_nested(to, &via.out), "{from:?} {to:?} at {cut}");
            let (ended, first, others, out) = via.end_all();
            let whole = first.finish.is_some() && others[0].finish.is_some();
            assert_eq!(ended.is_ok(), whole, "{from:?} {to:?} at {cut}");
            assert_eq!(well_nested(to, &out), whole, "{from:?} {to:?} at {cut}");
        }
    }
}

/// What was not asked for is not handed out.
#[test]
fn more_than_was_asked_for_is_left_out() -> Result<(), Broken> {
    for (from, to) in pairs() {
        let told = two(from).expect("it has two");
        let (mut frames, mut reader, mut writer) = (from.frames(), from.reader(), to.writer(1));
        let mut out = Vec::new();
        frames.push(&told.stream, &mut |name, data| {
            reader.event(name, data, &mut |said| {
                if let wire::Said::Piece(piece) = said {
                    writer.piece(&mut out, &piece);
                }
            })
        })?;
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains("\"index\":1") && !text.contains("look"), "{text}");
    }
    Ok(())
}
