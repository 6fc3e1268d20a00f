//! One request on its way over nodes: a task that sends it to one, reads what comes back, and
//! sends it to another with all that was made so far when that one is lost. Its reader sees one
//! stream, without a gap and without a repeat; who pays hears of each token once.
//!
//! Nothing is kept of a node's that the next one would need: the draw at a position depends on the
//! seed and the position, and a place in a grammar on the tokens before it.

mod events;
mod telling;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use scheduler::types::{Event, Made, Refusal, Request, RequestId, Usage};
use text::grammar::Plan;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep_until;

use super::choose::Verdict;
use super::protocol::{self, Ask, Say};
use super::remote::Shared;
use super::service::{Chosen, NODE_WAIT, shutting_down, until};
use super::trial::Trial;
use super::tries::{Failed, Tries};
use crate::backend::Hedge;
use crate::backend::meter::Metered;
use crate::backend::reading::{Reading, Wishes};
use telling::{Company, Telling, speaks};

/// How long a node may take to say what a request has used that nobody wants any more.
const LAST_WORD: Duration = Duration::from_secs(1);
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
    /// When another node is asked beside one that is late with the first of it.
    hedge: Option<Hedge>,
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

impl Came {
    /// Says how well the node does, where it says that.
    fn tell(&self, trial: &mut Trial) {
        if let Self::Failed(failed) = self {
            failed.tell(trial);
        }
    }
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
            hedge: None,
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

    /// Another node is asked beside one that is late.
    pub(super) fn hedged(self, hedge: Option<Hedge>) -> Self {
        Self { hedge, ..self }
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
            let came = self.attempt(&mut chosen).await;
            let node = Arc::clone(&chosen.member);
            let failed = match came {
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
            let (model, id, why) = (&*self.shared.service.model, self.request.id.0, failed.why());
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

    /// Sends it to a node and reads what comes. Whoever is asked beside that one and says something
    /// sooner takes its place.
    async fn attempt(&mut self, chosen: &mut Chosen) -> Came {
        self.allowed = self.request.allowance;
        self.cancelled.fill(false);
        self.before = self.request.made_tokens();
        let Some(mut told) = self.send(chosen) else {
            return Came::Failed(Failed::Gone("it is gone".to_owned()));
        };
        let control = Arc::clone(&self.control);
        let mut stopped = self.shared.service.stop.subscribe();
        let mut patience = self.hedge.as_ref().map(|hedge| Instant::now() + hedge.after);
        let (mut company, mut leaving) = (None::<Company>, None::<Instant>);
        loop {
            tokio::select! {
                line = told.next() => {
                    let came = match line {
                        Err(came) => Some(came),
                        Ok(line) => self.take(&line).unwrap_or_else(|why| Some(broken(why))),
                    };
                    match (came, company.take()) {
                        (None, _) => {
                            patience = None;
                            chosen.trial.answers();
                            self.say(&told.words);
                        }
                        (Some(came @ (Came::Failed(_) | Came::Full)), Some(other)) => {
                            came.tell(&mut chosen.trial);
                            (*chosen, told) = other;
                        }
                        (Some(Came::Failed(_)), None) if leaving.is_some() => return Came::Left,
                        (Some(came), _) => return came,
                    }
                }
                said = speaks(&mut company) => match (said, company.take()) {
                    (Ok(()), Some(other)) => (*chosen, told) = other,
                    (Err(came), Some((mut other, _))) => came.tell(&mut other.trial),
                    (_, None) => {}
                },
                () = at(patience) => {
                    patience = None;
                    company = self.company(chosen);
                }
                () = control.woken.notified() => {
                    if control.wishes.is_cancelled() {
                        word(&told.words, Say::Stop);
                        (patience, company) = (None, None);
                        leaving.get_or_insert(Instant::now() + LAST_WORD);
                    } else {
                        self.say(&told.words);
                    }
                }
                () = until(leaving) => return Came::Left,
                () = until(self.deadline) => {
                    chosen.trial.late();
                    return Came::Refused(Refusal::Deadline);
                }
                _ = stopped.wait_for(|stop| *stop) => return Came::Refused(shutting_down()),
            }
        }
    }

    /// Sends it to a node; `None`: that has gone.
    fn send(&self, chosen: &Chosen) -> Option<Telling> {
        let sending = chosen.member.send(self.shared.service.name(), 0)?;
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        Some(Telling::new(sending, self.ask(left_ms)))
    }

    /// Another node that may be asked beside this one, and would begin soon.
    fn company(&mut self, chosen: &Chosen) -> Option<Company> {
        let hedge = self.hedge.take()?;
        let (chain, prompt) = (&self.chain, self.request.prompt.len());
        let other = self.shared.choose(chain, prompt, &[chosen.member.number]).ok()?;
        let wait = Duration::from_micros(other.finding.wait_us);
        let may = other.finding.verdict == Verdict::May && wait < hedge.after && (hedge.may)();
        let told = may.then(|| self.send(&other)).flatten()?;
        // Whichever goes on is to hear of them.
        self.cancelled.fill(false);
        let (model, id) = (&*self.shared.service.model, self.request.id.0);
        tracing::info!(model, id, node = %other.member.endpoint, "another node is asked beside");
        Some((other, told))
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

fn broken(why: String) -> Came {
    Came::Failed(Failed::Broken(why))
}

/// Ready at this time; never, where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}

/// Ready when the reader has left.
async fn left_by(control: &Control) {
    while !control.wishes.is_cancelled() {
        control.woken.notified().await;
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
