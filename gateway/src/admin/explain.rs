//! Why a request would be served, or not: what each rule says, and who would pay. Nothing is
//! reserved.

use std::net::IpAddr;
use std::sync::Arc;

use govern::budget::books::Standing;
use govern::entity::{Budget, Key};
use govern::ledger::Tokens;
use govern::policy::Label;
use govern::policy::check::{self as rules, Finding};
use govern::role::Permission;
use govern::{Ask, Id, Money, Scope};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answer::Answer;
use super::asked::Asked;
use super::caller::Caller;
use super::check;
use super::refusal::Refusal;
use super::resources::standing_of;
use super::table::{Method, Pick, Place, Route};

const TOOLS_MAX: usize = 1024;

/// A request as its rules see it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Id or visible part of the key.
    key: String,
    model: String,
    #[serde(default)]
    input_tokens: u64,
    /// New tokens that are asked for; as many as there may be where nothing is said.
    #[serde(default)]
    max_tokens: Option<u32>,
    /// Names of the tools that are offered.
    #[serde(default)]
    tools: Vec<String>,
    #[serde(default)]
    label: Option<Label>,
    /// The address that it comes from.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    source: Option<IpAddr>,
}

/// `POST /policy/explain`
pub(super) fn route() -> Route {
    let pick = Pick(|caller, asked| {
        let question: Question = asked.body()?;
        let found = find(caller, &question.key).map(|key| key.id.clone());
        Ok(Scope::Key(found.unwrap_or_default()))
    });
    let needs = (Permission::KeysRead, Place::Named(pick));
    let summary = "Says what each rule makes of a request, and which budgets would pay.";
    Route::new((Method::Post, "/policy/explain"), needs, summary, |asked| {
        Box::pin(async move { explain(&asked) })
    })
    .takes::<Question>()
}

fn find<'a>(caller: &Caller<'a>, key: &str) -> Option<&'a Key> {
    let directory = caller.directory;
    let by_id = Id::of(key).and_then(|id| directory.key(&id));
    by_id.or_else(|| directory.key_by_prefix(key)).map(|key| &**key)
}

fn explain(asked: &Asked) -> Result<Answer, Refusal> {
    let question: Question = asked.body()?;
    check::sentence("model", &question.model)?;
    if question.tools.len() > TOOLS_MAX {
        return Err(Refusal::invalid("tools", format!("'tools' has at most {TOOLS_MAX} names.")));
    }
    let now = asked.governor.now();
    let directory = asked.governor.directory();
    let (caller, place) = asked.judge(&directory, now)?;
    let Scope::Key(id) = &place else { return Err(Refusal::hidden()) };
    let key = directory.key(id).ok_or_else(Refusal::hidden)?;
    let principal = directory.principal(key).ok_or_else(|| {
        Refusal::conflict("key_revoked", "Something that this key belongs to was deleted.")
    })?;
    let ask = Ask {
        model: question.model,
        surface: "chat",
        input_tokens: question.input_tokens,
        choices: 1,
        max_output: question.max_tokens,
        // How long the model's context is only its server knows.
        room: question.max_tokens.unwrap_or(u32::MAX),
        tools: question.tools,
        label: question.label,
        ..Ask::default()
    };
    let layers = principal.layers();
    let findings = rules::explain(&layers, &ask, question.source, now);
    let key_state = state(key, &caller);
    let passed = key_state == "active"
        && principal.project.is_some()
        && principal.user.as_ref().is_none_or(|user| !user.disabled)
        && findings.iter().all(|finding| finding.passed);
    let label = rules::request(&layers, &ask).ok().map(|allowed| allowed.label);
    let sheet = directory.prices_at(now);
    let price = sheet.and_then(|sheet| sheet.price(&ask.model));
    let output = u64::from(question.max_tokens.unwrap_or_default());
    let tokens = Tokens { input: ask.input_tokens, output, ..Tokens::default() };
    let cost = price.map(|price| price.cost(&tokens));
    let budgets = directory.budgets_of(&principal, &ask.model);
    let Payers { left, shown } = payers(asked, &caller, &budgets);
    let pays = cost.is_none_or(|cost| left.is_none_or(|left| cost <= left));
    let others = budgets.len() - shown.len();
    Ok(Answer::json(&json!({
        "served": passed && pays,
        "key": { "id": key.id, "prefix": key.prefix, "label": key.label, "state": key_state },
        "has_project": principal.project.is_some(),
        "label": label,
        "findings": findings.iter().map(shown_finding).collect::<Vec<_>>(),
        "cost_nano_usd": cost,
        "price": sheet.filter(|_| price.is_some()).map(|sheet| &sheet.id),
        // The tightest of all, those too that the caller may not see one by one: whoever shows the
        // key is told the same.
        "left_nano_usd": left,
        "budgets": shown,
        "other_budgets": others,
    })))
}

fn shown_finding(finding: &Finding) -> Value {
    let (layer, rule, text) = (&finding.layer, finding.rule, &finding.text);
    json!({ "layer": layer, "rule": rule, "passed": finding.passed, "text": text })
}

/// Who would pay.
struct Payers {
    /// What the tightest of all has left.
    left: Option<Money>,
    /// Those that the caller may see.
    shown: Vec<Value>,
}

fn payers(asked: &Asked, caller: &Caller<'_>, budgets: &[Arc<Budget>]) -> Payers {
    let books = asked.governor.books();
    let mut left: Option<Money> = None;
    let mut shown = Vec::new();
    for budget in budgets {
        let standing = books.standing(&budget.id, caller.now).unwrap_or_default();
        if let Some(here) = tightest(budget, &standing) {
            left = Some(left.map_or(here, |left| left.min(here)));
        }
        if caller.may(Permission::BudgetsRead, &budget.scope) {
            let (id, name, scope) = (&budget.id, &budget.name, &budget.scope);
            let standing = standing_of(budget, &standing);
            shown.push(json!({ "id": id, "name": name, "scope": scope, "standing": standing }));
        }
    }
    Payers { left, shown }
}

/// What the tightest limit that refuses has left.
fn tightest(budget: &Budget, standing: &[Standing]) -> Option<Money> {
    let limits = budget.limits.iter().zip(standing).filter(|(limit, _)| !limit.soft);
    let left = limits.map(|(_, now)| now.allowed.minus(now.spent).minus(now.held));
    left.min().map(|left| left.max(Money::ZERO))
}

fn state(key: &Key, caller: &Caller<'_>) -> &'static str {
    let over = |at: Option<i64>| at.is_some_and(|at| at <= caller.now);
    if over(key.revoked_at) {
        "revoked"
    } else if over(key.expires_at) {
        "expired"
    } else {
        "active"
    }
}
