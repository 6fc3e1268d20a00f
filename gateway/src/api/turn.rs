//! The targets of a request in their order: who is asked, what becomes of it when one fails, and
//! who is asked beside one that takes long. The first that answers has the caller; what the others
//! do ends at that moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use govern::{Ask, Governor, Rule};
use tokio::time::sleep;
use wire::ErrorKind;

use super::bill::{self, Bill, Further};
use super::envelope::Caller;
use super::error::{Failure, is_too_long};
use super::forward::Inbound;
use super::generate::{self, Chosen};
use super::relay::Rescue;
use super::surface::Surface;
use super::{App, relay};
use crate::metrics::Retry;
use crate::route::{Open, Pool, Seat, Target};
use crate::upstream::{About, Trouble};

/// A request and those who may answer it.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) caller: &'a Caller,
    pub(super) inbound: &'a Inbound,
    pub(super) pool: &'a Arc<Pool>,
    /// Somebody reads the answer.
    pub(super) is_read: bool,
}

/// What an attempt is to the ones before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// They have all come to nothing.
    Alone,
    /// One of them is still waited for.
    Beside,
}

/// Nobody has answered.
#[derive(Default)]
pub(super) struct Unanswered {
    /// What the last one said; `None`: nobody could be asked.
    pub(super) failure: Option<Failure>,
    /// Somebody could have, and was not well, busy or wrongly set up: the request is not at fault.
    pub(super) ill: bool,
}

/// What came of those that were asked.
#[derive(Default)]
struct Tries {
    begun: u32,
    /// Of these, those that could not be asked this at all: no tries.
    unfit: u32,
    /// Somebody has found the request at fault: nobody else is asked.
    refused: bool,
    /// The model of this process that reads most, and its context, of those that were too short for
    /// a request which may be cut: it was left to others.
    short: Option<(usize, Arc<Target>)>,
}

impl Tries {
    /// Who is left where nobody has answered and the last one said this.
    fn short_of(&mut self, last: &Unanswered) -> Option<Arc<Target>> {
        let at_fault = self.refused && !last.failure.as_ref().is_some_and(is_too_long);
        self.short.take().map(|(_, target)| target).filter(|_| !at_fault)
    }

    /// One has come to nothing; `last`: what the caller is told where nobody answers.
    fn failed(&mut self, asked: bool, trouble: Trouble, last: &mut Unanswered) {
        let Trouble { failure, about } = trouble;
        match about {
            // Its turn comes when it is alone.
            _ if !asked => {
                self.begun -= 1;
                last.failure.get_or_insert(failure);
            }
            // Whoever is asked beside it may still answer.
            About::Request => {
                self.refused = true;
                *last = Unanswered { failure: Some(failure), ill: false };
            }
            About::Unfit => {
                self.unfit += 1;
                // Who could have answered says more than who could not be asked.
                last.failure.get_or_insert(failure);
            }
            _ if self.refused => {}
            _ => *last = Unanswered { failure: Some(failure), ill: true },
        }
    }
}

/// An attempt that is over.
struct Attempted {
    target: Arc<Target>,
    bills: Vec<Bill>,
    /// Company that must not or cannot be asked beside somebody is not: it may be later, alone.
    asked: bool,
    /// Somebody else could be asked behind it.
    replaceable: bool,
    result: Result<Response, Trouble>,
}

/// The bills of attempts; the last one has the highest number.
#[derive(Default)]
pub(super) struct Bills(Mutex<Vec<Bill>>);

/// What was paid for before an attempt.
pub(super) enum Before<'a> {
    /// It is the first of its operation.
    Nothing,
    /// One that has come to nothing.
    Attempt(Bill),
    /// Those of the same turn, and the last of them when this one began, if all had come to
    /// nothing. Company may have come since.
    Turn(&'a Bills, Option<Bill>),
}

impl Before<'_> {
    /// Has an attempt judged and paid for.
    pub(super) async fn pay(
        self,
        app: &App,
        caller: &Caller,
        ask: impl FnOnce() -> Ask,
    ) -> Result<Option<Bill>, Failure> {
        match self {
            Self::Nothing => bill::admit(app, caller, ask).await,
            Self::Attempt(before) => {
                bill::further(app, caller, || (before, Governor::again as Further), ask).await
            }
            Self::Turn(bills, before) => {
                let bill = match bills.last() {
                    None => bill::admit(app, caller, ask).await?,
                    Some(last) => {
                        let next = || bills.next(last, before.as_ref());
                        bill::further(app, caller, next, ask).await?
                    }
                };
                bills.note(bill.as_ref());
                Ok(bill)
            }
        }
    }
}

impl Bills {
    fn last(&self) -> Option<Bill> {
        self.all().last().cloned()
    }

    /// The attempt that the next one follows, and how: it ends the last one only where that had
    /// come to nothing before it began. `known` was the last one a moment ago.
    fn next(&self, known: Bill, before: Option<&Bill>) -> (Bill, Further) {
        let last = self.last().unwrap_or(known);
        if before.is_some_and(|before| before.is(&last)) {
            return (last, Governor::again);
        }
        // Company has come behind it: nobody goes on with its money.
        before.into_iter().for_each(Bill::lost);
        (last, Governor::beside)
    }

    pub(super) fn note(&self, bill: Option<&Bill>) {
        self.all().extend(bill.cloned());
    }

    /// Whoever did not answer has made nothing that anybody has read.
    fn lost(self, winner: &[Bill]) {
        let all = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|bill| !winner.iter().any(|own| own.is(bill))).for_each(Bill::lost);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Bill>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Turn<'a> {
    /// Asks them until one answers: its answer, who it is, and how many were asked; else what the
    /// last one said, if anybody could be asked at all.
    pub(super) async fn ask(
        self,
        order: &'a [Arc<Target>],
    ) -> Result<(Response, Arc<Target>, u32), Unanswered> {
        let (bills, mut tries) = (Bills::default(), Tries::default());
        let mut result = self.rounds(order, &bills, &mut tries).await;
        if let Err(last) = &mut result
            && let Some(target) = tries.short_of(last)
        {
            // Nobody reads all of it: who reads most may cut it.
            let manner = (Manner::Alone, false, false);
            let cut = Box::pin(self.attempt(&target, &bills, manner)).await;
            match cut.result {
                Ok(response) => result = Ok(((response, cut.bills, target), tries.begun + 1)),
                Err(trouble) => tries.failed(true, trouble, last),
            }
        }
        bills.lost(result.as_ref().map_or(&[], |((_, own, _), _)| own));
        result.map(|((response, _, target), count)| (response, target, count))
    }

    async fn rounds<'b>(
        self,
        order: &'b [Arc<Target>],
        bills: &'b Bills,
        tries: &mut Tries,
    ) -> Result<((Response, Vec<Bill>, Arc<Target>), u32), Unanswered>
    where
        'a: 'b,
    {
        let mut last = Unanswered::default();
        let mut running = FuturesUnordered::new();
        running.extend(self.begin(order, (bills, Manner::Alone), tries));
        let mut patience = self.pool.hedge_after.map(|after| Box::pin(sleep(after)));
        loop {
            let late = OptionFuture::from(patience.as_mut().filter(|_| running.len() == 1));
            tokio::select! {
                Some(()) = late => {
                    patience = None;
                    running.extend(self.begin(order, (bills, Manner::Beside), tries));
                }
                over = running.next() => {
                    let Some(over) = over else { return Err(last) };
                    let Attempted { target, bills: own, asked, replaceable, result } = over;
                    let trouble = match result {
                        Ok(response) => return Ok(((response, own, target), tries.begun)),
                        Err(trouble) => trouble,
                    };
                    let (why, about) = (&trouble.failure.error.message, &trouble.about);
                    let name = &target.name;
                    tracing::info!(pool_target = name, asked, ?about, why, "an attempt failed");
                    let unfit = asked && trouble.about == About::Unfit;
                    if replaceable && self.inbound.glance.truncates && is_too_long(&trouble.failure)
                    {
                        let known = tries.short.as_ref().map(|(most, _)| *most);
                        if let Some(context) = self.context(&target).filter(|n| Some(*n) > known) {
                            tries.short = Some((context, target));
                        }
                    }
                    tries.failed(asked, trouble, &mut last);
                    let alone = running.is_empty();
                    if alone || unfit {
                        let manner = if alone { Manner::Alone } else { Manner::Beside };
                        running.extend(self.begin(order, (bills, manner), tries));
                    }
                }
            }
        }
    }

    /// Tokens that a model reads which can cut the request: one of this process, in Responses.
    fn context(self, target: &Target) -> Option<usize> {
        let Seat::Local(model) = &target.seat else { return None };
        let cuts = matches!(self.inbound.surface, Surface::Responses);
        self.app.models.get(model).filter(|_| cuts).map(|model| model.context)
    }

    /// Begins with the next one; `None`: none is left, or there were tries enough.
    fn begin<'b>(
        self,
        order: &'b [Arc<Target>],
        (bills, manner): (&'b Bills, Manner),
        tries: &mut Tries,
    ) -> Option<BoxFuture<'b, Attempted>>
    where
        'a: 'b,
    {
        let at = usize::try_from(tries.begun).ok()?;
        let target = order.get(at)?;
        let kind = match manner {
            Manner::Alone => Retry::Again,
            Manner::Beside => Retry::Hedge,
        };
        let before = tries.begun - tries.unfit;
        if tries.refused || before >= self.pool.attempts || (before > 0 && !self.pool.retry(kind)) {
            return None;
        }
        tries.begun += 1;
        // Who cuts is decided when all have been asked for all of it.
        let is_last = at + 1 == order.len() && manner == Manner::Alone;
        let replaceable = !is_last || tries.short.is_some();
        let sole = order.len() == 1;
        Some(Box::pin(self.attempt(target, bills, (manner, replaceable, sole))))
    }

    /// Asks somebody whose answer nobody waits for.
    pub(super) async fn copy(self, target: &Arc<Target>) -> Result<Response, Trouble> {
        let bills = Bills::default();
        let attempted = self.attempt(target, &bills, (Manner::Alone, false, true)).await;
        bills.lost(&attempted.bills);
        attempted.result
    }

    /// Asks one.
    async fn attempt(
        self,
        target: &Arc<Target>,
        bills: &Bills,
        (manner, replaceable, sole): (Manner, bool, bool),
    ) -> Attempted {
        let armed = target.arm.as_ref().map(|_| self.caller.clone().of_arm(target));
        let turn = Turn { caller: armed.as_ref().unwrap_or(self.caller), ..self };
        let Turn { app, caller, inbound, .. } = turn;
        let mut open = target.health.begin(Instant::now()).sole(sole);
        let (mut own, mut asked) = (Vec::new(), true);
        // Now, while nobody else is asked.
        let before = bills.last().filter(|_| manner == Manner::Alone);
        let result = match &target.seat {
            Seat::Local(model) => {
                let paid = Mutex::default();
                let what = (&inbound.surface, &inbound.body);
                let beside = manner == Manner::Beside;
                let before = (bills, before);
                let hedges = sole && self.pool.attempts > 1;
                let hedge = self.pool.hedge_after.filter(|_| hedges).map(|t| (t, self.pool));
                let chosen = Chosen { model, replaceable, beside, before, paid: &paid, hedge };
                let answer = Box::pin(generate::local(app, caller, what, Some(chosen))).await;
                let result = answer.map_err(of_local);
                own = paid.into_inner().unwrap_or_else(PoisonError::into_inner);
                let may = |about| !matches!(about, About::Request | About::Unfit);
                asked = manner == Manner::Alone
                    || result.as_ref().map_or_else(|t| may(t.about), |_| true);
                seen(&mut open, inbound.glance.stream, &result);
                result
            }
            Seat::Provider(provider, model) => match turn.pay(target, bills, before).await {
                Err(trouble) => {
                    asked = manner == Manner::Alone;
                    Err(trouble)
                }
                Ok(paid) => {
                    own.extend(paid.clone());
                    let rescue = Rescue::of(&turn);
                    let whom = relay::Asked { provider, model, bill: paid, rescue, alone: sole };
                    let answer = relay::ask(app, caller, inbound, whom, open).await;
                    if answer.is_err() {
                        own.iter().for_each(Bill::came_to_nothing);
                    }
                    answer
                }
            },
        };
        if result.is_err() && !own.is_empty() {
            // The next one goes on with the last of them; the others' money is free.
            own[..own.len() - 1].iter().for_each(Bill::lost);
        }
        Attempted { target: Arc::clone(target), bills: own, asked, replaceable, result }
    }

    /// Has an attempt at a provider judged and paid for.
    async fn pay(
        self,
        target: &Target,
        bills: &Bills,
        before: Option<Bill>,
    ) -> Result<Option<Bill>, Trouble> {
        let Self { app, caller, inbound, .. } = self;
        let Seat::Provider(provider, _) = &target.seat else { return Ok(None) };
        let ask = || {
            let ask = inbound.ask(Some((&target.name, &provider.name)));
            Ask { input_tokens: inbound.input_estimate(caller), ..ask }
        };
        Before::Turn(bills, before).pay(app, caller, ask).await.map_err(of_denial)
    }
}

/// What an attempt here says of the target.
pub(super) fn seen<T>(open: &mut Open, stream: bool, result: &Result<T, Trouble>) {
    let now = Instant::now();
    match result {
        Ok(_) => {
            // Its first token is there.
            if stream {
                open.answered(now);
            }
            open.ended(now);
        }
        Err(Trouble { about: About::Ill, .. }) => open.failed(now),
        Err(Trouble { about: About::Busy(seconds), .. }) => open.busy(now, *seconds),
        Err(_) => {}
    }
}

/// What a refusal of the governor says: the next one may cost less, or nothing.
fn of_denial(failure: Failure) -> Trouble {
    let code = failure.error.code.as_deref().unwrap_or_default();
    let other = [Rule::Budget, Rule::Price, Rule::Provider].map(Rule::name).contains(&code);
    Trouble { failure, about: if other { About::Unfit } else { About::Request } }
}

/// What a model of this process has no words for, or no room: others may.
const BEYOND: [&str; 6] = [
    "context_length_exceeded",
    "images_not_supported",
    "unknown_parameter",
    "unsupported_parameter",
    "unsupported_value",
    "wrong_endpoint",
];

/// What a failure of our own engine says.
pub(super) fn of_local(failure: Failure) -> Trouble {
    let code = failure.error.code.as_deref().unwrap_or_default();
    let about = match (failure.error.kind, code) {
        // Full: the next one may have room, and this one is not ill.
        (ErrorKind::Overloaded, "overloaded") => About::Busy(Some(0)),
        (ErrorKind::Unavailable, "unavailable") | (ErrorKind::Internal, _) => About::Ill,
        (ErrorKind::Invalid, code) if BEYOND.contains(&code) => About::Unfit,
        _ => return of_denial(failure),
    };
    Trouble { failure, about }
}
