//! Who answers a request: those that may, in the order in which they are asked. A pure function of
//! the request, of what is known of the targets, and of a draw; every word of it can be shown.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::policy::{Label, pattern};
use wire::Dialect;

use super::target::{Needs, Seat, Standing, Target};
use super::{Group, Pool, View};
use crate::config::routing::Strategy;
use crate::digest::mixed;

/// An estimate of tokens may be so many times too long.
const LONG: u64 = 2;

/// What the choice depends on.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// How secret it is.
    pub label: Label,
    /// Tokens of its prompt, counted or estimated.
    pub input: u64,
    /// New tokens that it asks for.
    pub output: Option<u32>,
    /// Its answer is to be a stream.
    pub stream: bool,
    /// Each list has patterns of the providers that may be sent it: one of each has to fit.
    pub providers: Vec<Vec<String>>,
    /// How it came; `None`: in any way.
    pub dialect: Option<Dialect>,
    /// What it needs beside text.
    pub needs: Vec<Needs>,
    /// The caller's notes.
    pub metadata: Vec<(String, String)>,
    /// Who asks, for choices that stay: a number of the end user, or of the key.
    pub who: Option<u64>,
    /// The conversation, where it is known.
    pub session: Option<u64>,
    /// How the prompt begins.
    pub prefix: u64,
    /// A number that nobody knows in advance.
    pub draw: u64,
    /// Somebody wants to know, and nothing is asked: what is seen is not remembered.
    pub looks_only: bool,
}

impl Asked {
    /// The key may not send requests there.
    #[must_use]
    pub fn bars(&self, target: &Target) -> bool {
        let Seat::Provider(provider, _) = &target.seat else { return false };
        let fits =
            |list: &Vec<String>| list.iter().any(|one| pattern::matches(one, &provider.name));
        !self.providers.iter().all(fits)
    }
}

/// Those that may answer, in their order, and why.
pub struct Plan {
    /// Who is asked, one after the other.
    pub order: Vec<Arc<Target>>,
    /// What was found of each candidate, in the order of the configuration.
    pub findings: Vec<Finding>,
    /// Why the first one is the first.
    pub reason: &'static str,
}

/// What was found of one candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The target.
    pub target: String,
    /// What it is to the pool.
    pub group: Group,
    /// Whether it may answer; else why not.
    pub verdict: Verdict,
    /// Its share, against the others' of its pool.
    pub weight: u32,
    /// Requests that it answers now, those that wait there included.
    pub open: u32,
    /// Of these, waiting, and how long a new one would; `None`: it has no queue that is known.
    pub queue: Option<(u64, Duration)>,
    /// Time to its first byte, as predicted.
    pub first_byte: Duration,
    /// How long this caller would wait for anything, as predicted.
    pub wait: Duration,
    /// Nano-dollars that the request would cost there, as far as is known.
    pub cost: Option<u64>,
}

/// Whether a candidate may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    May,
    /// It may, and is asked only to see whether it is well.
    Probe,
    /// The request is more secret than what it may see.
    Label(Label),
    /// The key may not send requests there.
    Barred,
    /// It cannot do what the request needs.
    Without(Needs),
    /// It cannot be asked in this way.
    Silent(Dialect),
    /// A rule of the pool names others.
    Rule,
    /// It is not there, loads, drains or is gone.
    Away,
    /// It has failed.
    Broken(Duration),
    /// It has asked to be left alone.
    Busy(Duration),
    /// The request may be longer than what it can read: it is asked after the others.
    Tight(u64),
    /// It does not take this server's word, and is asked after all others.
    Unwelcome(Duration),
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::May => f.write_str("may answer"),
            Self::Probe => f.write_str("is tried again"),
            Self::Label(label) => write!(f, "may see {} at most", label.name()),
            Self::Barred => f.write_str("is a provider that the key's policies do not allow"),
            Self::Without(needs) => write!(f, "knows no {}", needs.name()),
            Self::Silent(dialect) => write!(f, "does not serve {dialect}"),
            Self::Rule => f.write_str("a rule names others"),
            Self::Away => f.write_str("is not there"),
            Self::Broken(left) => write!(f, "has failed; next try in {} ms", left.as_millis()),
            Self::Busy(left) => write!(f, "asked for a pause of {} ms more", left.as_millis()),
            Self::Tight(tokens) => write!(f, "reads {tokens} tokens, perhaps too few; asked late"),
            Self::Unwelcome(left) => {
                write!(f, "does not serve this server; last for {} ms more", left.as_millis())
            }
        }
    }
}

impl Verdict {
    /// It is among those that are asked.
    #[must_use]
    pub fn may(self) -> bool {
        matches!(self, Self::May | Self::Probe)
    }

    /// It would answer at another time: what keeps it is no rule.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Away | Self::Broken(_) | Self::Busy(_) | Self::Unwelcome(_))
    }
}

/// Plans a request.
pub(super) fn plan(pool: &Pool, asked: &Asked, view: &dyn View, now: Instant) -> Plan {
    let named = pool.rules.iter().find(|rule| rule.holds(asked)).map(|rule| &rule.to);
    let spill = pool.spills(view, (now, asked.looks_only));
    let mut findings = Vec::with_capacity(pool.all.len());
    let mut groups: [Vec<(Arc<Target>, usize)>; 3] = Default::default();
    let (mut silent, mut tight, mut unwelcome) = (Vec::new(), Vec::new(), Vec::new());
    for (group, target) in &pool.all {
        let mut finding = find((*group, target), asked, view, now);
        let named = named.filter(|_| *group == Group::Own);
        if named.is_some_and(|names| !names.contains(&target.name)) {
            finding.verdict = Verdict::Rule;
        }
        match finding.verdict {
            Verdict::May | Verdict::Probe => {
                groups[*group as usize].push((Arc::clone(target), findings.len()));
            }
            Verdict::Silent(_) => silent.push(Arc::clone(target)),
            Verdict::Tight(_) => tight.push(Arc::clone(target)),
            Verdict::Unwelcome(_) => unwelcome.push(Arc::clone(target)),
            _ => {}
        }
        findings.push(finding);
    }
    let [mut own, mut over, mut rest] = groups;
    let mut strategy = order(pool, asked, &mut own, &findings);
    if asked.dialect == Some(Dialect::Completions) {
        // A chat about a text is another thing than the text gone on with.
        let chats = own.first().is_some_and(|(target, _)| !target.completes());
        for group in [&mut own, &mut over, &mut rest] {
            group.sort_by_key(|(target, _)| !target.completes());
        }
        if chats && own.first().is_some_and(|(target, _)| target.completes()) {
            strategy = "completes";
        }
    }
    let strip = |group: Vec<(Arc<Target>, usize)>| group.into_iter().map(|(target, _)| target);
    // Who overflows goes to others first, and comes back if they fail.
    let (reason, mut order): (_, Vec<_>) = if spill && !over.is_empty() {
        ("overflow", strip(over).chain(strip(own)).chain(strip(rest)).collect())
    } else if own.is_empty() {
        ("fallback", strip(over).chain(strip(rest)).collect())
    } else {
        (strategy, strip(own).chain(strip(over)).chain(strip(rest)).collect())
    };
    let reason = if order.is_empty() { "last resort" } else { reason };
    // Where nobody else answers, what these say is the best that a caller can be told.
    order.extend(tight.into_iter().chain(unwelcome));
    if silent.len() == findings.len() {
        // Each would say the same, and says best itself what it could be asked.
        order.extend(silent.into_iter().take(1));
    }
    Plan { order, findings, reason }
}

/// What is known of one candidate.
fn find(
    (group, target): (Group, &Target),
    asked: &Asked,
    view: &dyn View,
    now: Instant,
) -> Finding {
    let local = match &target.seat {
        Seat::Local(model) => Some(view.local(model)),
        Seat::Provider(..) => None,
    };
    let there = local.as_ref().is_none_or(Option::is_some);
    let local = local.flatten();
    let context = target.context.or(local.as_ref().map(|local| local.context));
    let lacking = asked.needs.iter().copied().find(|needs| target.without.contains(needs));
    // Nobody has counted yet. A model of this process does before it refuses, and then the next one
    // is asked: it comes late only where that is most likely.
    let input = if target.is_local() { asked.input / LONG } else { asked.input };
    let long = context.filter(|most| input >= *most);
    let verdict = if asked.label > target.max_label {
        Verdict::Label(target.max_label)
    } else if asked.bars(target) {
        Verdict::Barred
    } else if let Some(dialect) = asked.dialect.filter(|dialect| !target.serves(*dialect)) {
        Verdict::Silent(dialect)
    } else if let Some(needs) = lacking {
        Verdict::Without(needs)
    } else if !there {
        Verdict::Away
    } else {
        match target.health.standing(now) {
            Standing::Well => long.map_or(Verdict::May, Verdict::Tight),
            Standing::Probe => long.map_or(Verdict::Probe, Verdict::Tight),
            Standing::Broken(left) => Verdict::Broken(left),
            Standing::Busy(left) => Verdict::Busy(left),
            Standing::Unwelcome(left) => Verdict::Unwelcome(left),
        }
    };
    let wait = local.as_ref().map_or(Duration::ZERO, |local| local.wait);
    Finding {
        target: target.name.clone(),
        group,
        verdict,
        weight: target.weight,
        queue: local.map(|local| (local.waiting, local.wait)),
        open: local.map_or_else(|| target.health.open(), |local| local.open),
        first_byte: target.health.first_byte() + wait,
        wait: target.health.wait(asked.stream) + wait,
        cost: view.cost(&target.name, asked.input, asked.output),
    }
}

/// Puts a pool's own targets in order.
fn order(
    pool: &Pool,
    asked: &Asked,
    own: &mut [(Arc<Target>, usize)],
    findings: &[Finding],
) -> &'static str {
    let load = |target: &Target, finding: &Finding| {
        f64::from(finding.open + 1) / f64::from(target.weight.max(1))
    };
    if pool.affinity
        && let Some(session) = asked.session
    {
        rendezvous(own, session);
        return "affinity";
    }
    match pool.strategy {
        Strategy::Priority => "priority",
        Strategy::Weighted => {
            rendezvous(own, asked.who.unwrap_or(asked.draw));
            "weighted"
        }
        Strategy::LeastLoaded => {
            // A tie goes by chance, or the first one would have all of a quiet day.
            rendezvous(own, asked.draw);
            sort(own, |target, at| load(target, &findings[at]));
            "least-loaded"
        }
        Strategy::Latency => {
            rendezvous(own, asked.draw);
            // The better of two: the best of all would have everybody at once.
            let two = own.len().min(2);
            sort(&mut own[..two], |target, at| {
                let seconds = findings[at].wait.as_secs_f64().max(1e-6);
                seconds * load(target, &findings[at])
            });
            "latency"
        }
        Strategy::Cost if own.iter().all(|(_, at)| findings[*at].cost.is_none()) => "unpriced",
        Strategy::Cost => {
            sort(own, |_, at| findings[at].cost.map_or(f64::MAX, as_f64));
            "cost"
        }
        Strategy::Prefix => {
            rendezvous(own, asked.prefix);
            // Whoever holds the prompt is worth waiting for, but not twice the others' queue.
            let least = findings.iter().filter(|f| f.verdict.may()).map(|f| f.open).min();
            let most = least.unwrap_or_default().saturating_mul(2).saturating_add(8);
            sort(own, |_, at| f64::from(u8::from(findings[at].open > most)));
            "prefix"
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an order needs no last digit")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Sorts from the least; equal ones stay in their order. None is below zero, and numbers that are
/// not are in the order of their bits.
fn sort(own: &mut [(Arc<Target>, usize)], by: impl Fn(&Target, usize) -> f64) {
    own.sort_by_cached_key(|(target, at)| by(target, *at).to_bits());
}

/// An order that depends on a number alone, in which each is first in proportion to its weight;
/// and that stays for all others when one goes.
fn rendezvous(own: &mut [(Arc<Target>, usize)], number: u64) {
    sort(own, |target, _| {
        let hash = mixed(number ^ target.number);
        // 52 bits, in the middle of their step: never 0 and never 1.
        let share = (as_f64(hash >> 12) + 0.5) / as_f64(1 << 52);
        if target.weight == 0 { f64::MAX } else { -share.ln() / f64::from(target.weight) }
    });
}
