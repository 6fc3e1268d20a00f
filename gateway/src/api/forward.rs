//! A request that more than one may answer: who is asked, in which order, and what becomes of it
//! when one fails. Until the first byte of an answer is there, the next one is asked; a request
//! that is at fault itself goes to nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use govern::policy::Label;
use govern::{Ask, Rule};
use wire::{ErrorKind, Glance};

use super::bill;
use super::body::Body;
use super::cache::Made;
use super::envelope::Caller;
use super::error::Failure;
use super::surface::Surface;
use super::turn::{Turn, Unanswered};
use super::{App, generate, ids, mirror};
use crate::backend::local::EngineState;
use crate::digest;
use crate::route::{Asked, Finding, Local, Needs, Plan, Pool, Pressed, Target, Verdict, View};

/// The answer's head says who made it, and why.
pub(super) const ROUTE: HeaderName = HeaderName::from_static("x-hearth-route");

/// Headers that mean something to a dialect: Anthropic's, then OpenAI's. These and those below
/// are names already, which a text would have to be made into for each request.
static MEANT: [HeaderName; 3] = [
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("openai-beta"),
];

/// A caller's own word for its conversation.
static SESSION: [HeaderName; 3] = [
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("session_id"),
];

/// Bytes of a prompt's beginning that say which conversation it is of.
const PREFIX_BYTES: usize = 4 << 10;

/// New tokens that a provider is taken to make where nobody says: what most of them stop at.
pub(super) const ROOM: u32 = 128 << 10;

/// A request as it came.
#[derive(Clone)]
pub(super) struct Inbound {
    pub(super) surface: Surface,
    pub(super) body: Arc<Body>,
    pub(super) glance: Glance,
    /// Those headers that mean something to the dialect.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The caller's own word for the conversation.
    pub(super) session: Option<String>,
}

impl Inbound {
    pub(super) fn new(
        surface: Surface,
        headers: &HeaderMap,
        body: Arc<Body>,
    ) -> Result<Self, Failure> {
        let glance = match &surface {
            Surface::Gemini { model, stream, .. } => Glance::named(&body, model, *stream)?,
            _ => Glance::of(&body)?,
        };
        let kept = match &surface {
            Surface::Messages => &MEANT[..2],
            Surface::Gemini { .. } => &[],
            _ => &MEANT[2..],
        };
        let kept = kept.iter().flat_map(|name| {
            headers.get_all(name).iter().map(move |value| (name.clone(), value.clone()))
        });
        let said = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        let session = SESSION.iter().find_map(said).or_else(|| glance.session.clone());
        Ok(Self { surface, headers: kept.collect(), glance, session, body })
    }

    /// The same with another body, whose model and way of answering stand in it.
    pub(super) fn of_body(self, body: Vec<u8>) -> Option<Self> {
        let body = Arc::new(Body::of(body.into()));
        Some(Self { glance: Glance::of(&body).ok()?, body, ..self })
    }

    /// Tokens of all that is read, as far as bytes tell: what it goes on with among them.
    pub(super) fn input_estimate(&self, caller: &Caller) -> u64 {
        self.glance.input_estimate.saturating_add(caller.past_estimate())
    }

    /// What the governor is asked; `answers` is who would answer.
    pub(super) fn ask(&self, answers: Option<(&str, &str)>) -> Ask {
        let glance = &self.glance;
        Ask {
            model: glance.model.clone(),
            answers: answers.map(|(target, _)| target.to_owned()),
            backend: answers.map(|(_, backend)| backend.to_owned()).unwrap_or_default(),
            surface: self.surface.name(),
            input_tokens: glance.input_estimate,
            choices: glance.choices,
            max_output: glance.max_tokens.map(|most| most.max(1)),
            room: match self.surface {
                Surface::Pooled(_) => 0,
                _ => glance.max_tokens.unwrap_or(ROOM).max(1),
            },
            tools: glance.tools.clone(),
            service_tier: generate::service_tier(glance.flex),
            ..Ask::default()
        }
    }
}

/// What this process's models say of themselves.
struct Here<'a>(&'a App);

impl Here<'_> {
    /// A model that makes numbers.
    fn pooled(&self, model: &str) -> Option<Local> {
        let model = self.0.models.pool(model)?;
        let engine = &model.engine;
        let ready = engine.state() == EngineState::Ready;
        let open = engine.open();
        ready.then(|| Local {
            // Of each text alone, and nobody has counted them yet.
            context: u64::MAX,
            open: u32::try_from(open).unwrap_or(u32::MAX),
            waiting: u64::try_from(open).unwrap_or(u64::MAX),
            wait: engine.wait(),
        })
    }
}

impl View for Here<'_> {
    fn local(&self, model: &str) -> Option<Local> {
        let Some(model) = self.0.models.get(model) else { return self.pooled(model) };
        let engine = &model.engine;
        if engine.state() != EngineState::Ready {
            return None;
        }
        Some(Local {
            context: u64::try_from(model.context).unwrap_or(u64::MAX),
            open: u32::try_from(engine.open()).unwrap_or(u32::MAX),
            waiting: u64::try_from(engine.waiting()).unwrap_or(u64::MAX),
            wait: engine.wait(),
        })
    }

    fn cost(&self, target: &str, input: u64, output: Option<u32>) -> Option<u64> {
        let governor = self.0.door.governor()?;
        let directory = governor.directory();
        let price = directory.prices_at(governor.now())?.price(target)?;
        let tokens = govern::ledger::Tokens {
            input,
            output: output.unwrap_or(512).into(),
            ..govern::ledger::Tokens::default()
        };
        u64::try_from(price.cost(&tokens).0).ok()
    }
}

/// Answers a request through a pool.
pub(super) async fn serve(
    app: &Arc<App>,
    caller: &Caller,
    inbound: &Inbound,
    pool: &Arc<Pool>,
) -> Result<Response, Failure> {
    let asked = asked_of(app, caller, (inbound, pool), None)?;
    let mut plan = plan(app, pool, &asked);
    if plan.order.is_empty() {
        Box::pin(back(app, &plan)).await;
        plan = self::plan(app, pool, &asked);
    }
    pool.earn();
    mirror::copy(app, caller, inbound, pool, &asked);
    tell(pool, caller, &plan);
    let turn = Turn { app, caller, inbound, pool, is_read: true };
    match turn.ask(&plan.order).await {
        Ok((mut response, target, attempt)) => {
            if let Some(metrics) = pool.metrics() {
                let arm = target.arm.as_deref().unwrap_or_default();
                metrics.answered(&target.name, arm, plan.reason);
            }
            let who = (&*target, generate::node_of(&response));
            if let Some(value) = route_header(pool, &who, &plan, attempt) {
                response.headers_mut().insert(ROUTE, value);
            }
            let made = Made { model: target.name.clone(), prompt: None };
            response.extensions_mut().get_or_insert_with(|| made);
            Ok(response)
        }
        Err(Unanswered { failure, ill }) => {
            let away = failure.is_none() && plan.findings.iter().any(|f| f.verdict.passes());
            if let Some(metrics) = pool.metrics().filter(|_| ill || away) {
                metrics.unanswered();
            }
            Err(failure.unwrap_or_else(|| nobody(pool, &plan)))
        }
    }
}

/// What the choice depends on, of a request that is at least so secret.
pub(super) fn asked_of(
    app: &App,
    caller: &Caller,
    (inbound, pool): (&Inbound, &Pool),
    least: Option<Label>,
) -> Result<Asked, Failure> {
    let label = bill::label(app, caller, || inbound.ask(None))?;
    let prefix = if pool.looks_at_prompts() { prefix(inbound) } else { 0 };
    Ok(Asked { prefix, ..asked(caller, inbound, least.map_or(label, |least| label.max(least))) })
}

/// How the prompt begins.
fn prefix(inbound: &Inbound) -> u64 {
    let from = inbound.glance.prompt_at(&inbound.body);
    digest::number(&[&inbound.body[from..inbound.body.len().min(from + PREFIX_BYTES)]])
}

/// Who would answer it now, and why.
pub(super) fn plan(app: &App, pool: &Pool, asked: &Asked) -> Plan {
    pool.plan(asked, &Here(app), Instant::now())
}

/// Nobody answers: ready when a model is there again whose nodes went a moment ago, or when none
/// may be soon.
async fn back(app: &App, plan: &Plan) {
    let away = plan.findings.iter().filter(|finding| finding.verdict == Verdict::Away);
    let each = away.map(|finding| async {
        if let Some(model) = app.models.get(&finding.target) {
            model.engine.back().await;
            model.engine.state() == EngineState::Ready
        } else if let Some(reader) = app.models.pool(&finding.target) {
            reader.engine.back().await;
            reader.engine.state() == EngineState::Ready
        } else {
            false
        }
    });
    let mut each: FuturesUnordered<_> = each.collect();
    while each.next().await == Some(false) {}
}

/// How the pool's local targets stand to the bounds of its overflow.
pub(super) fn pressed(app: &App, pool: &Pool) -> Option<Pressed> {
    pool.pressed(&Here(app), Instant::now())
}

/// Names of the pools that go by prices and know none.
pub(super) fn unpriced(app: &App) -> impl Iterator<Item = &str> {
    let pools = app.routes.pools().filter(|pool| pool.is_unpriced(&Here(app)));
    pools.map(|pool| &*pool.name)
}

fn asked(caller: &Caller, inbound: &Inbound, label: Label) -> Asked {
    let glance = &inbound.glance;
    let mut needs = Vec::new();
    if glance.offers_tools {
        needs.push(Needs::Tools);
    }
    if glance.images + glance.files > 0 {
        needs.push(Needs::Images);
    }
    if glance.structured {
        needs.push(Needs::Structured);
    }
    let number = |text: &str| digest::number(&[text.as_bytes()]);
    let key = caller.who.as_ref().and_then(|who| who.principal.key.as_ref());
    let who = glance.user.as_deref().map(number).or(key.map(|key| number(key.id.as_str())));
    let providers = caller.who.as_ref().map(|who| who.principal.providers()).unwrap_or_default();
    Asked {
        label,
        providers,
        dialect: Some(inbound.surface.dialect()),
        input: inbound.input_estimate(caller),
        output: glance.max_tokens,
        stream: glance.stream,
        needs,
        metadata: glance.metadata.clone(),
        who,
        session: inbound.session.as_deref().map(number),
        draw: ids::random(),
        looks_only: caller.wonders,
        ..Asked::default()
    }
}

/// Every decision can be read in the log.
fn tell(pool: &Pool, caller: &Caller, plan: &Plan) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let id = &*caller.request_id;
    let order: Vec<&str> = plan.order.iter().map(|target| &*target.name).collect();
    for finding in &plan.findings {
        tracing::debug!(
            id,
            pool = pool.name,
            pool_target = finding.target,
            verdict = %finding.verdict,
            open = finding.open,
            first_byte_ms = finding.first_byte.as_secs_f64() * 1e3,
            cost = finding.cost,
            "a candidate"
        );
    }
    tracing::debug!(id, pool = pool.name, reason = plan.reason, ?order, "routed");
}

/// Why nobody may answer.
fn nobody(pool: &Pool, plan: &Plan) -> Failure {
    let passing = plan.findings.iter().filter(|finding| finding.verdict.passes());
    let wait = passing
        .map(|finding| match finding.verdict {
            Verdict::Broken(left) | Verdict::Busy(left) | Verdict::Unwelcome(left) => left,
            _ => Duration::from_secs(1),
        })
        .min();
    if let Some(wait) = wait {
        let message = format!("Nobody who answers for '{}' is well at the moment.", pool.name);
        let failure = Failure::new(ErrorKind::Unavailable, "unavailable", message);
        return Failure { retry_after_s: Some(wait.as_secs().max(1)), ..failure };
    }
    let why: Vec<String> = plan.findings.iter().map(|f| f.verdict.to_string()).collect();
    let label = plan.findings.iter().all(|f| matches!(f.verdict, Verdict::Label(_)));
    let rules = |finding: &Finding| matches!(finding.verdict, Verdict::Label(_) | Verdict::Barred);
    let message = format!(
        "Nobody who answers for '{}' may serve this request: {}.",
        pool.name,
        why.join("; ")
    );
    if label {
        return Failure::new(ErrorKind::Forbidden, "label", message);
    }
    if plan.findings.iter().all(rules) {
        return Failure::new(ErrorKind::Forbidden, Rule::Provider.name(), message);
    }
    Failure::new(ErrorKind::Invalid, "no_target", message)
}

fn route_header(
    pool: &Pool,
    (target, node): &(&Target, String),
    plan: &Plan,
    attempt: u32,
) -> Option<HeaderValue> {
    let (before, arm) = target.arm.as_ref().map_or(("", ""), |arm| ("; arm=", &**arm));
    let attempt = attempt.to_string();
    let parts = [
        &*target.name,
        "; pool=",
        &*pool.name,
        "; reason=",
        plan.reason,
        "; attempt=",
        &*attempt,
        before,
        arm,
        &**node,
    ];
    HeaderValue::try_from(parts.concat()).ok()
}
