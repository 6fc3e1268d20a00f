//! Budgets: what may be spent, how it stands, and raises for some time.

use std::sync::Arc;

use govern::budget::books::Standing;
use govern::budget::window::Period;
use govern::directory::Directory;
use govern::entity::{Budget, Entity, Limit, Raise};
use govern::policy::pattern;
use govern::role::Permission;
use govern::{Id, Millis, Money, Scope};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::admin::answer::Answer;
use crate::admin::asked::Asked;
use crate::admin::caller::Caller;
use crate::admin::check::{self, given};
use crate::admin::refusal::Refusal;
use crate::admin::resource::{Changeable, Deletable, Filter, Resource, replace, shown, to_do};
use crate::admin::table::Route;

const LIMITS_MAX: usize = 32;
const RAISES_MAX: usize = 16;
const ALERTS_MAX: usize = 16;

/// What a budget is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BudgetNew {
    /// Once in the organisation.
    name: String,
    /// Whose spending it bounds.
    #[schema(value_type = String, example = "team:team_0k3v8w2n5q7r1s4t6x9z")]
    scope: Scope,
    /// Only spending on models of this pattern (`*` any letters, `?` one).
    #[serde(default)]
    model: Option<String>,
    /// Each of them must hold.
    limits: Vec<LimitNew>,
    /// IANA name of the zone that days begin in; the organisation's where nothing is said.
    #[serde(default)]
    time_zone: Option<String>,
}

/// A limit of a budget.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct LimitNew {
    period: Period,
    /// Whole nano-dollars; or say `usd`.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    nano_usd: Option<Value>,
    /// Dollars in a text: `"5.00"`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    usd: Option<Value>,
    /// Spending over it is told and not refused.
    #[serde(default)]
    soft: bool,
    /// Shares of it, in percent, at which an alert is sent.
    #[serde(default)]
    alert_percent: Vec<u8>,
}

/// What of a budget may change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BudgetChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    /// All limits, in the place of the old ones. A limit that keeps its place and its period keeps
    /// its raises.
    #[serde(default, deserialize_with = "given")]
    limits: Option<Vec<LimitNew>>,
    /// `null`: the organisation's.
    #[serde(default, deserialize_with = "given")]
    time_zone: Option<Option<String>>,
}

/// Money on top of a limit for some time.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BudgetRaise {
    /// Which limit, from 0.
    limit: usize,
    /// Whole nano-dollars; or say `usd`.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    nano_usd: Option<Value>,
    /// Dollars in a text: `"5.00"`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    usd: Option<Value>,
    /// Until when; milliseconds since 1970.
    until: Millis,
    /// Why; for the audit.
    reason: String,
}

impl Resource for Budget {
    const PATH: &'static str = "budgets";
    const ONE: &'static str = "budget";
    const READ: Permission = Permission::BudgetsRead;
    const WRITE: Permission = Permission::BudgetsWrite;
    const FILTERS: &'static [Filter<Self>] = &[
        ("name", "Only those of this name.", |_, budget, name| budget.name == name),
        ("organisation", "Only those of this organisation.", |_, budget, id| {
            budget.organisation.as_str() == id
        }),
        ("scope", "Only those of just this scope, such as team:ID.", |_, budget, scope| {
            budget.scope.to_string() == scope
        }),
    ];
    type New = BudgetNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.budgets())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.budget(id)
    }

    fn scope(&self) -> Scope {
        self.scope.clone()
    }

    fn organisation(&self, _directory: &Directory) -> String {
        self.organisation.to_string()
    }

    fn place_of(new: &BudgetNew, _caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(new.scope.clone())
    }

    fn make(new: BudgetNew, caller: &Caller<'_>, place: &Scope) -> Result<Self, Refusal> {
        // A budget over everything has to be somebody's: it is its maker's.
        let organisation = caller.directory.organisation_of(place).unwrap_or(caller.organisation);
        if let Some(model) = &new.model {
            pattern::check(model)
                .map_err(|why| Refusal::invalid("model", format!("model: {why}.")))?;
        }
        checked(Self {
            id: Id::new(Self::KIND, caller.now),
            organisation: organisation.clone(),
            name: new.name,
            scope: new.scope,
            model: new.model,
            limits: limits(&new.limits, &[])?,
            time_zone: new.time_zone,
            created_at: caller.now,
        })
    }

    /// How it stands.
    fn more(&self, asked: &Asked, shown: &mut Value) {
        let standing = asked.governor.books().standing(&self.id, asked.governor.now());
        shown["standing"] = standing_of(self, &standing.unwrap_or_default());
    }
}

impl Changeable for Budget {
    type Change = BudgetChange;

    fn change(&self, change: BudgetChange, _caller: &Caller<'_>) -> Result<Self, Refusal> {
        let mut made = self.clone();
        made.name = change.name.unwrap_or(made.name);
        made.time_zone = change.time_zone.unwrap_or(made.time_zone);
        if let Some(wanted) = &change.limits {
            made.limits = limits(wanted, &self.limits)?;
        }
        checked(made)
    }
}

impl Deletable for Budget {}

fn checked(made: Budget) -> Result<Budget, Refusal> {
    check::name("name", &made.name)?;
    if let Some(zone) = &made.time_zone {
        check::zone("time_zone", zone)?;
    }
    Ok(made)
}

fn limits(wanted: &[LimitNew], old: &[Limit]) -> Result<Vec<Limit>, Refusal> {
    if !(1..=LIMITS_MAX).contains(&wanted.len()) {
        let why = format!("'limits' has 1 to {LIMITS_MAX} entries.");
        return Err(Refusal::invalid("limits", why));
    }
    let limit = |(at, new): (usize, &LimitNew)| {
        let alerts = &new.alert_percent;
        if alerts.len() > ALERTS_MAX || alerts.contains(&0) {
            let why = format!("'alert_percent' has at most {ALERTS_MAX} shares, 1 to 255 percent.");
            return Err(Refusal::invalid(format!("limits[{at}].alert_percent"), why));
        }
        let before = old.get(at).filter(|limit| limit.period == new.period);
        Ok(Limit {
            period: new.period,
            nano_usd: check::amount(
                &format!("limits[{at}]."),
                new.nano_usd.as_ref(),
                new.usd.as_ref(),
            )?,
            soft: new.soft,
            alert_percent: new.alert_percent.clone(),
            raises: before.map(|limit| limit.raises.clone()).unwrap_or_default(),
        })
    };
    wanted.iter().enumerate().map(limit).collect()
}

/// How each limit stands; what is left of a limit that only warns may be nothing.
pub(in crate::admin) fn standing_of(budget: &Budget, standing: &[Standing]) -> Value {
    let each = budget.limits.iter().zip(standing).map(|(limit, standing)| {
        let Standing { window, allowed, spent, held, others, known } = standing;
        let left = allowed.minus(*spent).minus(*held).minus(*others).max(Money::ZERO);
        json!({
            "period": limit.period,
            "soft": limit.soft,
            "window": {
                "start": Some(window.start).filter(|start| *start != Millis::MIN),
                "end": window.end,
            },
            "allowed_nano_usd": allowed,
            "spent_nano_usd": spent,
            "held_nano_usd": held,
            "set_aside_for_other_gateways_nano_usd": others,
            "left_nano_usd": left,
            "known": known,
        })
    });
    each.collect()
}

/// `POST /budgets/{id}/raise`
pub(super) fn raise() -> Route {
    let summary = "Puts money on top of a limit until a time, for a reason.";
    to_do::<Budget>("raise", summary, |asked| Box::pin(raised(asked))).takes::<BudgetRaise>()
}

async fn raised(asked: Asked) -> Result<Answer, Refusal> {
    let raise: BudgetRaise = asked.body()?;
    let nano_usd = check::amount("", raise.nano_usd.as_ref(), raise.usd.as_ref())?;
    check::sentence("reason", &raise.reason)?;
    let reason = Some(raise.reason.as_str());
    let budget = replace::<Budget>(&asked, "raise", reason, |old, caller| {
        let now = caller.now;
        check::future("until", raise.until, now)?;
        let mut made = old.clone();
        let count = made.limits.len();
        let limit = made.limits.get_mut(raise.limit).ok_or_else(|| {
            let why = format!("This budget has the limits 0 to {}.", count.saturating_sub(1));
            Refusal::invalid("limit", why)
        })?;
        // What is over makes room, the oldest first.
        while limit.raises.len() >= RAISES_MAX {
            let Some(over) = limit.raises.iter().position(|raise| raise.until <= now) else {
                let why = format!("A limit has at most {RAISES_MAX} raises at a time.");
                return Err(Refusal::conflict("too_many_raises", why));
            };
            limit.raises.remove(over);
        }
        let (until, reason) = (raise.until, raise.reason.clone());
        limit.raises.push(Raise { nano_usd, from: now, until, reason });
        Ok(made)
    });
    let budget = budget.await?;
    let mut value = shown(&budget);
    budget.more(&asked, &mut value);
    Ok(Answer::json(&value))
}
