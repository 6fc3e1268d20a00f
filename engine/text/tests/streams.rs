//! Streamed text equals whole text, whatever the tokens and wherever the cuts.

mod common;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use common::{data, demo, folder};
use proptest::prelude::*;
use text::{StopStrings, TextFiles, TextModel};

/// One model for each way of decoding, the demo model, and the older forms of folders.
static MODELS: LazyLock<Vec<Arc<TextModel>>> = LazyLock::new(|| {
    let names = ["byte_level", "llama2", "metaspace", "unigram", "wordpiece", "wordpiece_cleanup"];
    let mut models: Vec<_> = names.map(load).into_iter().map(Arc::new).collect();
    models.push(Arc::new(demo()));
    let folders = ["bert", "spm_unigram", "spm_unigram_bytes", "xlm_roberta", "llama", "qwen2"];
    models.extend(folders.map(|name| Arc::new(folder(name))));
    models
});

fn load(name: &str) -> TextModel {
    let tokenizer_json = data(&format!("tokenizers/{name}.json"));
    let files = TextFiles {
        tokenizer_json: &tokenizer_json,
        tokenizer_config: Some(br#"{"clean_up_tokenization_spaces": true}"#),
        ..TextFiles::default()
    };
    TextModel::from_bytes(files).unwrap()
}

/// What pushing `ids` behind `prompt` emits, without the flush and by the flush.
fn stream(model: &Arc<TextModel>, prompt: &[u32], ids: &[u32], skip: bool) -> (String, String) {
    let mut detokenizer = model.detokenizer(prompt, skip);
    let pushed = ids.iter().map(|&id| detokenizer.push(id).to_owned()).collect();
    (pushed, detokenizer.flush().to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn detokenizer_equals_decode(
        which in 0..13_usize,
        raw in prop::collection::vec(any::<u32>(), 0..40),
        cut in any::<prop::sample::Index>(),
        skip in any::<bool>(),
    ) {
        let model = &MODELS[which];
        // Some ids lie outside the vocabulary.
        let ids: Vec<u32> = raw.iter().map(|id| id % (model.vocab_size() as u32 + 3)).collect();
        let (prompt, rest) = ids.split_at(cut.index(ids.len() + 1));
        let whole = model.decode(&ids, skip);
        // Text of the prompt that was certain before the first new token.
        let (before, held) = stream(model, &[], prompt, skip);
        prop_assert_eq!(format!("{before}{held}"), model.decode(prompt, skip));
        let (pushed, flushed) = stream(model, prompt, rest, skip);
        prop_assert_eq!(format!("{before}{pushed}{flushed}"), whole);
    }

    #[test]
    fn text_survives(which in prop::sample::select(vec![0_usize, 1, 6]), text in any::<String>()) {
        let model = &MODELS[which];
        let ids = model.encode(&text, false).unwrap();
        // The demo's tokenizer composes characters (NFC), the others keep what they get; the
        // SentencePiece-like one takes its own mark for a space.
        let expect = if which == 1 { text.replace('\u{2581}', " ") } else { text };
        if which != 6 {
            prop_assert_eq!(model.decode(&ids, false), expect);
        }
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| model.token_bytes(id).to_vec()).collect();
        if which != 1 {
            prop_assert_eq!(model.decode(&ids, false), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn stops_cut_where_the_first_match_ends(
        text in "[abé]{0,30}",
        stops in prop::collection::vec("[abé]{0,5}", 0..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        include in any::<bool>(),
    ) {
        let (expect, expect_hit) = cut_at_first(&text, &stops, include);
        let mut watch = StopStrings::new(stops.clone()).include_stop(include);
        let mut ends: Vec<usize> =
            cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let mut out = String::new();
        for piece in ends.windows(2) {
            let stopped = watch.push(&text[piece[0]..piece[1]]);
            out.push_str(stopped.emit);
            let hit = stopped.hit;
            prop_assert_eq!(hit, watch.hit());
            prop_assert_eq!(watch.emitted_bytes(), out.len());
            prop_assert!(text.starts_with(&out));
            if hit.is_none() {
                // Nothing is held that could not be the beginning of a stop string.
                let held = &text[out.len()..piece[1]];
                prop_assert_eq!(held.len(), watch.held_bytes());
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)));
            }
        }
        out.push_str(watch.flush());
        prop_assert_eq!(out, expect);
        prop_assert_eq!(watch.hit(), expect_hit);
    }

    #[test]
    fn a_stop_may_begin_in_what_is_shown_already(
        text in "[abé]{0,30}",
        stops in prop::collection::vec("[abé]{1,5}", 0..5),
        cut in any::<prop::sample::Index>(),
        include in any::<bool>(),
    ) {
        let (shown, rest) = text.split_at(text.floor_char_boundary(cut.index(text.len() + 1)));
        // Whoever showed it had not come to a stop.
        prop_assume!(cut_at_first(shown, &stops, include).1.is_none());
        let (expect, expect_hit) = cut_at_first(&text, &stops, include);
        let mut watch = StopStrings::new(stops).include_stop(include).after(shown);
        let mut out = String::new();
        for piece in rest.split_inclusive('b') {
            out.push_str(watch.push(piece).emit);
            prop_assert_eq!(watch.emitted_bytes(), out.len());
        }
        out.push_str(watch.flush());
        prop_assert_eq!(out.as_str(), expect.get(shown.len()..).unwrap_or_default());
        prop_assert_eq!((watch.hit(), watch.held_bytes()), (expect_hit, 0));
    }
}

/// By the definition: the first byte at which any stop string is complete; the longest there.
fn cut_at_first(text: &str, stops: &[String], include: bool) -> (String, Option<usize>) {
    for end in 1..=text.len() {
        let ends_here =
            |stop: &String| !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes());
        let longest = (0..stops.len())
            .filter(|&at| ends_here(&stops[at]))
            .max_by_key(|&at| (stops[at].len(), std::cmp::Reverse(at)));
        if let Some(at) = longest {
            let cut = if include { end } else { end - stops[at].len() };
            return (text[..cut].to_owned(), Some(at));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn a_character_waits_for_its_last_byte() {
    let model = Arc::new(demo());
    let byte = |byte: u8| (0..256).find(|&id| model.token_bytes(id) == [byte]).unwrap();
    let mut detokenizer = model.detokenizer(&[], true);
    assert_eq!(detokenizer.push(byte(0xf0)), "");
    assert_eq!(detokenizer.push(byte(0x9f)), "");
    assert_eq!(detokenizer.push(byte(0x99)), "");
    assert_eq!(detokenizer.push(byte(0x82)), "🙂");
    // Nothing can complete E2 once a letter follows; the letter is not swallowed.
    assert_eq!(detokenizer.push(byte(0xe2)), "");
    assert_eq!(detokenizer.push(byte(b'a')), "\u{fffd}a");
    assert_eq!(detokenizer.push(byte(0xff)), "\u{fffd}");
    assert_eq!(detokenizer.push(byte(0xe2)), "");
    assert_eq!(detokenizer.push(2035), "");
    assert_eq!(detokenizer.flush(), "\u{fffd}");
    // A prompt that ends in the middle of a character.
    let mut detokenizer = model.detokenizer(&[byte(b'x'), byte(0xc3)], true);
    assert_eq!(detokenizer.push(byte(0xa9)), "é");
}

#[test]
fn leading_space_belongs_to_the_beginning_of_a_text() {
    let model = &MODELS[1];
    let ids = model.encode("a b", false).unwrap();
    assert_eq!(stream(model, &[], &ids, true).0, "a b");
    assert_eq!(stream(model, &ids, &ids, true).0, " a b");
}

/// Guards against decoding the whole output again for each token.
#[test]
fn long_outputs_take_linear_time() {
    let model = &MODELS[6];
    let start = Instant::now();
    let mut detokenizer = model.detokenizer(&[], true);
    let bytes: usize = (0..400_000).map(|i| detokenizer.push(i % 2000).len()).sum();
    assert!(bytes > 400_000);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn long_stop_strings_and_texts_take_linear_time() {
    let start = Instant::now();
    let stop = format!("{}b", "a".repeat(20_000));
    let mut watch = StopStrings::new(vec![stop]);
    for _ in 0..200 {
        assert_eq!(watch.push(&"a".repeat(5_000)).hit, None);
    }
    assert_eq!(watch.held_bytes(), 20_000);
    assert_eq!(watch.push("b").hit, Some(0));
    assert_eq!(watch.emitted_bytes(), 980_000);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
