//! Rates that several gateways share: the counters of all of them, in one Redis or Valkey. One call
//! of a script decides about a request, by that server's clock; what was really used, and that a
//! request has ended, follows behind its answer.
//!
//! Each gateway counts for itself as well, and lets nothing in that its own count refuses. So while
//! the server is slow or away, or has lost what it held, a gateway alone keeps the rate, and what
//! all of them let in together is bounded by the rate times their number.

mod ends;
pub(crate) mod link;
mod place;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Client, IntoConnectionInfo, Script, ScriptInvocation};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::gcra::Gcra;
use super::table::Refusal;
use super::{RateRule, Standing, tighter};
use crate::governor::Clock;
use crate::id;
use crate::secret::Secret;
use ends::{End, Running};
use link::Link;
use place::{Cost, Places};

/// Ends of requests that wait for the server. With more, places free themselves by their expiry,
/// and estimates of tokens stand.
const ENDS_MAX: usize = 8192;

/// Where rates are counted for all gateways.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server. It may hold a password.
    pub url: Secret<String>,
    /// Longest wait of a request for the server's answer.
    pub patience: Duration,
    /// A place among requests that run at once is free when nobody has renewed it for so long.
    pub hold: Duration,
    /// How often a gateway renews its own places.
    pub renew: Duration,
    /// The system's: the server's own time counts. Another: its time, in a test.
    pub clock: Clock,
}

impl Settings {
    /// The usual settings, for the server of this URL: `redis://` or `rediss://`.
    ///
    /// # Errors
    /// What is wrong with it; the URL itself, which may hold a password, is not repeated.
    pub fn new(url: &str) -> Result<Self, String> {
        let plain = ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
        if !plain || url.contains('#') {
            return Err("it has the form redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or \
                        rediss:// for TLS"
                .to_owned());
        }
        url.into_connection_info().map_err(|error| error.to_string())?;
        Ok(Self {
            url: Secret::new(url.to_owned()),
            patience: Duration::from_millis(50),
            hold: Duration::from_secs(30),
            renew: Duration::from_secs(5),
            clock: Clock::System,
        })
    }
}

/// The counters of all gateways. Clones share them.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", if self.is_there() { "there" } else { "away" })
    }
}

struct Inner {
    settings: Settings,
    script: Script,
    link: Arc<Link>,
    running: Arc<Running>,
    ends: mpsc::Sender<End>,
    /// A name of this process that no other has.
    process: String,
    requests: AtomicU64,
    /// They end with this.
    _tasks: JoinSet<()>,
}

/// What the server says.
pub(super) enum Answer {
    /// It counts for all gateways. The tightest rates of requests and of tokens.
    Admitted(Claim, Option<Standing>, Option<Standing>),
    /// The rule of this index says no.
    Refused(usize, Refusal),
    /// Nothing in time.
    Away(Claim),
}

impl Shared {
    /// Looks for the server, once for a moment and then in the background.
    ///
    /// # Errors
    /// The URL cannot be used. That the server is away is none.
    pub async fn start(settings: &Settings) -> Result<Self, String> {
        let client = Client::open(settings.url.expose().as_str());
        let client = client.map_err(|error| error.to_string())?;
        let words = [
            "rates are local: each gateway counts for itself",
            "rates are shared with other gateways",
        ];
        let link = Arc::new(Link::new(client, settings.patience, words));
        if let Err(why) = link.connect().await {
            tracing::warn!(why, "rates are local until their server is there");
        }
        let (sender, ends) = mpsc::channel(ENDS_MAX);
        let (running, script) = (Arc::new(Running::default()), script());
        let process = id::random_letters(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&link).keep());
        tasks.spawn(ends::work(ends, Arc::clone(&link), Arc::clone(&running), settings.clone()));
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            script,
            link,
            running,
            ends: sender,
            process,
            requests: AtomicU64::new(0),
            _tasks: tasks,
        })))
    }

    /// Whether requests are counted for all gateways at the moment.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.link.open().is_some()
    }

    /// Asks whether a request may come in that this gateway itself would let in.
    pub(super) async fn admit(
        &self,
        organisation: &str,
        rules: &[RateRule<'_>],
        tokens: u64,
    ) -> Answer {
        let inner = &self.0;
        let number = inner.requests.fetch_add(1, Ordering::Relaxed);
        let holder = format!("{}:{number}", inner.process);
        let places = Places::of(organisation, rules);
        // From here on, if the caller leaves too: the place is free when this is dropped.
        let shared = self.clone();
        let mut claim = Claim { shared, holder, places, counted: false, tokens, used: tokens };
        let Some(open) = inner.link.open() else { return Answer::Away(claim.begun()) };
        let mut call = inner.script.prepare_invoke();
        call.arg("admit");
        at(&mut call, &inner.settings.clock);
        call.arg(&claim.holder).arg(micros(inner.settings.hold));
        for (rule, place) in rules.iter().zip(&claim.places.0) {
            call.key(&place.rates).key(&place.running);
            for (limit, count) in
                [(rule.rates.requests_per_minute, 1), (rule.rates.tokens_per_minute, tokens)]
            {
                let cost = limit.map_or(Cost::NONE, |limit| Cost::of(count, limit));
                call.arg(cost.us).arg(cost.parts).arg(cost.rate);
            }
            call.arg(rule.rates.concurrent.map_or(-1, i64::from));
        }
        let mut connection = open.connection.clone();
        let asked = call.invoke_async::<Vec<i64>>(&mut connection);
        match inner.link.answer(&open, inner.settings.patience, asked).await.as_deref() {
            Some([1, debts @ ..]) => {
                claim.counted = true;
                let (requests, tokens) = standings(rules, debts);
                Answer::Admitted(claim.begun(), requests, tokens)
            }
            Some(&[0, rule, which, wait_us]) => {
                let Some(refusal) = refusal(rules, tokens, (rule, which, wait_us)) else {
                    return Answer::Away(claim.begun());
                };
                // It counts nowhere, so there is nothing to take back.
                claim.places.0.clear();
                Answer::Refused(refusal.0, refusal.1)
            }
            _ => Answer::Away(claim.begun()),
        }
    }
}

/// What runs on the server.
fn script() -> Script {
    Script::new(include_str!("script.lua"))
}

/// The time by which the script decides.
fn at(call: &mut ScriptInvocation<'_>, clock: &Clock) {
    match clock {
        Clock::System => call.arg(""),
        Clock::Set(_) => call.arg(clock.micros()),
    };
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// What is left of the tightest rates, from the debts in the order of the bounds.
fn standings(rules: &[RateRule<'_>], debts: &[i64]) -> (Option<Standing>, Option<Standing>) {
    let (mut requests, mut tokens) = (None, None);
    let mut debts = debts.chunks_exact(2);
    let mut next = |limit: Option<u32>| {
        let (limit, debt) = limit.zip(limit.and_then(|_| debts.next()))?;
        let left = Gcra::with_debt(limit, debt[0], debt[1]).remaining();
        Some(Standing { limit, remaining: left.remaining, reset_ms: left.reset_ms })
    };
    for rule in rules {
        requests = tighter(requests, next(rule.rates.requests_per_minute));
        tokens = tighter(tokens, next(rule.rates.tokens_per_minute));
    }
    (requests, tokens)
}

/// A refusal in the local counters' words. `None`: the script says what makes no sense.
fn refusal(
    rules: &[RateRule<'_>],
    tokens: u64,
    (rule, which, wait_us): (i64, i64, i64),
) -> Option<(usize, Refusal)> {
    let index = usize::try_from(rule).ok()?.checked_sub(1)?;
    let rates = rules.get(index)?.rates;
    // More than a minute's worth never fits.
    let after_us =
        |count: u64, limit: u32| u64::try_from(wait_us).ok().filter(|_| count <= u64::from(limit));
    let refusal = match which {
        0 => Refusal::Concurrent { limit: rates.concurrent? },
        1 => {
            let limit = rates.requests_per_minute?;
            Refusal::Requests { limit, after_us: after_us(1, limit) }
        }
        _ => {
            let limit = rates.tokens_per_minute?;
            Refusal::Tokens { limit, after_us: after_us(tokens, limit) }
        }
    };
    Some((index, refusal))
}

/// A request's places on the server. They are given back when this is dropped.
pub(super) struct Claim {
    shared: Shared,
    holder: String,
    places: Places,
    /// Whether the server has said that it counts. Else nobody knows, and nothing is corrected.
    counted: bool,
    /// What it counts for in the rates of tokens.
    tokens: u64,
    /// What it has really used.
    used: u64,
}

impl Claim {
    /// From now on its places are renewed.
    fn begun(self) -> Self {
        self.shared.0.running.begin(&self.holder, &self.places);
        self
    }

    /// Another number of tokens than before. The server hears of it at the end.
    pub(super) fn used(&mut self, tokens: u64) {
        self.used = tokens;
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.holder)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Self { shared, holder, places, counted, tokens, used } = self;
        shared.0.running.end(holder);
        let change = if *counted { (*tokens, *used) } else { (0, 0) };
        let end = End::new(std::mem::take(holder), std::mem::take(places), change);
        if let Some(end) = end
            && shared.0.ends.try_send(end).is_err()
        {
            shared.0.running.dropped();
        }
    }
}
