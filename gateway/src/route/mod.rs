//! Which of several may answer a request, and who is asked first: pools of targets under one name,
//! their health, overflow to others when the local promise would break.
//!
//! A name is a pool of the configuration, a model of this process, or `PROVIDER/MODEL`. Everything
//! here is decided from what is in memory; nothing waits.

pub mod decide;
mod overflow;
pub mod target;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use govern::policy::Label;
use tokio::sync::Semaphore;

use crate::config::Secret;
use crate::config::routing::{
    BrokenStream, MirrorConfig, PoolConfig, Routing, RuleConfig, Strategy, TargetConfig,
    TargetTable,
};
use crate::digest;
use crate::metrics::{PoolMetrics, Retry, RouteMetrics};
use crate::upstream::{Provider, Providers, models};
pub use decide::{Asked, Finding, Plan, Verdict};
use overflow::Overflow;
pub use overflow::{Pressed, Pressure};
use target::Counts;
pub use target::{Health, Needs, Open, Seat, Standing, Target};

/// Attempts at one request, where a pool says nothing.
const ATTEMPTS: u32 = 3;

/// Copies of a pool's requests at once.
const COPIES_MAX: usize = 64;

/// Longest name of an arm.
const ARM_BYTES_MAX: usize = 64;

/// Targets of all pools: a bound on what a request may walk.
const TARGETS_MAX: usize = 1000;

/// Of the requests, this share may be tried again; and a few in any case.
const RETRY_SHARE: f64 = 0.2;
const RETRY_ROOM: f64 = 20.0;

/// All names that somebody else may answer to.
#[derive(Default)]
pub struct Routes {
    providers: Providers,
    pools: BTreeMap<String, Arc<Pool>>,
    /// One health for each target, whatever pools it is in.
    healths: Mutex<BTreeMap<String, Arc<Health>>>,
    /// Names of `PROVIDER/MODEL` that were asked for.
    direct: Mutex<BTreeMap<String, Arc<Pool>>>,
    /// Where all of it is counted.
    metrics: OnceLock<RouteMetrics>,
}

/// One name and who answers to it.
pub struct Pool {
    /// The name.
    pub name: String,
    strategy: Strategy,
    targets: Vec<Arc<Target>>,
    /// All who may be asked, each once.
    all: Vec<(Group, Arc<Target>)>,
    overflow: Option<Overflow>,
    rules: Vec<Rule>,
    affinity: bool,
    /// Tries at one request, the first one among them.
    pub attempts: u32,
    /// After this time without a first byte the next one is asked beside the first.
    pub hedge_after: Option<Duration>,
    /// Who is sent a copy of some of the requests.
    pub mirror: Option<Mirror>,
    /// One of its models here goes on with a stream that a provider breaks off.
    pub continues: bool,
    /// Tries again that are left.
    retries: Mutex<f64>,
    /// Where it is counted; nowhere, unless it is a pool of the configuration.
    metrics: OnceLock<PoolMetrics>,
}

/// Who is sent a copy of some of a pool's requests.
pub struct Mirror {
    /// The target.
    pub target: Arc<Target>,
    /// The key in whose name they are made.
    pub key: Option<Secret>,
    /// Of 2^32 requests.
    share: u64,
    /// Room for copies at once: when it is full, requests have none.
    pub room: Arc<Semaphore>,
}

impl Mirror {
    fn new(config: &MirrorConfig, target: Arc<Target>) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&config.share) {
            return Err(format!("mirror: share: {} is not between 0 and 1", config.share));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^32")]
        let share = (config.share * 4_294_967_296.0).round() as u64;
        let room = Arc::new(Semaphore::new(COPIES_MAX));
        Ok(Self { target, key: config.key.clone(), share, room })
    }

    /// Whether a request of this draw has a copy. What is too secret for the target has none.
    #[must_use]
    pub fn takes(&self, asked: &Asked) -> bool {
        (asked.draw >> 32) < self.share && asked.label <= self.target.max_label
    }
}

/// Why a pool asks somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// One of its targets.
    Own,
    /// Who is asked when those have too much to do.
    Overflow,
    /// Who is asked when all others fail.
    Fallback,
}

impl Group {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "target",
            Self::Overflow => "overflow",
            Self::Fallback => "fallback",
        }
    }
}

struct Rule {
    config: RuleConfig,
    to: Vec<String>,
}

impl Rule {
    fn holds(&self, asked: &Asked) -> bool {
        let RuleConfig { metadata, tools, input_above, .. } = &self.config;
        let offers = asked.needs.contains(&Needs::Tools);
        metadata.iter().all(|(name, value)| {
            asked.metadata.iter().any(|(own, said)| own == name && said == value)
        }) && tools.is_none_or(|tools| tools == offers)
            && input_above.is_none_or(|least| asked.input >= least)
    }
}

/// What is known of a model of this process.
#[derive(Debug, Clone, Copy)]
pub struct Local {
    /// Its longest sequence in tokens.
    pub context: u64,
    /// Requests there, running and waiting.
    pub open: u32,
    /// Of these, waiting.
    pub waiting: u64,
    /// How long a new one would wait.
    pub wait: Duration,
}

/// What the choice needs to know of the rest of the process.
pub trait View {
    /// A model of this process; `None`: it is not there now.
    fn local(&self, model: &str) -> Option<Local>;

    /// What a request costs there in nano-dollars, if that is known.
    fn cost(&self, target: &str, input: u64, output: Option<u32>) -> Option<u64>;
}

impl Routes {
    /// Routes as they are configured; `local` are the names of this process's models.
    ///
    /// # Errors
    /// What cannot be used, and where it stands.
    pub fn new(config: &Routing, local: &[String]) -> Result<Self, String> {
        let mut routes = Self::default();
        for (name, provider) in &config.providers {
            let provider = Provider::new(name, provider)
                .map_err(|problem| format!("[providers.{name}]: {problem}"))?;
            routes.providers.insert(name.clone(), Arc::new(provider));
        }
        let names: Vec<&str> = local.iter().map(String::as_str).collect();
        for name in config.pools.keys() {
            cycle(config, name, &mut Vec::new())?;
        }
        let mut all = 0;
        for (name, pool) in &config.pools {
            let at = |problem: String| format!("[pools.{name}]: {problem}");
            let pool = routes.pool(config, name, pool, &names).map_err(at)?;
            all += pool.all.len();
            routes.pools.insert(name.clone(), Arc::new(pool));
        }
        if all > TARGETS_MAX {
            return Err(format!("{all} targets in all pools are more than {TARGETS_MAX}"));
        }
        Ok(routes)
    }

    fn pool(
        &self,
        config: &Routing,
        name: &str,
        pool: &PoolConfig,
        local: &[&str],
    ) -> Result<Pool, String> {
        if pool.targets.is_empty() {
            return Err("targets is empty".to_owned());
        }
        let each = |targets: &[TargetConfig]| {
            targets
                .iter()
                .map(|target| self.target(&target.table(), local))
                .collect::<Result<Vec<_>, String>>()
        };
        let targets: Vec<Arc<Target>> = each(&pool.targets)?;
        let mut rules = Vec::new();
        for rule in &pool.rules {
            let unknown = rule.to.iter().find(|to| !targets.iter().any(|t| t.name == **to));
            if let Some(to) = unknown {
                return Err(format!("rules: `{to}` is none of the targets"));
            }
            rules.push(Rule { config: rule.clone(), to: rule.to.clone() });
        }
        let mut fallback = Vec::new();
        for next in &pool.fallback {
            self.behind(config, next, local, &mut fallback)?;
        }
        let mirror = pool.mirror.as_ref().map(|mirror| {
            let table = TargetTable { target: mirror.to.clone(), ..TargetTable::default() };
            let target = self.target(&table, local).map_err(|why| format!("mirror: {why}"))?;
            Mirror::new(mirror, target)
        });
        let mirror = mirror.transpose()?;
        let over = each(pool.overflow.as_ref().map_or(&[][..], |overflow| &overflow.to))?;
        let groups =
            [(Group::Own, &targets), (Group::Overflow, &over), (Group::Fallback, &fallback)];
        let mut all: Vec<(Group, Arc<Target>)> = Vec::new();
        for (group, target) in groups.iter().flat_map(|(g, list)| list.iter().map(move |t| (*g, t)))
        {
            if !all.iter().any(|(_, known)| known.name == target.name) {
                all.push((group, Arc::clone(target)));
            }
        }
        let continues = pool.broken_stream == BrokenStream::Continue;
        if continues && !all.iter().any(|(_, target)| target.is_local()) {
            return Err("broken_stream: none who could continue is a model here".to_owned());
        }
        Ok(Pool {
            name: name.to_owned(),
            strategy: pool.strategy,
            targets,
            all,
            overflow: pool.overflow.as_ref().map(|overflow| Overflow::new(&overflow.when)),
            rules,
            affinity: pool.affinity,
            attempts: pool.attempts.unwrap_or(ATTEMPTS).max(1),
            hedge_after: pool.hedge_after.map(|span| span.0),
            mirror,
            continues,
            retries: Mutex::new(RETRY_ROOM),
            metrics: OnceLock::new(),
        })
    }

    /// All targets behind a name: a pool's with its own fallback, or one.
    fn behind(
        &self,
        config: &Routing,
        name: &str,
        local: &[&str],
        out: &mut Vec<Arc<Target>>,
    ) -> Result<(), String> {
        let Some(pool) = config.pools.get(name) else {
            let table = TargetTable { target: name.to_owned(), ..TargetTable::default() };
            out.push(self.target(&table, local).map_err(|why| format!("fallback: {why}"))?);
            return Ok(());
        };
        for target in &pool.targets {
            out.push(self.target(&target.table(), local)?);
        }
        pool.fallback.iter().try_for_each(|next| self.behind(config, next, local, out))
    }

    /// A target of a pool: where its table is silent, what is known of its model counts.
    fn target(&self, table: &TargetTable, local: &[&str]) -> Result<Arc<Target>, String> {
        let name = table.target.as_str();
        let far = if local.contains(&name) { None } else { self.provider(name) };
        let Some(known) = far.and_then(|(provider, model)| models::known(provider.kind, model))
        else {
            return self.as_it_is(table, local);
        };
        let mut table = table.clone();
        table.context = table.context.or(known.reads());
        table.without.get_or_insert_with(|| known.without.clone());
        self.as_it_is(&table, local)
    }

    /// A target of which only its table is believed.
    fn as_it_is(&self, table: &TargetTable, local: &[&str]) -> Result<Arc<Target>, String> {
        let name = &table.target;
        let without = table.without.iter().flatten().map(|text| {
            let needs = Needs::ALL.into_iter().find(|needs| needs.name() == text);
            needs.ok_or_else(|| {
                format!("`{name}`: without: `{text}` is none of tools, images, structured")
            })
        });
        let mut without = without.collect::<Result<Vec<_>, _>>()?;
        let (seat, most, embeds) = if local.contains(&name.as_str()) {
            // Models here read text.
            without.push(Needs::Images);
            (Seat::Local(name.clone()), Label::Restricted, false)
        } else if let Some((provider, model)) = self.provider(name) {
            let most = provider.max_label;
            let embeds = models::known(provider.kind, model).is_some_and(|known| known.embeds);
            (Seat::Provider(provider, model.to_owned()), most, embeds)
        } else {
            let models = local.join("`, `");
            return Err(format!(
                "`{name}` is neither a model here (`{models}`) nor PROVIDER/MODEL of a provider \
                 that is configured"
            ));
        };
        // It stands in heads, and in each line of the ledger.
        let plain = |arm: &&String| {
            let graphic = |byte: u8| byte.is_ascii_graphic() && byte != b';';
            arm.len() <= ARM_BYTES_MAX && arm.bytes().all(graphic)
        };
        if let Some(arm) = table.arm.as_ref().filter(|arm| !plain(arm)) {
            return Err(format!(
                "`{name}`: the arm `{arm}` is to have up to {ARM_BYTES_MAX} characters, visible \
                 ASCII without `;`"
            ));
        }
        Ok(Arc::new(Target {
            name: name.clone(),
            seat,
            weight: table.weight.unwrap_or(1),
            context: table.context,
            without,
            embeds,
            max_label: table.max_label.map_or(most, |own| own.min(most)),
            number: digest::number(&[name.as_bytes()]),
            arm: table.arm.as_deref().filter(|arm| !arm.is_empty()).map(Arc::from),
            health: self.health(name),
        }))
    }

    fn provider<'n>(&self, name: &'n str) -> Option<(Arc<Provider>, &'n str)> {
        let (provider, model) = name.split_once('/')?;
        Some((Arc::clone(self.providers.get(provider)?), model)).filter(|_| !model.is_empty())
    }

    /// One health for each name. Names of strangers' making are bounded.
    fn health(&self, name: &str) -> Arc<Health> {
        let mut healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        let known = healths.get(name).map(Arc::clone);
        let health = known.unwrap_or_default();
        if healths.len() < 2 * TARGETS_MAX {
            healths.entry(name.to_owned()).or_insert_with(|| Arc::clone(&health));
        }
        if let Some(metrics) = self.metrics.get() {
            self.count_one(name, &health, metrics);
        }
        health
    }

    /// From now on everything is counted there.
    pub(crate) fn count(&self, metrics: &RouteMetrics) {
        let metrics = self.metrics.get_or_init(|| metrics.clone());
        for pool in self.pools.values() {
            pool.metrics.get_or_init(|| metrics.pool(&pool.name));
        }
        let healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, health) in healths.iter() {
            self.count_one(name, health, metrics);
            // Those of the configuration are shown before anybody asks them.
            health.series();
        }
    }

    fn count_one(&self, name: &str, health: &Health, metrics: &RouteMetrics) {
        if let Some((provider, model)) = self.provider(name) {
            health.count(|| Counts {
                metrics: metrics.clone(),
                provider: provider.name.clone(),
                model: model.to_owned(),
            });
        }
    }

    /// Sets the figures that change by themselves, for whoever reads them now.
    pub fn show(&self, now: Instant) {
        let healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        healths.values().for_each(|health| health.show(now));
        for pool in self.pools.values() {
            if let Some(metrics) = pool.metrics() {
                metrics
                    .overflows(pool.overflow.as_ref().is_some_and(|overflow| overflow.is_on(now)));
            }
        }
    }

    /// Who answers to a name; `None`: no pool and no provider does.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Pool>> {
        if let Some(pool) = self.pools.get(name) {
            return Some(Arc::clone(pool));
        }
        let direct = || self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = direct().get(name) {
            return Some(Arc::clone(known));
        }
        let pool = Arc::new(self.of_provider(name)?);
        let mut direct = direct();
        // Names of strangers' making are bounded.
        if direct.len() < 2 * TARGETS_MAX {
            direct.insert(name.to_owned(), Arc::clone(&pool));
        }
        Some(pool)
    }

    /// A pool of the one target that a name says.
    fn of_provider(&self, name: &str) -> Option<Pool> {
        let (provider, model) = self.provider(name)?;
        if !provider.offers(model) {
            return None;
        }
        let table = TargetTable { target: name.to_owned(), ..TargetTable::default() };
        // Whoever asks for a model by its own name is told by it what it cannot.
        let target = self.as_it_is(&table, &[]).ok()?;
        Some(Pool {
            name: name.to_owned(),
            strategy: Strategy::Priority,
            targets: vec![Arc::clone(&target)],
            all: vec![(Group::Own, target)],
            overflow: None,
            rules: Vec::new(),
            affinity: false,
            attempts: 1,
            hedge_after: None,
            mirror: None,
            continues: false,
            retries: Mutex::new(0.0),
            metrics: OnceLock::new(),
        })
    }

    /// Names of all pools.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// Whether a pool has this name.
    #[must_use]
    pub fn has_pool(&self, name: &str) -> bool {
        self.pools.contains_key(name)
    }

    /// All providers.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    /// Nothing is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty() && self.pools.is_empty()
    }
}

impl Pool {
    /// All who may be asked, each once.
    pub fn everybody(&self) -> impl Iterator<Item = &Target> {
        self.all.iter().map(|(_, target)| &**target)
    }

    /// Who is asked, in which order, and why.
    #[must_use]
    pub fn plan(&self, asked: &Asked, view: &dyn View, now: Instant) -> Plan {
        decide::plan(self, asked, view, now)
    }

    /// Its choice depends on how a prompt begins.
    #[must_use]
    pub fn looks_at_prompts(&self) -> bool {
        self.strategy == Strategy::Prefix
    }

    /// It goes by prices, and none is known of any of its targets.
    #[must_use]
    pub fn is_unpriced(&self, view: &dyn View) -> bool {
        let knows = |target: &Arc<Target>| view.cost(&target.name, 0, None).is_some();
        self.strategy == Strategy::Cost && !self.targets.iter().any(knows)
    }

    /// A request has come: a part of a try again is earned with it.
    pub fn earn(&self) {
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        *retries = (*retries + RETRY_SHARE).min(RETRY_ROOM);
    }

    /// Copies of its requests are made in nobody's name.
    #[must_use]
    pub fn mirrors_unpaid(&self) -> bool {
        self.mirror.as_ref().is_some_and(|mirror| mirror.key.is_none())
    }

    /// Takes a try again; `false`: too many have been taken. When everything fails, tries again
    /// only make it worse.
    #[must_use]
    pub fn retry(&self, kind: Retry) -> bool {
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let may = *retries >= 1.0;
        if may {
            *retries -= 1.0;
        }
        // A hedge that is not made is no failure.
        if let Some(metrics) = self.metrics().filter(|_| may || kind != Retry::Hedge) {
            metrics.retry(if may { kind } else { Retry::Denied });
        }
        may
    }

    /// Where it is counted.
    #[must_use]
    pub fn metrics(&self) -> Option<&PoolMetrics> {
        self.metrics.get()
    }

    /// How its local targets stand to the bounds of its overflow, where it has one.
    #[must_use]
    pub fn pressed(&self, view: &dyn View, now: Instant) -> Option<Pressed> {
        self.overflow.as_ref().map(|overflow| overflow.told(&self.targets, view, now))
    }

    /// Whether the local targets are so busy that others are to answer.
    fn spills(&self, view: &dyn View, looked: (Instant, bool)) -> bool {
        self.overflow.as_ref().is_some_and(|overflow| overflow.spills(&self.targets, view, looked))
    }
}

/// Refuses fallbacks that come back to where they began.
fn cycle(config: &Routing, name: &str, walked: &mut Vec<String>) -> Result<(), String> {
    if let Some(at) = walked.iter().position(|before| before == name) {
        let mut round = walked[at..].to_vec();
        round.push(name.to_owned());
        return Err(format!("fallbacks go round in a circle: {}", round.join(" -> ")));
    }
    let Some(pool) = config.pools.get(name) else { return Ok(()) };
    walked.push(name.to_owned());
    for next in &pool.fallback {
        cycle(config, next, walked)?;
    }
    walked.pop();
    Ok(())
}
