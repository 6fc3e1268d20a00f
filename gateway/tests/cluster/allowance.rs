//! Money across machines: each token is counted once, nothing is made that is not paid for, and
//! an answer does not end early because word of the money came late.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::backend::meter::{End, Meter};
use gateway::backend::{Along, Model};
use scheduler::types::{Event, Finish, Request, RequestId, Usage};

use crate::fake::Setup;
use crate::kit::{Gateway, SPEECH, Site, until};

/// Pays step by step, up to a bound.
#[derive(Clone)]
struct Purse(Arc<Mutex<Books>>);

struct Books {
    allowance: u32,
    step: u32,
    most: u32,
    /// Asks again this near the end.
    near: u32,
    calls: u32,
    ended: Vec<(Usage, bool, u32)>,
}

impl Purse {
    fn new(step: u32, most: u32, near: u32) -> Self {
        let ended = Vec::new();
        let books = Books { allowance: step.min(most), step, most, near, calls: 0, ended };
        Self(Arc::new(Mutex::new(books)))
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().expect("the books")
    }
}

impl Meter for Purse {
    fn allowance(&self) -> u32 {
        self.books().allowance
    }

    fn made(&mut self, longest: u32) -> Option<u32> {
        let mut books = self.books();
        books.calls += 1;
        if longest + books.near < books.allowance || books.allowance >= books.most {
            return None;
        }
        books.allowance = books.most.min(books.allowance + books.step);
        Some(books.allowance)
    }

    fn ended(&mut self, end: &End) {
        self.books().ended.push((end.usage, end.failed, end.longest));
    }
}

fn request(choices: u32, max_tokens: u32) -> Request {
    let prompt = (0..40).map(|n| n % 200).collect();
    Request { choices, ..Request::greedy(RequestId(0), prompt, max_tokens) }
}

/// Tokens of each choice, why it ended, and what was used.
async fn run(model: &Model, request: Request, purse: &Purse) -> (Vec<usize>, Vec<Finish>, Usage) {
    let mut made = vec![0; usize::try_from(request.choices).expect("small")];
    let mut ends = Vec::new();
    let meter: Box<dyn Meter> = Box::new(purse.clone());
    let along = Along { grammar: None, meter: Some(meter), arrived: Instant::now(), hedge: None };
    let mut generation = model.submit(request, along).expect("taken in");
    while let Some(event) = generation.next().await {
        match event {
            Event::Token { choice, .. } => made[usize::try_from(choice).expect("small")] += 1,
            Event::ChoiceEnd { reason, .. } => ends.push(reason),
            Event::End(_, usage) => return (made, ends, usage),
            other => panic!("{other:?}"),
        }
    }
    panic!("no end");
}

fn site() -> Setup {
    Setup { speech: SPEECH, endless: true, pace: Duration::from_millis(1), ..Setup::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_token_is_counted_once_however_often_the_node_is_lost() {
    let (one, two) = (Site::start(site()).await, Site::start(site()).await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let model = gateway.model("org/fake").await;
    for round in 0..8_u64 {
        one.wire.cut_after(400 + 300 * round);
        two.wire.cut_after(500 + 200 * round);
        let purse = Purse::new(1000, 1000, 0);
        let (made, ends, usage) = run(&model, request(2, 200), &purse).await;
        assert_eq!((made, ends), (vec![200, 200], vec![Finish::Length; 2]));
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (40, 400));
        let (calls, ended) = {
            let books = purse.books();
            (books.calls, books.ended.clone())
        };
        assert_eq!((calls, ended), (400, vec![(usage, false, 200)]));
        gateway.nodes(2).await;
    }
    assert!(gateway.figure("hearth_cluster_resumes_total{model=\"org/fake\"}") >= 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_that_is_not_paid_for() {
    let (one, two) = (Site::start(site()).await, Site::start(site()).await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let model = gateway.model("org/fake").await;
    for (step, most) in [(1, 30), (7, 61), (50, 50), (16, 150)] {
        for cut in [false, true] {
            if cut {
                one.wire.cut_after(300);
                two.wire.cut_after(300);
            }
            let purse = Purse::new(step, most, 0);
            let (made, ends, usage) = run(&model, request(2, 200), &purse).await;
            let wanted = usize::try_from(most).expect("small");
            assert_eq!((made, ends), (vec![wanted; 2], vec![Finish::Length; 2]), "{step} {most}");
            assert_eq!(usage.completion_tokens, 2 * most);
            gateway.nodes(2).await;
        }
    }
}

/// A node that hears of more money in time goes on without a break.
#[tokio::test(flavor = "multi_thread")]
async fn more_money_in_time_needs_no_second_start() {
    let one = Site::start(Setup { pace: Duration::from_millis(3), ..site() }).await;
    let gateway = Gateway::of(&[&one]).await;
    let model = gateway.model("org/fake").await;
    let purse = Purse::new(80, 200, 40);
    let (made, ..) = run(&model, request(1, 200), &purse).await;
    assert_eq!(made, vec![200]);
    one.fake.idle().await;
    let text = one.fake.metrics.render();
    let once = "hearth_request_generation_tokens_count{model=\"org/fake\"} 1";
    assert!(text.contains(once), "{text}");
}

/// Who leaves pays for what the node has made for him, which the node is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_pays_for_what_was_made() {
    let one = Site::start(Setup { pace: Duration::from_millis(5), ..site() }).await;
    let gateway = Gateway::of(&[&one]).await;
    let model = gateway.model("org/fake").await;
    let purse = Purse::new(1000, 1000, 0);
    let meter: Box<dyn Meter> = Box::new(purse.clone());
    let along = Along { grammar: None, meter: Some(meter), arrived: Instant::now(), hedge: None };
    let mut generation = model.submit(request(1, 200), along).expect("taken in");
    for _ in 0..10 {
        assert!(matches!(generation.next().await, Some(Event::Token { .. })));
    }
    drop(generation);
    until("the books are closed", || !purse.books().ended.is_empty()).await;
    let (usage, failed, longest) = purse.books().ended[0];
    assert!(!failed && usage.prompt_tokens == 40 && usage.prefill_us > 0, "{usage:?}");
    assert!(longest >= 10 && usage.completion_tokens == longest, "{usage:?} {longest}");
    one.fake.idle().await;
}
