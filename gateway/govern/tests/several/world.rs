//! Up to three gateways on one PostgreSQL, random budgets, and lists of all that was ever made: the
//! lists are what the budgets are held against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use govern::budget::window::{Period, Window, zone};
use govern::entity::{Budget, Entity, Limit, Project, Raise};
use govern::governor::Clock;
use govern::ledger::{Outcome, Tokens};
use govern::store::documents::Edit;
use govern::{Id, Money, Operation, Rule, Scope, Settings};
use hearth_tests::simulation::random::Random;
use sqlx::Row as _;

use super::gateway::{Gateway, INPUT, OUTPUT, back, quick, wait, within};
use super::shop::{BEGIN, Folder, key, limit};

const MINUTE: i64 = 60_000;
const SECOND: Duration = Duration::from_secs(1);

/// A request that runs, or whose gateway has died.
pub(super) struct Running {
    operation: Arc<Operation>,
    pub(super) gateway: usize,
    key: Id,
    at: i64,
    input: u64,
    made: u32,
    handed: u32,
}

/// Who pays, when, and how much.
struct Row {
    operation: Id,
    gateway: usize,
    scopes: Vec<Scope>,
    at: i64,
    cost: i64,
    /// The death of its gateway, where that came before the ledger's line.
    adrift: Option<Adrift>,
}

/// A gateway died, and what its journal has is in nobody's books until it is back.
#[derive(Clone, Copy)]
struct Adrift {
    gateway: usize,
    /// How many edits there had been when it died, and when it came back.
    from: u32,
    until: u32,
}

impl Adrift {
    /// A budget that was made meanwhile does not know of it, and what was leased of that budget by
    /// then is spent all the same.
    fn is_known(self, since: u32) -> bool {
        !(self.from < since && since <= self.until)
    }
}

/// What happened: a run in which nothing did would prove nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) admitted: u32,
    pub(super) refused: u32,
    pub(super) unavailable: u32,
    pub(super) extended: u32,
    pub(super) crashes: u32,
    pub(super) outages: u32,
}

pub(super) struct World {
    pub(super) random: Random,
    clock: Arc<AtomicI64>,
    folder: Folder,
    url: String,
    /// By number; `None`: it has died or ended.
    pub(super) gateways: Vec<Option<Gateway>>,
    /// Those that died and may come back.
    pub(super) dead: Vec<(usize, Settings)>,
    keys: Vec<Id>,
    scopes: Vec<Scope>,
    budgets: BTreeMap<Id, Budget>,
    /// The edit by which each of them counts what it does.
    since: BTreeMap<Id, u32>,
    edits: u32,
    rows: Vec<Row>,
    pub(super) running: Vec<Running>,
    /// Spent and held, as last seen.
    seen: BTreeMap<(Id, usize, i64), i64>,
    serial: u32,
    pub(super) tally: Tally,
}

fn cost(input: u64, output: u32) -> i64 {
    (input * INPUT + u64::from(output) * OUTPUT) as i64
}

impl World {
    pub(super) fn new(seed: u64, url: String) -> Self {
        let folder = Folder::new(&format!("random-{seed}"));
        let mut world = Self {
            random: Random::new(seed),
            clock: Arc::new(AtomicI64::new(BEGIN)),
            folder,
            url,
            gateways: Vec::new(),
            dead: Vec::new(),
            keys: Vec::new(),
            scopes: vec![Scope::Everything],
            budgets: BTreeMap::new(),
            since: BTreeMap::new(),
            edits: 0,
            rows: Vec::new(),
            running: Vec::new(),
            seen: BTreeMap::new(),
            serial: 0,
            tally: Tally::default(),
        };
        world.open();
        world.tree();
        world.open();
        for _ in 0..3 {
            world.new_budget();
        }
        world
    }

    /// Another gateway.
    pub(super) fn open(&mut self) {
        let name = format!("g{}", self.gateways.len());
        let clock = Clock::Set(Arc::clone(&self.clock));
        let gateway = Gateway::new(&self.folder.0, &name, &self.url, &clock, quick());
        self.gateways.push(Some(gateway));
    }

    pub(super) fn living(&self) -> Vec<usize> {
        let living = self.gateways.iter().enumerate().filter(|(_, gateway)| gateway.is_some());
        living.map(|(at, _)| at).collect()
    }

    fn gateway(&self, at: usize) -> &Gateway {
        self.gateways[at].as_ref().expect("it lives")
    }

    pub(super) fn any(&mut self) -> usize {
        let living = self.living();
        self.random.pick(&living)
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Two projects of one team, with two keys each.
    fn tree(&mut self) {
        let gateway = self.gateway(0);
        let (organisation, team) = {
            let directory = gateway.governor().directory();
            let project = directory.project(&gateway.shop().project).expect("a project");
            (gateway.shop().organisation.clone(), project.team.clone())
        };
        let mut edits = Vec::new();
        let mut scopes = vec![Scope::Organisation(organisation.clone()), Scope::Team(team.clone())];
        let mut keys = Vec::new();
        for name in ["x", "y"] {
            let project = Project {
                id: Id::new(Project::KIND, BEGIN),
                team: team.clone(),
                name: name.to_owned(),
                ..Project::default()
            };
            scopes.push(Scope::Project(project.id.clone()));
            edits.push(Edit::put(&project));
            for label in ["1", "2"] {
                let mut key = key(&organisation, &project.id, None);
                key.label = label.to_owned();
                scopes.push(Scope::Key(key.id.clone()));
                edits.push(Edit::put(&key));
                keys.push(key.id);
            }
        }
        gateway.put(edits).expect("an edit");
        self.scopes.extend(scopes);
        self.keys = keys;
    }

    fn limits(&mut self) -> Vec<Limit> {
        let count = 1 + self.random.index(2);
        let limit = |random: &mut Random, now: i64| {
            let nano = 1000 * 10_i64.pow(random.index(3) as u32) * random.between(1, 9) as i64;
            let raises = (0..random.index(2)).map(|_| Raise {
                nano_usd: Money(random.between(1, 50_000) as i64),
                from: now - MINUTE,
                until: now + random.between(1, 600) as i64 * MINUTE,
                reason: "a fair".to_owned(),
            });
            let raises = raises.collect();
            let period = random.pick(&Period::ALL);
            Limit { period, soft: random.permille(150), raises, ..limit(nano) }
        };
        (0..count).map(|_| limit(&mut self.random, self.clock.load(Ordering::SeqCst))).collect()
    }

    pub(super) fn new_budget(&mut self) {
        let scope = self.random.index(self.scopes.len());
        let limits = self.limits();
        self.serial += 1;
        let budget = Budget {
            id: Id::new(Budget::KIND, self.now()),
            name: format!("budget {}", self.serial),
            scope: self.scopes[scope].clone(),
            ..self.gateway(self.living()[0]).shop().budget(limits)
        };
        self.set(budget);
    }

    /// An edit through any gateway, and the moment when all of them know.
    fn set(&mut self, budget: Budget) {
        let at = self.any();
        self.gateway(at).put(vec![Edit::put(&budget)]).expect("an edit");
        for at in self.living() {
            wait(2 * SECOND, "an edit is known", || {
                let directory = self.gateway(at).governor().directory();
                directory.budget(&budget.id).is_some_and(|known| **known == budget)
            });
        }
        self.seen.retain(|(id, ..), _| *id != budget.id);
        self.edits += 1;
        let counts = |budget: &Budget| {
            let limits: Vec<_> = budget.limits.iter().map(|l| (l.period, l.soft)).collect();
            (budget.scope.clone(), limits)
        };
        if self.budgets.get(&budget.id).is_none_or(|old| counts(old) != counts(&budget)) {
            self.since.insert(budget.id.clone(), self.edits);
        }
        self.budgets.insert(budget.id.clone(), budget);
    }

    pub(super) fn edit(&mut self) {
        let ids: Vec<Id> = self.budgets.keys().cloned().collect();
        if ids.len() < 3 || (ids.len() < 8 && self.random.permille(300)) {
            return self.new_budget();
        }
        let old = self.budgets[&ids[self.random.index(ids.len())]].clone();
        match self.random.below(5) {
            0 => {
                let limits = self.limits();
                self.set(Budget { limits, ..old });
            }
            1 => {
                let scope = self.random.index(self.scopes.len());
                self.set(Budget { scope: self.scopes[scope].clone(), ..old });
            }
            2 => {
                let at = self.any();
                self.gateway(at).put(vec![Edit::delete(&old)]).expect("an edit");
                for at in self.living() {
                    wait(2 * SECOND, "an edit is known", || {
                        self.gateway(at).governor().directory().budget(&old.id).is_none()
                    });
                }
                self.seen.retain(|(id, ..), _| *id != old.id);
                self.budgets.remove(&old.id);
            }
            _ => {
                let mut limits = old.limits.clone();
                for limit in &mut limits {
                    limit.nano_usd = Money(limit.nano_usd.0 * self.random.pick(&[1, 2, 3]) / 2);
                    limit.soft = self.random.permille(150);
                }
                self.set(Budget { limits, ..old });
            }
        }
    }

    pub(super) fn jump(&mut self) {
        let step = match self.random.below(12) {
            0..=7 => self.random.between(1, 90) as i64 * 1000,
            8 | 9 => self.random.between(1, 700) as i64 * MINUTE,
            10 => self.random.between(1, 40) as i64 * 1440 * MINUTE,
            _ => -(self.random.between(1, 3000) as i64 * MINUTE),
        };
        self.clock.fetch_add(step, Ordering::SeqCst);
    }

    fn scopes_of(&self, key: &Id) -> Vec<Scope> {
        let gateway = self.gateway(self.living()[0]);
        let directory = gateway.governor().directory();
        directory.principal(directory.key(key).expect("a key")).expect("a principal").scopes()
    }

    /// Somebody asks.
    pub(super) fn admit(&mut self) {
        let gateway = self.any();
        let key = self.keys[self.random.index(self.keys.len())].clone();
        let (input, room) = (self.random.below(200), self.random.between(1, 900) as u32);
        let (operation, rule) = {
            let gateway = self.gateway(gateway);
            let ask = gateway.shop().ask("", input, room);
            let principal = {
                let directory = gateway.governor().directory();
                directory.principal(directory.key(&key).expect("a key")).expect("a principal")
            };
            gateway.run(gateway.governor().stock_up(&principal, &ask));
            match gateway.governor().admit(&principal, &ask) {
                Ok(operation) => (Some(operation), None),
                Err(denied) => (None, Some(denied.rule)),
            }
        };
        let Some(operation) = operation else {
            match rule {
                Some(Rule::Budget) => self.tally.refused += 1,
                // Without the database, or while a gateway that died does not know a new budget.
                Some(Rule::Unavailable) => self.tally.unavailable += 1,
                other => panic!("{other:?}"),
            }
            return;
        };
        self.tally.admitted += 1;
        let at = operation.admitted_at();
        self.running.push(Running { operation, gateway, key, at, input, made: 0, handed: 0 });
    }

    /// An engine makes some tokens.
    pub(super) fn make(&mut self, at: usize) {
        let (most, handed) = (self.random.between(1, 200) as u32, self.random.permille(600));
        let running = &mut self.running[at];
        for _ in 0..most {
            if running.made >= running.operation.allowance() {
                break;
            }
            running.made += 1;
            if running.operation.made(running.made).is_some() {
                self.tally.extended += 1;
            }
        }
        if handed {
            running.handed = running.made;
            running.operation.hands_out(running.made.into(), 0);
        }
    }

    /// It ends, one way or the other.
    pub(super) fn end(&mut self, at: usize) {
        let running = self.running.swap_remove(at);
        let Running { operation, gateway, key, at, input, made, handed } = running;
        let used = Tokens { input, output: made.into(), ..Tokens::default() };
        let cost = match self.random.below(4) {
            0 | 1 => {
                operation.used(used, Outcome::Cancelled, 0);
                operation.answered(made.into(), 0);
                operation.finish();
                cost(input, made)
            }
            2 => {
                operation.used(used, Outcome::Failed, 0);
                0
            }
            _ if handed == 0 => 0,
            // Nobody says anything more.
            _ => cost(input, handed),
        };
        let (operation, scopes) = (operation.id(), self.scopes_of(&key));
        self.rows.push(Row { operation, gateway, scopes, at, cost, adrift: None });
    }

    /// A gateway ends in the middle of everything. What its requests had handed out is owed.
    pub(super) fn crash(&mut self) {
        let number = self.any();
        let adrift = Some(Adrift { gateway: number, from: self.edits, until: u32::MAX });
        self.tally.crashes += 1;
        let settings = self.gateways[number].take().expect("it lives").crash();
        self.dead.push((number, settings));
        let (lost, kept) = self.running.drain(..).partition(|running| running.gateway == number);
        self.running = kept;
        let lost: Vec<Running> = lost;
        let written = self.written();
        let ended = self.rows.iter_mut().filter(|row| row.gateway == number);
        for row in ended.filter(|row| !written.contains(row.operation.as_str())) {
            row.adrift = adrift;
        }
        for Running { operation, gateway, key, at, input, handed, .. } in lost {
            let cost = if handed == 0 { 0 } else { cost(input, handed) };
            let (operation, scopes) = (operation.id(), self.scopes_of(&key));
            self.rows.push(Row { operation, gateway, scopes, at, cost, adrift });
        }
    }

    /// The operations that the ledger has.
    fn written(&self) -> BTreeSet<String> {
        let gateway = self.gateway(self.living()[0]);
        let query = sqlx::query("SELECT operation FROM ledger");
        let rows = gateway.run(query.fetch_all(gateway.governor().store().read()));
        rows.expect("the ledger").iter().map(|row| row.get(0)).collect()
    }

    pub(super) fn come_back(&mut self) {
        let at = self.random.index(self.dead.len());
        let (number, settings) = self.dead.swap_remove(at);
        self.gateways[number] = Some(back(&settings));
        // What it owes counts in all budgets that are made from now on.
        let adrift = self.rows.iter_mut().filter_map(|row| row.adrift.as_mut());
        for adrift in adrift.filter(|a| a.gateway == number && a.until == u32::MAX) {
            adrift.until = self.edits;
        }
    }

    fn total(&self, budget: &Budget, window: &Window) -> i64 {
        let counts =
            |scopes: &[Scope], at: i64| window.contains(at) && scopes.contains(&budget.scope);
        let since = self.since.get(&budget.id).copied().unwrap_or(0);
        let known = |row: &&Row| row.adrift.is_none_or(|adrift| adrift.is_known(since));
        let rows = self.rows.iter().filter(|row| counts(&row.scopes, row.at)).filter(known);
        let running = self.running.iter().filter(|r| counts(&self.scopes_of(&r.key), r.at));
        rows.map(|row| row.cost).sum::<i64>()
            + running.map(|r| cost(r.input, r.operation.allowance())).sum::<i64>()
    }

    /// Nothing is spent or held above what a hard limit allows; what was there before an edit or
    /// the end of a raise may be, and then nothing is added to it.
    pub(super) fn check(&mut self) {
        let utc = zone("UTC").expect("a zone");
        let now = self.now();
        let mut times: Vec<i64> = self.rows.iter().map(|row| row.at).collect();
        times.extend(self.running.iter().map(|running| running.at));
        let mut found = Vec::new();
        for budget in self.budgets.values() {
            for (at, limit) in budget.limits.iter().enumerate().filter(|(_, limit)| !limit.soft) {
                let mut windows: Vec<Window> =
                    times.iter().map(|time| Window::of(limit.period, *time, &utc)).collect();
                windows.sort_by_key(|window| window.start);
                windows.dedup();
                for window in windows {
                    let total = self.total(budget, &window);
                    let key = (budget.id.clone(), at, window.start);
                    let before = self.seen.get(&key).copied();
                    let most = before.map(|before| before.max(limit.allowed(now).0));
                    assert!(
                        most.is_none_or(|most| total <= most),
                        "{} limit {at}: {total} of {most:?}",
                        budget.name
                    );
                    found.push((key, total));
                }
            }
        }
        self.seen.extend(found);
    }

    /// All has ended: the ledger is what was made, and whoever is left can spend the rest.
    pub(super) fn close(mut self) -> Tally {
        while !self.running.is_empty() {
            self.end(0);
        }
        let at = self.living()[0];
        // Those that never come back: their time runs out.
        for (number, _) in &self.dead {
            let sql = "UPDATE gateways SET until = 0 WHERE name = $1";
            let query = sqlx::query(sql).bind(format!("g{number}"));
            let gateway = self.gateway(at);
            gateway.run(query.execute(gateway.governor().store().read())).expect("an update");
        }
        wait(5 * SECOND, "all are settled", || {
            let sql = "SELECT 1 FROM gateways WHERE until = 0";
            let gateway = self.gateway(at);
            let found =
                gateway.run(sqlx::query(sql).fetch_optional(gateway.governor().store().read()));
            found.expect("an answer").is_none()
        });
        let lost = !self.dead.is_empty();
        // And if they do come back, what they owe is booked all the same.
        while !self.dead.is_empty() {
            self.come_back();
        }
        for at in self.living() {
            self.gateway(at).run(self.gateway(at).governor().flush());
        }
        let made: i64 = self.rows.iter().map(|row| row.cost).sum();
        assert_eq!(self.gateway(at).ledger(), made, "the ledger is what was made");
        if !lost {
            // By now every gateway knows what all of them owe.
            self.rows.iter_mut().for_each(|row| row.adrift = None);
            self.spend_the_rest(at);
        }
        let gateway = self.gateways[at].take().expect("it lives");
        gateway.run(gateway.governor().flush());
        gateway.run(super::ledger::check_sums(gateway.governor()));
        drop(gateway);
        self.tally
    }

    /// What a key has left of its tightest budget can be spent by any gateway to the last token.
    fn spend_the_rest(&mut self, at: usize) {
        let key = self.keys[0].clone();
        let scopes = self.scopes_of(&key);
        let gateway = self.gateway(at);
        let utc = zone("UTC").expect("a zone");
        let now = self.now();
        let principal = {
            let directory = gateway.governor().directory();
            directory.principal(directory.key(&key).expect("a key")).expect("a principal")
        };
        let budgets: Vec<&Budget> =
            self.budgets.values().filter(|budget| scopes.contains(&budget.scope)).collect();
        let left = |more: i64| {
            let hard =
                budgets.iter().flat_map(|budget| budget.limits.iter().map(move |l| (budget, l)));
            let hard = hard.filter(|(_, limit)| !limit.soft);
            let left = hard.map(|(budget, limit)| {
                let window = Window::of(limit.period, now, &utc);
                limit.allowed(now).0 - self.total(budget, &window) - more
            });
            left.min()
        };
        if left(0).is_none() {
            return;
        }
        let mut spent = 0;
        let rest = within(10 * SECOND, || {
            let ask = gateway.shop().ask("", 0, 500);
            gateway.run(gateway.governor().stock_up(&principal, &ask));
            if let Ok(operation) = gateway.governor().admit(&principal, &ask) {
                let made = gateway.generate(&operation, 500);
                operation.answered(made.into(), 0);
                spent += operation.finish().cost.0;
                return Err("more of it".to_owned());
            }
            match left(spent) {
                Some(left) if left < OUTPUT as i64 => Ok(left),
                left => Err(format!("{left:?} are left")),
            }
        });
        assert!(spent == 0 || rest >= 0, "{rest}");
    }
}
