//! What people are told, in words and as JSON. Its id is made of what it is about: the same
//! thing seen twice, by two gateways or before and after a restart, is one alert.

use jiff::{Timestamp, tz::TimeZone};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::audit::{Broken, day};
use crate::budget::window::{self, Period};
use crate::directory::Directory;
use crate::entity::Budget;
use crate::{Millis, Money, Scope};

/// How long an alert is remembered after what it is about is over: no restart tells it again.
const REMEMBERED_MS: Millis = 8 * 24 * 3_600_000;

/// Something that people have to hear of.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Tells it from all others; whoever gets an id twice knows it already.
    pub id: String,
    /// What it is: `budget_share`, `budget_soft_limit`, `budget_hard_limit`, `audit_broken`,
    /// `database_away`.
    pub kind: &'static str,
    /// When it was seen; milliseconds since 1970.
    pub at: Millis,
    /// From when its id may be forgotten; milliseconds since 1970.
    pub forget_at: Millis,
    /// One line.
    pub title: String,
    /// Some lines.
    pub text: String,
    /// The same for programs, with all of the above but the last time.
    pub body: Value,
}

/// A budget's limit that spending has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached<'a> {
    /// The budget.
    pub budget: &'a Budget,
    /// Which of its limits.
    pub limit: usize,
    /// The share that was reached, in percent. From 100 on it is the limit itself.
    pub percent: u8,
    /// What it allows now, raises among it.
    pub allowed: Money,
    /// What is spent.
    pub spent: Money,
    /// What requests that run hold beside it; `None`: nobody looked.
    pub held: Option<Money>,
    /// When its window ends; `None`: it does not.
    pub resets_at: Option<Millis>,
}

impl Reached<'_> {
    /// The alert's id: the same share of the same amount in the same window is one alert.
    #[must_use]
    pub fn id(&self) -> String {
        let Self { budget, limit, percent, allowed, resets_at, .. } = self;
        let resets_at = resets_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let period = self.period().name();
        named(&format!("budget {} {limit} {period} {resets_at} {percent} {}", budget.id, allowed.0))
    }

    fn period(&self) -> Period {
        self.budget.limits.get(self.limit).map_or(Period::Total, |limit| limit.period)
    }

    fn is_soft(&self) -> bool {
        self.budget.limits.get(self.limit).is_some_and(|limit| limit.soft)
    }

    fn kind(&self) -> &'static str {
        match (self.percent, self.is_soft()) {
            (..100, _) => "budget_share",
            (_, true) => "budget_soft_limit",
            (_, false) => "budget_hard_limit",
        }
    }

    /// What it says. `scope` is the name of whose spending it is, where there is one.
    #[must_use]
    pub fn notice(&self, gateway: &str, scope: Option<&str>, now: Millis) -> Notice {
        let Self { budget, percent, allowed, spent, held, resets_at, .. } = self;
        let period = self.period();
        let zone_name = budget.time_zone.as_deref().unwrap_or("UTC");
        let zone = window::zone(zone_name).unwrap_or(TimeZone::UTC);
        let of_limit = i128::from(spent.0) * 100 / i128::from(allowed.0.max(1));
        let stretch = match period {
            Period::Day => "today",
            Period::Week => "this week",
            Period::Month => "this month",
            Period::Total => "in all",
        };
        let name = one_line(&budget.name);
        let money = format!("{spent} of {allowed} is spent {stretch}");
        let title = match self.kind() {
            "budget_share" => format!("Budget {name}: {percent} % reached, {money}"),
            "budget_soft_limit" => format!("Budget {name} is over its soft limit: {money}"),
            _ => format!("Budget {name} is used up: {money}"),
        };
        let scope = match scope {
            Some(scope) => format!("{} ({})", one_line(scope), budget.scope),
            None => budget.scope.to_string(),
        };
        let begun = period.start(resets_at.map_or(now, |end| end - 1), &zone);
        let window = match resets_at {
            Some(_) => format!("{}, from {}", period.name(), local(begun, &zone, zone_name)),
            None => period.name().to_owned(),
        };
        let resets = resets_at.map_or("never".to_owned(), |at| local(at, &zone, zone_name));
        let held = held.filter(|held| *held > Money::ZERO);
        let running = held.map(|held| format!("Held:    {held} by requests that run\n"));
        let means = match (self.kind(), resets_at) {
            ("budget_hard_limit", Some(_)) => "Requests it pays for are refused until it resets.",
            ("budget_hard_limit", None) => "Requests it pays for are refused.",
            ("budget_soft_limit", _) => "The limit is soft: requests go on.",
            _ => "Requests go on.",
        };
        let text = format!(
            "Budget:  {name}\nScope:   {scope}\nModels:  {}\nWindow:  {window}\n\
             Spent:   {spent} of {allowed} ({of_limit} %)\n{}Resets:  {resets}\n\n\
             {means} Seen by gateway {gateway}.\n",
            budget.model.as_deref().map_or("all".to_owned(), one_line),
            running.unwrap_or_default(),
        );
        let about = json!({
            "id": budget.id, "name": budget.name, "organisation": budget.organisation,
            "scope": budget.scope, "model": budget.model, "window": period.name(),
            "window_start": (period != Period::Total).then(|| rfc3339(begun)),
            "resets_at": resets_at.map(rfc3339), "time_zone": zone_name,
            "soft": self.is_soft(), "threshold_percent": percent,
            "percent": i64::try_from(of_limit).unwrap_or(i64::MAX),
            "spent_usd": usd(*spent), "limit_usd": usd(*allowed), "held_usd": held.map(usd),
        });
        let over = resets_at.map_or(Millis::MAX, |end| end.saturating_add(REMEMBERED_MS));
        Parts { gateway, kind: self.kind(), now, forget_at: over, title, text }.notice(
            self.id(),
            "budget",
            about,
        )
    }
}

/// What every alert has.
struct Parts<'a> {
    gateway: &'a str,
    kind: &'static str,
    now: Millis,
    forget_at: Millis,
    title: String,
    text: String,
}

impl Parts<'_> {
    fn notice(self, id: String, about: &str, details: Value) -> Notice {
        let Self { gateway, kind, now: at, forget_at, title, text } = self;
        let mut body = json!({
            "id": id, "kind": kind, "at": rfc3339(at), "gateway": gateway,
            "title": title, "text": text,
        });
        body[about] = details;
        Notice { id, kind, at, forget_at, title, text, body }
    }
}

impl Notice {
    /// A chain of the audit is not whole. Told once a day for each record where it breaks.
    #[must_use]
    pub fn broken(broken: &Broken, gateway: &str, now: Millis) -> Self {
        let Broken { chain, number, why } = broken;
        let why = why.to_string();
        let id = named(&format!("audit {chain} {number} {why} {}", day(now)));
        let title = format!("The audit chain {} is broken at record {number}", one_line(chain));
        let text = format!(
            "Chain:   {}\nRecord:  {number}\nTrouble: {why}\n\nSomebody altered, dropped, inserted \
             or moved records of the audit, or the database did. Compare with an export or a \
             backup. Seen by gateway {gateway}.\n",
            one_line(chain)
        );
        let forget_at = now.saturating_add(REMEMBERED_MS);
        Parts { gateway, kind: "audit_broken", now, forget_at, title, text }.notice(
            id,
            "audit",
            json!({ "chain": chain, "number": number, "why": why }),
        )
    }

    /// The database has not answered since then.
    #[must_use]
    pub fn away(since: Millis, gateway: &str, now: Millis) -> Self {
        let seconds = now.saturating_sub(since).max(0) / 1000;
        let title = format!("The database has not answered for {seconds} seconds");
        let text = format!(
            "Gateway: {gateway}\nSince:   {}\n\nKnown keys go on within their budgets; what ends \
             is kept in the journal until the database is back.\n",
            rfc3339(since)
        );
        let forget_at = now.saturating_add(REMEMBERED_MS);
        Parts { gateway, kind: "database_away", now, forget_at, title, text }.notice(
            named(&format!("database {gateway} {since}")),
            "database",
            json!({ "since": rfc3339(since) }),
        )
    }
}

fn named(about: &str) -> String {
    let hash = hex::encode(digest(&SHA256, about.as_bytes()));
    format!("alert_{}", &hash[..24])
}

/// A name as a line has it: whoever named a budget must not write further lines of a mail.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn rfc3339(at: Millis) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |time| time.to_string())
}

/// `2026-12-01 00:00 Europe/Berlin`
fn local(at: Millis, zone: &TimeZone, name: &str) -> String {
    match Timestamp::from_millisecond(at) {
        Ok(time) => {
            format!("{} {name}", time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M"))
        }
        Err(_) => at.to_string(),
    }
}

/// Dollars without the sign, exactly.
fn usd(money: Money) -> String {
    money.to_string().replace('$', "")
}

/// The name for people of whose spending a budget bounds.
pub(crate) fn scope_name(directory: &Directory, budget: &Budget) -> Option<String> {
    match &budget.scope {
        Scope::Everything => None,
        Scope::Organisation(id) => directory.organisation(id).map(|found| found.name.clone()),
        Scope::Team(id) => directory.team(id).map(|found| found.name.clone()),
        Scope::Project(id) => directory.project(id).map(|found| found.name.clone()),
        Scope::User(id) => directory.user(id).map(|found| found.email.clone()),
        Scope::Key(id) => directory.key(id).map(|found| found.label.clone()),
    }
}
