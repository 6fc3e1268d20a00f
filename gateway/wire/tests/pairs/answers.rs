//! Every provider's answers as every caller reads them, byte by byte, whole and streamed.

use wire::Seal;

use crate::golden::Golden;
use crate::replay;
use crate::side::{From, In};
use crate::told::{FEATURES, told};
use crate::via::{Heard, client, streamed, whole};

/// What every response repeats of its request.
const ECHO: &[&str] = &[
    concat!(
        r#""error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"#,
        r#""max_tool_calls":null,"model":"m""#
    ),
    concat!(
        r#""parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"#,
        r#""prompt_cache_retention":null,"reasoning":{"effort":null,"summary":null},"#,
        r#""safety_identifier":null,"service_tier":"default","store":true,"temperature":null,"#,
        r#""text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"#,
        r#""top_logprobs":0,"top_p":null,"truncation":"disabled""#
    ),
];

/// What of an answer does not arrive, by name, apart from seals.
pub(crate) fn missing(sent: &Heard, got: &Heard) -> Vec<&'static str> {
    let scores = |heard: &Heard| {
        let all = heard.logprobs.iter().map(|entry| (entry.bytes.clone(), entry.logprob));
        all.collect::<Vec<_>>()
    };
    let usage = |heard: &Heard| heard.usage.unwrap_or_default();
    let (one, two) = (usage(sent), usage(got));
    let said = |heard: &Heard| format!("{}{}", heard.text, heard.refusal);
    [
        ("the words of thoughts", sent.words() != got.words()),
        ("words", said(sent) != said(got)),
        ("that words are a refusal", said(sent) == said(got) && sent.text != got.text),
        ("calls", sent.calls != got.calls),
        ("why it ended", sent.finish != got.finish),
        ("which stop ended it", sent.stop != got.stop),
        ("log-probabilities", scores(sent) != scores(got)),
        ("tokens read", one.prompt_tokens != two.prompt_tokens),
        ("cached tokens", one.cached_tokens != two.cached_tokens),
        ("tokens written to a cache", one.cache_write_tokens != two.cache_write_tokens),
        ("tokens made", one.completion_tokens != two.completion_tokens),
        ("tokens of thoughts", one.reasoning_tokens != two.reasoning_tokens),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

/// What does not arrive of a provider's answer, whole and streamed; `None`: it has no such answer.
pub(crate) fn arrives(from: From, to: In, feature: &str) -> Option<[Vec<&'static str>; 2]> {
    let told = told(from, feature)?;
    let (answer, body) = whole(from, to, &told.whole);
    let sent = Heard::of(&answer);
    let got = to.read(&body).unwrap_or_else(|why| panic!("{from:?} {to:?} {feature}: {why}"));
    let got = Heard::of(&got);
    let (heard, bytes) = streamed(from, to, &told.stream);
    // A provider says the same in both ways.
    let apart = missing(&sent, &heard);
    assert!(apart.is_empty(), "{from:?} {feature}: {apart:?}\n{sent:?}\n{heard:?}");
    assert_eq!(sent.thoughts, heard.thoughts, "{from:?} {feature}");
    let read = client(to, &bytes);
    // Whether a seal means anything is seen when it comes back.
    let sealed = |heard: &Heard| heard.thoughts.iter().filter_map(|t| t.seal.clone()).collect();
    let all: Vec<Seal> = sealed(&sent);
    // A prompt brings nothing back.
    let prompts = to == In::Completions;
    let back = if prompts { Vec::new() } else { replay::seals(to, &answer.choices[0]) };
    let both = [(&got, all != back), (&read, all != back || sealed(&got) != sealed(&read))];
    Some(both.map(|(got, unsealed)| {
        let seals = unsealed.then_some("seals");
        missing(&sent, got).into_iter().chain(seals).collect()
    }))
}

#[test]
fn every_provider_as_every_caller_reads_it() {
    for to in In::ALL {
        let mut golden = Golden::default();
        for feature in FEATURES {
            for from in From::ALL {
                let Some(told) = told(from, feature) else { continue };
                let (_, body) = whole(from, to, &told.whole);
                let text = |bytes: Vec<u8>| {
                    let text = String::from_utf8(bytes).expect("UTF-8");
                    // Line ends that differ are seen.
                    text.replace("\r\n", "\\r\n")
                };
                golden.add(format!("{feature}, {}, whole", from.name()), text(body));
                let (_, bytes) = streamed(from, to, &told.stream);
                golden.add(format!("{feature}, {}, stream", from.name()), text(bytes));
            }
        }
        let long = if to == In::Responses { ECHO } else { &[] };
        golden.check(&format!("answers_{}.txt", to.name()), long);
    }
}
