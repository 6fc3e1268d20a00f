//! A governor with a random tree, random prices and random budgets, and the lists that it is
//! compared with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use govern::budget::window::Period;
use govern::entity::{Budget, Entity, Limit, Organisation, PriceSheet, Project, Raise, Team, User};
use govern::governor::Clock;
use govern::identity::Principal;
use govern::price::{ModelPrice, Tier, TokenPrices};
use govern::store::documents::Edit;
use govern::{Governor, Id, Money, Scope, Settings};
use hearth_tests::simulation::random::Random;
use sqlx::Row as _;

use super::ledger::check_sums;
use super::model::Model;
use super::shop::{BEGIN, key, limit, open, put, settings};

pub(super) const MODELS: [&str; 5] = ["qwen3-8b", "qwen3-30b", "llama-70b", "free-1b", "new-2b"];
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"];
const MINUTE: i64 = 60_000;
const DAY: i64 = 1440 * MINUTE;

/// What has happened: a run in which nothing of a kind did would prove nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) admitted: u32,
    pub(super) refused: u32,
    pub(super) without_price: u32,
    pub(super) summed_up: u32,
    pub(super) extended: u32,
    pub(super) stopped: u32,
    pub(super) restarts: u32,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) clock: Arc<AtomicI64>,
    pub(super) settings: Settings,
    pub(super) governor: Governor,
    pub(super) keys: Vec<Id>,
    pub(super) model: Model,
    /// A soft budget of everything: what it holds is what was granted.
    pub(super) watcher: Id,
    pub(super) serial: u64,
    pub(super) tally: Tally,
    /// Other gateways may come to the database.
    pub(super) shares: bool,
    scopes: Vec<Scope>,
    organisations: Vec<Organisation>,
}

impl World {
    pub(super) async fn new(seed: u64, folder: &Path, url: Option<String>) -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let shares = url.is_some();
        let settings = settings(folder, url, Clock::Set(Arc::clone(&clock)));
        let governor = open(&settings).await;
        let mut world = Self {
            random: Random::new(seed),
            clock,
            settings,
            governor,
            keys: Vec::new(),
            model: Model::default(),
            watcher: Id::default(),
            serial: 0,
            tally: Tally::default(),
            shares,
            scopes: vec![Scope::Everything],
            organisations: Vec::new(),
        };
        world.tree().await;
        let watcher = world.budget(Scope::Everything, vec![Limit { soft: true, ..limit(1) }]);
        world.watcher = watcher.id.clone();
        world.set(Budget { model: None, ..watcher }).await;
        world.new_sheet().await;
        for _ in 0..4 + world.random.index(5) {
            world.new_budget().await;
        }
        world
    }

    /// Two organisations with teams, projects, people and keys.
    async fn tree(&mut self) {
        let mut edits = Vec::new();
        for name in ["a", "b"] {
            let mut organisation = Organisation::new(name, BEGIN);
            organisation.time_zone = self.random.pick(&ZONES).to_owned();
            edits.push(Edit::put(&organisation));
            self.model.zones.insert(organisation.id.clone(), organisation.time_zone.clone());
            self.scopes.push(Scope::Organisation(organisation.id.clone()));
            let user = User {
                id: Id::new("user", BEGIN),
                organisation: organisation.id.clone(),
                email: format!("{name}@example.org"),
                ..User::default()
            };
            edits.push(Edit::put(&user));
            self.scopes.push(Scope::User(user.id.clone()));
            for team in ["x", "y"] {
                let team = Team {
                    id: Id::new("team", BEGIN),
                    organisation: organisation.id.clone(),
                    name: team.to_owned(),
                    ..Team::default()
                };
                edits.push(Edit::put(&team));
                self.scopes.push(Scope::Team(team.id.clone()));
                let project = Project {
                    id: Id::new("proj", BEGIN),
                    team: team.id.clone(),
                    name: "p".to_owned(),
                    ..Project::default()
                };
                edits.push(Edit::put(&project));
                self.scopes.push(Scope::Project(project.id.clone()));
                for has_user in [false, true] {
                    let user = has_user.then(|| user.id.clone());
                    let key = key(&organisation.id, &project.id, user);
                    edits.push(Edit::put(&key));
                    self.scopes.push(Scope::Key(key.id.clone()));
                    self.keys.push(key.id);
                }
            }
            self.organisations.push(organisation);
        }
        put(&self.governor, edits).await;
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub(super) fn principal(&self, key: &Id) -> Principal {
        let directory = self.governor.directory();
        directory.principal(directory.key(key).expect("a key")).expect("a principal")
    }

    fn budget(&mut self, scope: Scope, limits: Vec<Limit>) -> Budget {
        self.serial += 1;
        let organisation = self.random.index(self.organisations.len());
        let zone = self.random.permille(400).then(|| self.random.pick(&ZONES).to_owned());
        let model =
            self.random.permille(300).then(|| self.random.pick(&["qwen*", "*b", "llama-70b"]));
        Budget {
            id: Id::new(Budget::KIND, self.now()),
            organisation: self.organisations[organisation].id.clone(),
            name: format!("budget {}", self.serial),
            scope,
            model: model.map(str::to_owned),
            limits,
            time_zone: zone,
            created_at: self.now(),
        }
    }

    fn limits(&mut self) -> Vec<Limit> {
        let count = 1 + self.random.index(3);
        (0..count)
            .map(|_| {
                // From less than one request to some hundred of them.
                let nano = 1000
                    * 10_i64.pow(self.random.index(4) as u32)
                    * self.random.between(1, 90) as i64;
                let period = self.random.pick(&Period::ALL);
                let raises = (0..self.random.index(2)).map(|_| self.raise()).collect();
                Limit { period, soft: self.random.permille(150), raises, ..limit(nano) }
            })
            .collect()
    }

    fn raise(&mut self) -> Raise {
        let from = self.now() + self.random.between(0, 60) as i64 * MINUTE - 30 * MINUTE;
        Raise {
            nano_usd: Money(self.random.between(1, 5_000_000) as i64),
            from,
            until: from + self.random.between(1, 2000) as i64 * MINUTE,
            reason: "a fair".to_owned(),
        }
    }

    async fn set(&mut self, budget: Budget) {
        put(&self.governor, vec![Edit::put(&budget)]).await;
        self.model.forget(&budget.id);
        self.model.budgets.insert(budget.id.clone(), budget);
    }

    async fn new_budget(&mut self) {
        let scope = self.random.index(self.scopes.len());
        let limits = self.limits();
        let budget = self.budget(self.scopes[scope].clone(), limits);
        self.set(budget).await;
    }

    /// An administrator does something.
    pub(super) async fn edit(&mut self) {
        let ids: Vec<Id> =
            self.model.budgets.keys().filter(|id| **id != self.watcher).cloned().collect();
        let at = self.random.index(ids.len());
        let old = ids.get(at).map(|id| self.model.budgets[id].clone());
        match (self.random.below(8), old) {
            (0 | 1, _) | (_, None) if ids.len() < 14 => self.new_budget().await,
            (2 | 3, Some(old)) => {
                // Other amounts: what was counted stays.
                let mut limits = old.limits.clone();
                for limit in &mut limits {
                    limit.nano_usd = Money(limit.nano_usd.0 * self.random.pick(&[1, 2, 3]) / 2);
                    limit.soft = self.random.permille(150);
                    if self.random.permille(300) {
                        limit.raises.push(self.raise());
                    }
                }
                self.set(Budget { limits, ..old }).await;
            }
            (4, Some(old)) => {
                // Other windows.
                let limits = self.limits();
                self.set(Budget { limits, ..old }).await;
            }
            (5, Some(old)) => {
                // Other spending.
                let scope = self.random.index(self.scopes.len());
                let scope = self.scopes[scope].clone();
                let time_zone = Some(self.random.pick(&ZONES).to_owned());
                self.set(Budget { scope, time_zone, ..old }).await;
            }
            (6, Some(old)) => {
                put(&self.governor, vec![Edit::delete(&old)]).await;
                self.model.forget(&old.id);
                self.model.budgets.remove(&old.id);
                if self.random.permille(500) {
                    self.set(old).await;
                }
            }
            _ => self.edit_zone().await,
        }
    }

    async fn edit_zone(&mut self) {
        let at = self.random.index(self.organisations.len());
        self.organisations[at].time_zone = self.random.pick(&ZONES).to_owned();
        let organisation = self.organisations[at].clone();
        put(&self.governor, vec![Edit::put(&organisation)]).await;
        self.model.zones.insert(organisation.id, organisation.time_zone);
        let all: Vec<Id> = self.model.budgets.keys().cloned().collect();
        all.iter().for_each(|id| self.model.forget(id));
    }

    /// Prices from now, some time ago or some time ahead. One model is free, one has none.
    pub(super) async fn new_sheet(&mut self) {
        let mut models = Vec::new();
        for name in &MODELS[..3] {
            let mut rates = self.rates();
            rates.output += 1;
            let mut tiers = Vec::new();
            if self.random.permille(500) {
                let batch = self.random.permille(500).then(|| self.rates());
                tiers.push(Tier { above_input_tokens: 1000, rates: self.rates(), batch });
            }
            let batch = self.random.permille(500).then(|| self.rates());
            models.push(ModelPrice {
                model: (*name).to_owned(),
                rates,
                tiers,
                batch,
                device: None,
            });
        }
        models.push(ModelPrice { model: "free*".to_owned(), ..ModelPrice::default() });
        if self.random.permille(500) {
            models.push(ModelPrice {
                model: "new*".to_owned(),
                rates: self.rates(),
                ..ModelPrice::default()
            });
        }
        self.serial += 1;
        let mut sheet = PriceSheet::new(&format!("sheet {}", self.serial), models, self.now());
        // The first is older than any time that the clock is put back to.
        let first = self.model.sheets.is_empty();
        let shift = if first { -9999 } else { self.random.below(4) as i64 - 1 };
        sheet.effective_from += shift * 600 * MINUTE;
        put(&self.governor, vec![Edit::put(&sheet)]).await;
        self.model.sheets.push(sheet);
    }

    fn rates(&mut self) -> TokenPrices {
        let mut price = || self.random.pick(&[0_u64, 1, 333, 1000, 70_001, 3_000_000]);
        let (input, output) = (price(), price());
        let mut maybe = || self.random.permille(400).then(|| self.random.below(4_000_000));
        TokenPrices { input, output, cache_read: maybe(), cache_write: maybe() }
    }

    /// Time passes, or somebody sets the clock.
    pub(super) fn jump(&mut self) {
        let step = match self.random.below(20) {
            0..=9 => self.random.between(1, 30) as i64 * 1000,
            10..=14 => self.random.between(1, 600) as i64 * MINUTE,
            15 => self.random.between(1, 3) as i64 * DAY,
            16 => self.random.between(20, 70) as i64 * DAY,
            17 => -(self.random.between(1, 600) as i64 * MINUTE),
            18 => -(self.random.between(1, 3) as i64 * DAY),
            _ => -(self.random.between(20, 70) as i64 * DAY),
        };
        self.clock.fetch_add(step, Ordering::SeqCst);
    }

    /// The books say what the lists say.
    pub(super) fn check(&mut self) {
        let (governor, now) = (&self.governor, self.clock.load(Ordering::SeqCst));
        self.model.check(now, |id| governor.books().standing(id, now).expect("an account"));
    }

    /// Rows, sums, chain and standing, as the database has them.
    pub(super) async fn check_database(&mut self) {
        self.governor.flush().await;
        assert_eq!(self.governor.open_operations(), self.model.holds.len() as u32);
        let rows = sqlx::query(
            "SELECT request_id, input_tokens, cache_read_tokens, cache_write_tokens, \
             output_tokens, reasoning_tokens, cost_nano_usd, outcome, price, admitted_at, \
             service_tier FROM ledger ORDER BY request_id",
        );
        let rows = rows.fetch_all(self.governor.store().read()).await.expect("the ledger");
        let number = |count: u64| i64::try_from(count).expect("few tokens");
        let expected: Vec<_> = self
            .model
            .rows
            .iter()
            .map(|(request, row)| {
                let tokens = row.tokens;
                let counts = [
                    tokens.input,
                    tokens.cache_read,
                    tokens.cache_write,
                    tokens.output,
                    tokens.reasoning,
                ]
                .map(number);
                (
                    request.clone(),
                    counts,
                    row.cost,
                    row.outcome.name().to_owned(),
                    row.price.clone(),
                    row.payer.at,
                    row.served.name().to_owned(),
                )
            })
            .collect();
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                let counts = [1, 2, 3, 4, 5].map(|at| row.get::<i64, _>(at));
                (
                    row.get::<String, _>(0),
                    counts,
                    row.get::<i64, _>(6),
                    row.get::<String, _>(7),
                    row.get::<String, _>(8),
                    row.get::<i64, _>(9),
                    row.get::<String, _>(10),
                )
            })
            .collect();
        assert_eq!(found, expected);
        check_sums(&self.governor).await;
    }

    /// As [`World::check_database`], and once more after a restart.
    pub(super) async fn restart(mut self) -> Self {
        self.tally.restarts += 1;
        self.check();
        self.check_database().await;
        let Self { governor, settings, .. } = self;
        drop(governor);
        let governor = open(&settings).await;
        let mut world = Self { governor, settings, ..self };
        world.check();
        let now = world.now();
        for id in world.model.budgets.keys() {
            let standing = world.governor.books().standing(id, now).expect("an account");
            assert!(standing.iter().all(|limit| limit.known));
        }
        world
    }
}
