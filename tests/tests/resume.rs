//! Requests that another engine began: cut anywhere, they go on here as if nothing had happened.
//! And the pages that a scheduler says it holds: what a router may count on.

use hearth_tests::simulation::bed::{self, Bed};
use scheduler::{
    Command, Config, Event, Finish, Made, Refusal, Request, RequestId, Token, Usage, prefix_hashes,
};

/// One choice as a reader has it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Read {
    tokens: Vec<Token>,
    end: Option<Finish>,
}

/// Adds a request's events to what was read of its choices before.
fn read<'a>(events: impl Iterator<Item = &'a Event>, read: &mut [Read]) -> Option<Usage> {
    let mut usage = None;
    for event in events {
        match event {
            Event::Token { choice, token, .. } => read[*choice as usize].tokens.push(*token),
            Event::ChoiceEnd { choice, reason, .. } => {
                let end = read[*choice as usize].end.replace(*reason);
                assert_eq!(end, None, "a choice ends once");
            }
            Event::End(_, end) => usage = Some(*end),
            other => panic!("{other:?}"),
        }
    }
    usage
}

/// The events of one request.
fn events(bed: &Bed, id: u64) -> Vec<Event> {
    let of = |event: &Event| match event {
        Event::PromptLogprobs(id, _) | Event::End(id, _) | Event::Refused(id, ..) => id.0,
        Event::Token { id, .. } | Event::ChoiceEnd { id, .. } => id.0,
    };
    bed.events.iter().map(|(_, event)| event.clone()).filter(|event| of(event) == id).collect()
}

/// Runs a request undisturbed; then cuts it behind each of its events and lets another scheduler
/// go on, a fresh one and one that knows its beginning.
fn check(depth: usize, config: &Config, request: &Request) {
    let mut first = Bed::new(config, depth);
    first.submit(request.clone());
    first.drain();
    let all = events(&first, request.id.0);
    let mut whole = vec![Read::default(); request.choices as usize];
    let usage = read(all.iter(), &mut whole).expect("it ends well");
    assert!(whole.iter().all(|choice| choice.end.is_some()));
    let mut warm = Bed::new(config, depth);
    // All but the last: behind that one there is nothing to go on with.
    for cut in 0..all.len() {
        let mut got = vec![Read::default(); request.choices as usize];
        assert_eq!(read(all[..cut].iter(), &mut got), None);
        let made = |read: &Read| Made { tokens: read.tokens.clone(), ended: read.end.is_some() };
        let made: Vec<Made> = got.iter().map(made).collect();
        for warm in [None, Some(&mut warm)] {
            let mut fresh = Bed::new(config, depth);
            let bed = warm.unwrap_or(&mut fresh);
            let id = 1000 + cut as u64;
            bed.submit(Request { id: RequestId(id), made: made.clone(), ..request.clone() });
            bed.drain();
            let mut got = got.clone();
            let end = read(events(bed, id).iter(), &mut got).expect("it ends well");
            assert_eq!(got, whole, "cut behind {cut} events");
            let counts = |usage: &Usage| (usage.prompt_tokens, usage.completion_tokens);
            assert_eq!(counts(&end), counts(&usage), "cut behind {cut} events");
        }
    }
}

/// Two choices of which one may stop early, with everything that counts tokens.
fn asked() -> Request {
    let mut request = bed::request(1, 37, 40);
    request.choices = 2;
    request.min_tokens = 6;
    request.stop_tokens = vec![3, 17, 40];
    request.sampling.logprobs = Some(1);
    request
}

#[test]
fn cut_anywhere_it_goes_on_as_if_it_had_not_been() {
    for depth in [1, 2] {
        for prefix_cache in [false, true] {
            let config = Config { prefix_cache, ..Config::new(4, 100, 200) };
            let mut endings = Vec::new();
            for seed in 0..12 {
                let mut request = asked();
                request.sampling.seed = seed;
                check(depth, &config, &request);
                let mut bed = Bed::new(&config, depth);
                bed.submit(request);
                bed.drain();
                let lens = [0, 1].map(|choice| bed.tokens(1, choice).len());
                endings.push(lens);
            }
            let short = endings.iter().flatten().filter(|len| **len < 40).count();
            assert!((1..24).contains(&short), "some stop and some do not: {endings:?}");
        }
    }
}

#[test]
fn an_allowance_and_the_context_end_it_where_they_would_have() {
    let config = Config::new(2, 100, 64);
    let mut paid = asked();
    (paid.allowance, paid.min_tokens, paid.stop_tokens) = (11, 0, Vec::new());
    check(2, &config, &paid);
    let mut long = asked();
    (long.max_tokens, long.stop_tokens) = (500, Vec::new());
    check(2, &config, &long);
}

/// An end for want of allowance is taken back by who has more: the choice comes as not ended.
#[test]
fn a_choice_that_ran_out_of_allowance_goes_on_with_more() {
    let config = Config::new(2, 100, 200);
    let whole = Request { stop_tokens: Vec::new(), ..asked() };
    let mut bed = Bed::new(&config, 2);
    bed.submit(whole.clone());
    bed.drain();
    let tokens = [0, 1].map(|choice| -> Vec<Token> {
        bed.tokens(1, choice).into_iter().map(|(_, token)| token).collect()
    });
    let made = tokens.each_ref().map(|all| Made { tokens: all[..11].to_vec(), ended: false });
    let (id, made) = (RequestId(2), made.to_vec());
    bed.submit(Request { id, made, allowance: 20, ..whole });
    while bed.tokens(2, 0).len() < 5 {
        bed.tick();
    }
    bed.send(Command::Extend(id, 40));
    bed.drain();
    for (choice, all) in (0..).zip(&tokens) {
        let rest: Vec<Token> = bed.tokens(2, choice).into_iter().map(|(_, token)| token).collect();
        assert_eq!(rest, all[11..], "choice {choice}");
    }
    assert_eq!(bed.usage(2).expect("ends").completion_tokens, 80);
}

#[test]
fn what_cannot_go_on_is_refused_and_counted() {
    let mut bed = Bed::new(&Config::new(2, 100, 64), 1);
    let made = |len: usize| Made { tokens: vec![1; len], ended: false };
    let cases = [
        vec![made(3)],
        vec![made(3), made(41)],
        vec![made(28), made(3)],
        vec![made(0), made(1), made(2)],
    ];
    for (id, made) in (1..).zip(cases) {
        bed.submit(Request { id: RequestId(id), made, ..asked() });
    }
    bed.drain();
    let refused = |id| match &events(&bed, id)[..] {
        [Event::Refused(_, refusal, usage)] => (refusal.clone(), usage.completion_tokens),
        other => panic!("{other:?}"),
    };
    let invalid = |why: &str| Refusal::Invalid("made", why.to_owned());
    assert_eq!(refused(1), (invalid("not one entry per choice"), 3));
    assert_eq!(refused(2), (invalid("more than max_tokens"), 44));
    assert_eq!(refused(3), (Refusal::TooLong { needed: 65, limit: 64 }, 31));
    assert_eq!(refused(4), (invalid("not one entry per choice"), 3));
}

/// Somebody reads its beginning: it does not stand behind all that came before it.
#[test]
fn who_is_read_already_does_not_wait_behind_those_who_are_not() {
    let mut bed = Bed::new(&Config::new(2, 200, 400), 2);
    for id in 10..40 {
        bed.submit(bed::request(id, 40, 30));
    }
    bed.tick();
    let alone = {
        let mut bed = Bed::new(&Config::new(2, 200, 400), 2);
        bed.submit(bed::request(1, 40, 30));
        bed.drain();
        bed.tokens(1, 0).into_iter().map(|(_, token)| token).collect::<Vec<_>>()
    };
    let made = vec![Made { tokens: alone[..7].to_vec(), ended: false }];
    bed.submit(Request { made, ..bed::request(1, 40, 30) });
    bed.drain();
    let ended = |id: u64| {
        let end = |event: &Event| matches!(event, Event::End(of, _) if of.0 == id);
        bed.events.iter().position(|(_, event)| end(event)).expect("ends")
    };
    let before = (10..40).filter(|&id| ended(id) < ended(1)).count();
    assert!(before <= 4, "{before} of 30 ended before it");
    let usage = bed.usage(1).expect("ends");
    assert!(usage.decode_us > usage.prefill_us && usage.prefill_us > 0, "{usage:?}");
}

/// What a router reckons from the hashes is what a request then finds.
#[test]
fn pages_told_are_pages_found() {
    let mut bed = Bed::new(&Config::new(4, 60, 400), 2);
    bed.scheduler.watch_pages();
    let mut found = 0;
    let mut prompts: Vec<(u64, Vec<Token>)> = Vec::new();
    for id in 1..=60_u64 {
        let mut request = bed::request(id, 30 + id as usize * 5 % 90, 20);
        (request.salt, request.choices) = (id % 2, 1 + id as u32 % 2);
        if id > 3 {
            // It begins as another one did, now and then under another salt.
            let (salt, other) = &prompts[id as usize * 7 % prompts.len()];
            request.prompt.splice(0..0, other[..other.len() * 2 / 3].iter().copied());
            request.prompt.truncate(250);
            request.salt = if id % 5 == 0 { 2 } else { *salt };
        }
        prompts.push((request.salt, request.prompt.clone()));
        let held = bed.scheduler.held_pages();
        // The last token is computed in any case.
        let usable = &request.prompt[..request.prompt.len() - 1];
        let hashes = prefix_hashes(usable, request.salt);
        let leading = hashes.take_while(|hash| held.binary_search(hash).is_ok()).count();
        bed.submit(request);
        bed.drain();
        let usage = bed.usage(id).expect("ends");
        assert_eq!(usage.cached_tokens as usize, leading * scheduler::PAGE_TOKENS, "request {id}");
        found += leading;
    }
    assert!(found > 20 && bed.scheduler.stats().evictions > 20, "{found} pages found");
}
