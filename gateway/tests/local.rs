//! The engine's thread as its readers see it, with the real scheduler and an engine that counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use gateway::backend::answering::Answering;
use gateway::backend::local::{EngineState, LocalEngine, Options, PageNews, PageWatch};
use gateway::backend::meter::{End, Meter};
use gateway::backend::{Along, Generation, Model};
use gateway::backend::{Serving, SubmitError};
use gateway::metrics::Metrics;
use scheduler::Config;
use scheduler::types::{
    Batch, Engine, Event, Fault, Finish, Logits, Refusal, Request, RequestId, Sample, Sampling,
    StepOutput, Usage,
};

/// What goes wrong, and when.
#[derive(Clone, Copy)]
enum Trouble {
    None,
    Panic(usize),
    Dead(usize),
}

/// Draws token 7 for every row. Each step waits for a permit while the gate is there.
struct Counting {
    steps: Arc<AtomicUsize>,
    gate: Option<Receiver<()>>,
    trouble: Trouble,
    slow: Duration,
    pending: Option<StepOutput>,
}

impl gateway::backend::local::Adapts for Counting {}

/// Speaks from a script, whatever it is held to.
impl gateway::backend::local::Holds for Counting {
    fn set_grammar(&mut self, _: u64, _: Arc<text::grammar::Grammar>) {}

    fn drop_grammar(&mut self, _: u64) {}
}

impl Engine for Counting {
    fn depth(&self) -> usize {
        1
    }

    fn drafts_max(&self) -> u32 {
        0
    }

    fn launch(&mut self, batch: &Batch) {
        let samples =
            |logits| matches!(logits, Logits::Sample | Logits::Prompt { sample: true, .. });
        let rows = batch.rows.iter().filter(|row| samples(row.logits));
        let samples = rows
            .map(|row| Sample { slot: row.slot, token: 7, logprobs: None, forced: Vec::new() })
            .collect();
        self.pending =
            Some(StepOutput { step: batch.step, elapsed_us: 10, samples, ..StepOutput::default() });
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        if let Some(gate) = &self.gate {
            // A test that ends opens the gate by dropping its end.
            let _ = gate.recv();
        }
        if !self.slow.is_zero() {
            std::thread::sleep(self.slow);
        }
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        match self.trouble {
            Trouble::Panic(at) if at == step => panic!("the driver went away"),
            Trouble::Dead(at) if at == step => return Err(Fault::Dead("no device".to_owned())),
            _ => {}
        }
        *out = self.pending.take().expect("a step in flight");
        Ok(())
    }
}

struct Case {
    engine: LocalEngine,
    metrics: Arc<Metrics>,
    gate: Option<Sender<()>>,
    steps: Arc<AtomicUsize>,
}

struct Setup {
    gated: bool,
    trouble: Trouble,
    slow: Duration,
    timeout: Option<Duration>,
    hangs: Option<Duration>,
    rows: usize,
    waiting: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            gated: false,
            trouble: Trouble::None,
            slow: Duration::ZERO,
            timeout: None,
            hangs: None,
            rows: 4,
            waiting: 100,
        }
    }
}

impl Setup {
    fn start(self) -> Case {
        let (permit, gate) = unbounded();
        let steps = Arc::default();
        let engine = Counting {
            steps: Arc::clone(&steps),
            gate: self.gated.then_some(gate),
            trouble: self.trouble,
            slow: self.slow,
            pending: None,
        };
        let config = Config { waiting_max: self.waiting, ..Config::new(self.rows, 4096, 8192) };
        let options = Options {
            name: "fake".to_owned(),
            request_timeout: self.timeout,
            step_timeout: self.hangs,
        };
        let metrics = Metrics::new();
        let engine = LocalEngine::start(engine, config, options, metrics.model("fake")).unwrap();
        Case { engine, metrics, gate: self.gated.then_some(permit), steps }
    }
}

fn request(max_tokens: u32, choices: u32) -> Request {
    Request {
        id: RequestId(0),
        prompt: vec![1, 2, 3],
        choices,
        max_tokens,
        allowance: 0,
        min_tokens: 0,
        stop_tokens: Vec::new(),
        sampling: Sampling::default(),
        prompt_logprobs: None,
        priority: 0,
        tenant: 0,
        salt: 0,
        adapter: 0,
        grammar: 0,
        deadline: None,
        made: Vec::new(),
    }
}

static TEXT: LazyLock<Arc<text::TextModel>> = LazyLock::new(|| {
    let text = text::TextModel::from_bytes(text::TextFiles {
        tokenizer_json: include_bytes!("../../engine/models/demo/tokenizer.json"),
        ..text::TextFiles::default()
    });
    Arc::new(text.unwrap())
});

/// What a reader saw: tokens and ends per choice, and the last word.
#[derive(Debug, Default)]
struct Seen {
    tokens: Vec<usize>,
    ends: Vec<(u32, Finish)>,
    usage: Option<Usage>,
    refusal: Option<Refusal>,
}

impl Case {
    fn submit(&self, request: Request) -> Generation {
        self.try_submit(request).unwrap()
    }

    fn try_submit(&self, request: Request) -> Result<Generation, SubmitError> {
        self.try_submit_along(request, Along::nothing())
    }

    fn try_submit_along(&self, request: Request, along: Along) -> Result<Generation, SubmitError> {
        let model = Model {
            id: "fake".to_owned(),
            created: 0,
            context: 8192,
            text: Arc::clone(&TEXT),
            answering: Arc::new(Answering::new(&TEXT, &[], None)),
            defaults: Sampling::default(),
            max_tokens_default: None,
            eos: Vec::new(),
            engine: self.engine.clone().into(),
            prefix: gateway::backend::local::PrefixRule::Any,
            adapters: None,
            adapter: None,
        };
        model.submit(request, along)
    }

    fn permit(&self, steps: usize) {
        (0..steps).for_each(|_| self.gate.as_ref().unwrap().send(()).unwrap());
    }

    /// Waits for a condition that the engine's thread brings about.
    async fn until(&self, what: &str, condition: impl Fn(&LocalEngine) -> bool) {
        let start = Instant::now();
        while !condition(&self.engine) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Reads to the end. Panics at a second last word or at a word behind it.
async fn read(mut generation: Generation, choices: u32) -> Seen {
    let mut seen = Seen { tokens: vec![0; choices as usize], ..Seen::default() };
    while let Some(event) = generation.next().await {
        assert!(seen.usage.is_none() && seen.refusal.is_none(), "{event:?} after the end");
        match event {
            Event::Token { choice, .. } => seen.tokens[choice as usize] += 1,
            Event::ChoiceEnd { choice, reason, .. } => seen.ends.push((choice, reason)),
            Event::End(_, usage) => seen.usage = Some(usage),
            Event::Refused(_, refusal, _) => seen.refusal = Some(refusal),
            Event::PromptLogprobs(..) => {}
        }
    }
    assert!(generation.next().await.is_none() && generation.try_next().is_none());
    seen
}

#[tokio::test]
async fn every_event_comes_exactly_once_even_to_readers_that_come_late() {
    let case = Setup::default().start();
    let all: Vec<_> = (1..40).map(|i| (i, case.submit(request(i * 3, 1 + i % 3)))).collect();
    // Nobody reads: the thread must not wait for anyone, and must not lose anything.
    case.until("the end of all requests", |engine| engine.open() == 0).await;
    for (i, generation) in all {
        let choices = 1 + i % 3;
        let seen = read(generation, choices).await;
        assert_eq!(seen.tokens, vec![i as usize * 3; choices as usize]);
        assert_eq!(seen.ends.len(), choices as usize);
        assert!(seen.ends.iter().all(|(_, reason)| *reason == Finish::Length));
        assert_eq!(seen.usage.unwrap().completion_tokens, i * 3 * choices);
    }
    let stats = case.engine.stats();
    assert_eq!(stats.pages_free + stats.pages_cached, stats.pages_total);
    let text = case.metrics.render();
    for line in [
        "hearth_request_success_total{finished_reason=\"length\",model=\"fake\"} 39",
        "hearth_num_requests_running{model=\"fake\"} 0",
        "hearth_kv_cache_usage_ratio{model=\"fake\"} 0",
        "hearth_kv_cache_pages{model=\"fake\",state=\"total\"} 4096",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn dropping_the_reader_frees_the_pages() {
    let case = Setup { gated: true, ..Setup::default() }.start();
    let mut running = case.submit(request(5000, 1));
    case.permit(1);
    assert!(matches!(running.next().await, Some(Event::Token { .. })));
    // One in the middle of its answer, and one that the thread has not even seen.
    drop(running);
    drop(case.submit(request(5000, 1)));
    case.permit(3);
    case.until("the cancels", |engine| engine.open() == 0).await;
    let stats = case.engine.stats();
    assert_eq!(stats.pages_free + stats.pages_cached, stats.pages_total);
    assert!(case.steps.load(Ordering::SeqCst) <= 4, "the device stops at once");
}

#[tokio::test]
async fn cancels_are_not_lost_when_the_channel_is_full() {
    let case = Setup { gated: true, rows: 1, waiting: 200, ..Setup::default() }.start();
    // The thread waits in its first step, so nothing leaves the channel meanwhile.
    let first = case.submit(request(5000, 1));
    let all: Vec<_> = (0..200).map(|_| case.submit(request(5000, 1))).collect();
    for generation in &all {
        // Far more nudges than there is room for.
        generation.cancel_choice(0);
    }
    drop(all);
    drop(first);
    case.permit(10);
    case.until("the cancels", |engine| engine.open() == 0).await;
}

#[tokio::test]
async fn one_choice_stops_and_the_other_goes_on() {
    let case = Setup { gated: true, ..Setup::default() }.start();
    let mut generation = case.submit(request(50, 2));
    case.permit(1);
    assert!(generation.next().await.is_some());
    generation.cancel_choice(1);
    case.permit(100);
    let seen = read(generation, 2).await;
    assert!(
        seen.ends.contains(&(0, Finish::Length)) && seen.ends.contains(&(1, Finish::Cancelled))
    );
    assert!(seen.tokens[1] < 10, "{seen:?}");
    assert!(seen.usage.is_some());
}

#[tokio::test]
async fn a_full_line_refuses_at_the_door() {
    let case = Setup { gated: true, rows: 1, waiting: 3, ..Setup::default() }.start();
    let taken: Vec<_> = (0..4).map(|_| case.submit(request(2, 1))).collect();
    match case.try_submit(request(2, 1)) {
        Err(SubmitError::Overloaded { retry_after_s }) => {
            assert!((1..=60).contains(&retry_after_s));
        }
        other => panic!("{:?}", other.map(drop)),
    }
    assert!(case.metrics.render().contains("reason=\"overloaded\"} 1"));
    case.permit(100);
    for generation in taken {
        assert!(read(generation, 1).await.usage.is_some());
    }
    assert!(case.try_submit(request(2, 1)).is_ok(), "there is room again");
}

#[tokio::test]
async fn a_dead_engine_answers_everyone_and_is_not_ready() {
    for (trouble, word) in
        [(Trouble::Panic(3), "the driver went away"), (Trouble::Dead(3), "no device")]
    {
        let case = Setup { trouble, rows: 2, gated: true, ..Setup::default() }.start();
        let all: Vec<_> = (0..10).map(|_| case.submit(request(100, 1))).collect();
        case.permit(3);
        for generation in all {
            let seen = read(generation, 1).await;
            let Some(Refusal::Engine(why)) = seen.refusal else { panic!("{seen:?}") };
            assert!(why.contains(word), "{why}");
        }
        case.until("the stop", |engine| matches!(engine.state(), EngineState::Stopped(_))).await;
        match case.try_submit(request(1, 1)) {
            Err(SubmitError::Unavailable(why)) => assert!(why.contains(word), "{why}"),
            other => panic!("{:?}", other.map(drop)),
        }
    }
}

/// Its thread sits in a call that does not return: others must notice, and tell who waits.
#[tokio::test]
async fn a_hung_engine_answers_everyone_and_is_back_when_it_goes_on() {
    let hangs = Some(Duration::from_millis(200));
    let case = Setup { gated: true, hangs, rows: 1, ..Setup::default() }.start();
    case.permit(3);
    let (running, waits) = (case.submit(request(9, 1)), case.submit(request(9, 1)));
    for (generation, tokens) in [(running, 3), (waits, 0)] {
        let seen = read(generation, 1).await;
        assert_eq!(seen.tokens, [tokens]);
        let Some(Refusal::Engine(why)) = seen.refusal else { panic!("{:?}", seen.refusal) };
        assert_eq!(why, "the engine of fake hangs: a step has taken more than 200ms");
    }
    assert!(matches!(case.engine.state(), EngineState::Stopped(why) if why.contains("hangs")));
    let refused = case.try_submit(request(9, 1)).map(drop);
    let Err(SubmitError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("hangs"), "{why}");
    // It goes on: what nobody waits for any more is not computed.
    case.permit(1);
    case.until("that it takes requests", |engine| engine.state() == EngineState::Ready).await;
    case.until("the end of what was open", |engine| engine.open() == 0).await;
    assert!(case.steps.load(Ordering::SeqCst) <= 5, "{:?}", case.steps);
    case.permit(20);
    assert_eq!(read(case.submit(request(9, 1)), 1).await.tokens, [9]);
    let stats = case.engine.stats();
    assert_eq!(stats.pages_free + stats.pages_cached, stats.pages_total);
    // Without work it waits, for however long.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(case.engine.state(), EngineState::Ready);
}

#[tokio::test]
async fn a_drain_lets_open_requests_end_and_takes_no_new_ones() {
    let case = Setup { slow: Duration::from_millis(1), ..Setup::default() }.start();
    let open = case.submit(request(20, 1));
    let engine = case.engine.clone();
    let drain = tokio::spawn(async move { engine.drain(Duration::from_secs(20)).await });
    case.until("the drain", |engine| engine.state() != EngineState::Ready).await;
    assert!(matches!(case.try_submit(request(1, 1)), Err(SubmitError::Unavailable(_))));
    assert_eq!(read(open, 1).await.tokens, [20]);
    assert!(drain.await.unwrap(), "all came to their end");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_what_is_open() {
    let case = Setup { slow: Duration::from_millis(2), ..Setup::default() }.start();
    let open = case.submit(request(8000, 1));
    assert!(!case.engine.drain(Duration::from_millis(20)).await);
    let seen = read(open, 1).await;
    assert!(matches!(seen.refusal, Some(Refusal::Engine(_))), "{seen:?}");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let timeout = Some(Duration::from_millis(30));
    let case = Setup { slow: Duration::from_millis(2), timeout, ..Setup::default() }.start();
    let seen = read(case.submit(request(8000, 1)), 1).await;
    assert_eq!(seen.refusal, Some(Refusal::Deadline));
    assert!(case.metrics.render().contains("reason=\"deadline\"} 1"));
}

#[tokio::test]
async fn nonsense_is_refused_and_takes_no_memory() {
    let case = Setup::default().start();
    for (prompt, choices) in [(0, 1), (3, u32::MAX), (3, 0), (100_000, 1)] {
        let odd = Request { prompt: vec![1; prompt], ..request(u32::MAX, choices) };
        let seen = read(case.submit(odd), 1).await;
        assert!(seen.refusal.is_some() && seen.usage.is_none(), "{seen:?}");
    }
    assert_eq!(case.engine.open(), 0);
}

/// Follows a watch until the pages are those of this prompt and what is made of it.
async fn until_held(watch: &mut PageWatch, pages: &[u64]) -> usize {
    let (mut held, mut snapshots) = (std::collections::BTreeSet::new(), 0);
    let start = Instant::now();
    loop {
        match watch.news() {
            Some(PageNews::Snapshot { held: all, .. }) => {
                held = all.into_iter().collect();
                snapshots += 1;
            }
            Some(PageNews::Changes { added, removed, .. }) => {
                held.extend(added);
                removed.iter().for_each(|hash| assert!(held.remove(hash), "told before"));
            }
            None if held.len() == pages.len() => {
                assert!(pages.iter().all(|hash| held.contains(hash)));
                return snapshots;
            }
            None => {
                assert!(start.elapsed() < Duration::from_secs(10), "{} held", held.len());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

#[tokio::test]
async fn who_watches_knows_the_pages_that_are_held() {
    let case = Setup::default().start();
    let ask = |first: u32| Request { prompt: (first..first + 70).collect(), ..request(30, 1) };
    let pages = |first: u32| -> Vec<u64> {
        // The last token made is not computed.
        let all: Vec<u32> = ask(first).prompt.into_iter().chain([7; 29]).collect();
        scheduler::prefix_hashes(&all, 0).collect()
    };
    read(case.submit(ask(0)), 1).await;
    let mut early = case.engine.watch_pages();
    assert_eq!(pages(0).len(), 6);
    until_held(&mut early, &pages(0)).await;
    // The next prompts are told one by one, and whoever comes later is told all.
    let mut all = pages(0);
    for first in [1000, 2000] {
        read(case.submit(ask(first)), 1).await;
        all.extend(pages(first));
        assert_eq!(until_held(&mut case.engine.watch_pages(), &all).await, 1);
    }
    let start = Instant::now();
    let mut told = Vec::new();
    while told.len() < 12 {
        match early.news() {
            Some(PageNews::Changes { added, removed, .. }) if removed.is_empty() => {
                told.extend(added);
            }
            None if start.elapsed() < Duration::from_secs(10) => tokio::task::yield_now().await,
            other => panic!("{other:?} after {}", told.len()),
        }
    }
    told.sort_unstable();
    let mut new = all[6..].to_vec();
    new.sort_unstable();
    assert_eq!(told, new);
}

/// Notes how long it is told that the longest choice is.
struct Told(Arc<std::sync::Mutex<Vec<u32>>>);

impl Meter for Told {
    fn allowance(&self) -> u32 {
        9
    }

    fn made(&mut self, longest: u32) -> Option<u32> {
        self.0.lock().unwrap().push(longest);
        None
    }

    fn ended(&mut self, end: &End) {
        self.0.lock().unwrap().extend([end.longest, end.usage.completion_tokens]);
    }
}

#[tokio::test]
async fn what_was_made_elsewhere_is_counted_and_not_told_again() {
    let case = Setup::default().start();
    let made = |len, ended| scheduler::types::Made { tokens: vec![7; len], ended };
    let request = Request { made: vec![made(5, false), made(3, true)], ..request(50, 2) };
    let told = Arc::default();
    let mut along = Along::nothing();
    along.meter = Some(Box::new(Told(Arc::clone(&told))));
    let mut generation = case.try_submit_along(request, along).unwrap();
    let mut events = Vec::new();
    while let Some(event) = generation.next().await {
        events.push(event);
    }
    let [tokens @ .., Event::ChoiceEnd { choice: 0, reason, .. }, Event::End(_, usage)] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(tokens.iter().all(|event| matches!(event, Event::Token { choice: 0, .. })));
    assert_eq!((tokens.len(), *reason, usage.completion_tokens), (4, Finish::Length, 12));
    assert_eq!(*told.lock().unwrap(), [6, 7, 8, 9, 9, 12]);
}
