//! One request on its way over nodes: a task that sends it to one, reads what comes back, and
//! sends it to another with all that was made so far when that one is lost. Its reader sees one
//! stream, without a gap and without a repeat; who pays hears of each token once.
//!
//! Nothing is kept of a node's that the next one would need: the draw at a position depends on the
//! seed and the position, and a place in a grammar on the tokens before it.

mod events;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use scheduler::types::{Event, Made, Refusal, Request, RequestId, Usage};
use text::grammar::Plan;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::dial::Unanswered;
use super::lines::Lines;
use super::protocol::{self, Ask, Say, TOLD_BYTES_MAX};
use super::remote::Shared;
use super::service::{Chosen, NODE_WAIT, shutting_down, until};
use super::trial::Trial;
use super::tries::{Failed, Tries};
use crate::backend::meter::Metered;
use crate::backend::reading::{Reading, Wishes};

/// How long a node may take to say what a request has used that nobody wants any more.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Longest wait for an answer's head: it comes as soon as the node has the request, which has to be
/// there within as long a time, and not when its turn comes.
const HEAD: Duration = Duration::from_secs(10);
/// Words to a node that are on their way.
const WORDS: usize = 256;
/// Longest reason of a refusal.
const REASON_BYTES_MAX: usize = 4 << 10;

/// What the reader tells the task.
pub(super) struct Control {
    wishes: Wishes,
    woken: Notify,
}

impl Control {
    pub(super) fn new(choices: u32) -> Self {
        Self { wishes: Wishes::new(choices), woken: Notify::new() }
    }
}

/// The reader's side of a request: see [`crate::backend::Generation`].
pub struct Carried {
    id: RequestId,
    reading: Reading,
    control: Arc<Control>,
    route: String,
}

impl Carried {
    pub(super) fn new(
        id: RequestId,
        reading: Reading,
        control: Arc<Control>,
        route: String,
    ) -> Self {
        Self { id, reading, control, route }
    }

    /// The node that it was sent to, and why.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    pub(crate) async fn next(&mut self) -> Option<Event> {
        let id = self.id;
        self.reading.next(|| broken_off(id)).await
    }

    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let id = self.id;
        self.reading.try_next(|| broken_off(id))
    }

    pub(crate) fn cancel_choice(&self, choice: u32) {
        if self.control.wishes.cancel_choice(choice) {
            self.control.woken.notify_one();
        }
    }
}

/// The task went away without a last word: this is it.
fn broken_off(id: RequestId) -> Event {
    let why = Refusal::Engine("the server is shutting down".to_owned());
    Event::Refused(id, why, Usage::default())
}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.reading.has_ended() {
            self.control.wishes.cancel();
            self.control.woken.notify_one();
        }
    }
}

/// See the module.
pub(super) struct Carrier {
    shared: Arc<Shared>,
    /// As it was first sent, with what was made so far, and what is paid for.
    request: Request,
    plan: Option<Plan>,
    /// Hashes of the prompt's pages.
    chain: Vec<u64>,
    meter: Option<Metered>,
    deadline: Option<Instant>,
    events: mpsc::Sender<Event>,
    control: Arc<Control>,
    /// What the node was told of `allowance`, and of choices that nobody wants.
    allowed: u32,
    cancelled: Vec<bool>,
    /// Tokens that were made when it was sent to this node.
    before: usize,
    /// Positions of the prompt whose log-probabilities went out.
    scored: u32,
    /// What the last node said was used.
    used: Usage,
}

/// What came of sending it to one node.
enum Came {
    /// It ran to its end.
    Done,
    /// It is refused, whoever is asked.
    Refused(Refusal),
    /// Nobody reads it any more.
    Left,
    /// More is paid for than the node knew when it stopped.
    More,
    /// The node has no room.
    Full,
    /// The node gave nothing: another may do better.
    Failed(Failed),
}

impl Carrier {
    pub(super) fn new(
        shared: Arc<Shared>,
        mut request: Request,
        (events, control): (mpsc::Sender<Event>, Arc<Control>),
    ) -> Self {
        let choices = usize::try_from(request.choices.min(1 << 12)).unwrap_or_default();
        request.made = vec![Made::default(); choices];
        Self {
            shared,
            allowed: request.allowance,
            request,
            plan: None,
            chain: Vec::new(),
            meter: None,
            deadline: None,
            events,
            control,
            cancelled: vec![false; choices],
            before: 0,
            scored: 0,
            used: Usage::default(),
        }
    }

    /// Its choices are held to this.
    pub(super) fn held(self, plan: Option<Plan>) -> Self {
        Self { plan, ..self }
    }

    /// Somebody pays.
    pub(super) fn paid(self, meter: Option<Metered>) -> Self {
        Self { meter, ..self }
    }

    /// It ends at this time at the latest.
    pub(super) fn until(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }

    /// The hashes of its prompt's pages.
    pub(super) fn knowing(self, chain: Vec<u64>) -> Self {
        Self { chain, ..self }
    }

    /// Runs it to its end. Its reader and who pays are told, whatever happens.
    pub(super) async fn run(mut self, first: Chosen) {
        let refused = self.carry(first).await;
        let usage = self.usage();
        let failed = matches!(refused, Some(Refusal::Engine(_)));
        if let Some(meter) = &mut self.meter {
            meter.ended(usage, failed);
        }
        self.shared.service.ended();
        let id = self.request.id;
        let last = match refused {
            None => Event::End(id, usage),
            Some(why) => Event::Refused(id, why, usage),
        };
        self.tell(last);
    }

    /// `None`: it came to its end.
    async fn carry(&mut self, first: Chosen) -> Option<Refusal> {
        let (mut tries, mut before) = (Tries::default(), 0);
        let (mut avoid, mut full) = (Vec::new(), None);
        let mut next = Some(first);
        loop {
            let mut chosen = match next.take() {
                Some(chosen) => chosen,
                None => match self.other(&mut avoid).await {
                    Ok(chosen) => chosen,
                    Err(refusal) => return refusal,
                },
            };
            let node = Arc::clone(&chosen.member);
            let failed = match self.attempt(&mut chosen).await {
                Came::Left => return None,
                Came::Refused(why) => return Some(why),
                Came::Done => {
                    chosen.trial.ended();
                    return None;
                }
                Came::More => {
                    chosen.trial.ended();
                    continue;
                }
                Came::Full => {
                    avoid.push(node.number);
                    // What has got on since waits anew.
                    let made = self.request.made_tokens();
                    let since = match full {
                        Some((then, since)) if then == made => since,
                        _ => Instant::now(),
                    };
                    full = Some((made, since));
                    let asked_all = avoid.len() >= self.shared.service.members();
                    let begun = made > 0;
                    if (asked_all && !begun) || since.elapsed() > NODE_WAIT {
                        return Some(Refusal::Overloaded);
                    }
                    continue;
                }
                Came::Failed(failed) => failed,
            };
            failed.tell(&mut chosen.trial);
            let made = self.request.made_tokens();
            if made > before {
                tries.got_on();
            }
            before = made;
            avoid.push(node.number);
            let (model, id, why) = (&self.shared.service.model, self.request.id.0, failed.why());
            tracing::info!(model, id, node = %node.endpoint, made, why, "a node gave nothing");
            if let Err(refusal) = tries.failed(failed, self.shared.service.members()) {
                return Some(refusal);
            }
            self.shared.service.metrics.resumed();
            self.end_unwanted();
            if self.all_ended() {
                return None;
            }
        }
    }

    /// Another node, as soon as one is there. `Err(None)`: nobody wants it any more.
    async fn other(&mut self, avoid: &mut Vec<u64>) -> Result<Chosen, Option<Refusal>> {
        let Self { shared, chain, control, .. } = &*self;
        let prompt = self.request.prompt.len();
        let about = (self.deadline, self.request.made_tokens() > 0);
        let choose = |avoid: &[u64]| shared.choose(chain, prompt, avoid);
        tokio::select! {
            biased;
            () = left_by(control) => Err(None),
            found = shared.service.another(avoid, about, choose) => found.map_err(Some),
        }
    }

    /// Sends it to a node and reads what comes.
    async fn attempt(&mut self, Chosen { member, trial, .. }: &mut Chosen) -> Came {
        let service = &self.shared.service;
        let Some(mut sending) = member.send(service.name(), 0) else {
            return Came::Failed(Failed::Gone("it is gone".to_owned()));
        };
        let now = Instant::now();
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        self.allowed = self.request.allowance;
        self.cancelled.fill(false);
        self.before = self.request.made_tokens();
        let body = self.ask(left_ms);
        let (down, words) = mpsc::channel(WORDS);
        let mut stopped = self.shared.service.stop.subscribe();
        let control = Arc::clone(&self.control);
        let answer = tokio::select! {
            answer = sending.way.post(protocol::GENERATE, body, Some(words)) => answer,
            () = left_by(&control) => return Came::Left,
            () = until(self.deadline) => {
                trial.late();
                return Came::Refused(Refusal::Deadline);
            }
            // It has the request, which may be what keeps it.
            () = sleep(HEAD) => return Came::Failed(Failed::Broken(no_head())),
            _ = stopped.wait_for(|stop| *stop) => return Came::Refused(shutting_down()),
        };
        let response = match answer {
            Ok(response) => response,
            Err(Unanswered::Unsent(why)) => return Came::Failed(Failed::NotTaken(why)),
            Err(Unanswered::Cut(why)) => return Came::Failed(Failed::Broken(why)),
        };
        if response.status() != StatusCode::OK {
            return refused(response).await;
        }
        self.follow(Lines::new(response.into_body(), TOLD_BYTES_MAX), &down, trial).await
    }

    /// Reads what a node makes, and tells it what it has to know.
    async fn follow(
        &mut self,
        mut lines: Lines<Incoming>,
        down: &mpsc::Sender<Bytes>,
        trial: &mut Trial,
    ) -> Came {
        let control = Arc::clone(&self.control);
        let mut stopped = self.shared.service.stop.subscribe();
        let mut leaving: Option<Instant> = None;
        loop {
            tokio::select! {
                line = lines.next() => {
                    let came = match line {
                        Ok(Some(line)) => self.take(&line),
                        Ok(None) => Err("it ended without a last word".to_owned()),
                        Err(broken) => Err(broken.to_string()),
                    };
                    match came {
                        Ok(None) => {
                            trial.answers();
                            self.say(down);
                        }
                        Ok(Some(came)) => return came,
                        Err(_) if leaving.is_some() => return Came::Left,
                        Err(why) => return Came::Failed(Failed::Broken(why)),
                    }
                }
                () = control.woken.notified() => {
                    if control.wishes.is_cancelled() {
                        word(down, Say::Stop);
                        leaving.get_or_insert(Instant::now() + LAST_WORD);
                    } else {
                        self.say(down);
                    }
                }
                () = until(leaving) => return Came::Left,
                () = until(self.deadline) => {
                    trial.late();
                    return Came::Refused(Refusal::Deadline);
                }
                _ = stopped.wait_for(|stop| *stop) => return Came::Refused(shutting_down()),
            }
        }
    }

    /// Tells the node what it does not know yet: what is paid for, and what nobody wants.
    fn say(&mut self, down: &mpsc::Sender<Bytes>) {
        if self.allowed < self.request.allowance && word(down, Say::Allow(self.request.allowance)) {
            self.allowed = self.request.allowance;
        }
        for (choice, told) in (0..).zip(&mut self.cancelled) {
            if !*told && self.control.wishes.cancels(choice) {
                *told = word(down, Say::Cancel(choice));
            }
        }
    }

    /// The request as it stands, as a line.
    fn ask(&self, deadline_ms: Option<u64>) -> Vec<u8> {
        let mut ask =
            Ask::new(self.shared.service.name(), &self.request, self.plan.clone(), deadline_ms);
        if ask.made.iter().all(|(tokens, ended)| tokens.is_empty() && !ended) {
            ask.made.clear();
        }
        if self.has_scores() {
            ask.prompt_logprobs = None;
        }
        let mut body = Vec::new();
        protocol::line(&ask, &mut body);
        body
    }
}

/// Says a word; `false`: there is no room for it now.
fn word(down: &mpsc::Sender<Bytes>, say: Say) -> bool {
    let mut line = Vec::new();
    protocol::line(&say, &mut line);
    down.try_send(line.into()).is_ok()
}

fn no_head() -> String {
    format!("it has not begun to answer within {} s", HEAD.as_secs())
}

/// Ready when the reader has left.
async fn left_by(control: &Control) {
    while !control.wishes.is_cancelled() {
        control.woken.notified().await;
    }
}

/// What a node says that does not take a request.
async fn refused(response: hyper::Response<Incoming>) -> Came {
    match refusal(response).await {
        None => Came::Full,
        Some(failed) => Came::Failed(failed),
    }
}

/// Why a node does not take a request; `None`: it has no room.
pub(super) async fn refusal(response: hyper::Response<Incoming>) -> Option<Failed> {
    let status = response.status();
    let body = Limited::new(response.into_body(), REASON_BYTES_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
    let why = format!("it answers {status}: {}", text.unwrap_or_default());
    match status {
        StatusCode::TOO_MANY_REQUESTS => None,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Some(Failed::Unfit(why)),
        // The model has left it since it was chosen.
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Some(Failed::Gone(why)),
        _ => Some(Failed::NotTaken(why)),
    }
}
