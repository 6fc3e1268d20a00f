//! Judges line by line, as requests are judged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::books::Books;
use super::count::Counts;
use super::lines::Line;
use super::{Example, Findings, NotJudged};
use crate::directory::Directory;
use crate::entity::PriceSheet;
use crate::governor::unpriced;
use crate::identity::Principal;
use crate::ledger::Tokens;
use crate::policy::check;
use crate::price::ModelPrice;
use crate::{Ask, Denied, Id, Money, Rule, Scope};

/// Requests that an answer names.
const EXAMPLES_MAX: usize = 20;

/// Who asked, remembered; and for how many models each.
const KNOWN_MAX: usize = 10_000;
const MODELS_MAX: usize = 1_000;

/// What no line of the ledger has.
const NEVER: &[(&str, &str)] = &[
    ("tools", "the ledger has no names of tools"),
    ("rates", "the ledger has no moments finer than a millisecond, nor what was expected"),
    ("max_tokens", "the ledger has what was made and not what was asked for"),
    ("label", "the ledger has the label of all layers together, not the request's own"),
    ("models", "the ledger has the model that answered, not the name that it was asked by"),
    ("keys", "whether a key was revoked or a person disabled since is not looked at"),
    ("refused", "requests that were refused at the time are not in the ledger"),
];

/// The replay.
pub(super) struct Judge<'d> {
    directory: &'d Directory,
    sheet: Option<&'d PriceSheet>,
    books: Books,
    known: HashMap<[String; 5], Option<Arc<Who>>>,
    findings: Findings,
    by: [Counts; 4],
    nobody: u64,
    gone: u64,
}

/// Who asked, as the directory has them now.
struct Who {
    principal: Principal,
    scopes: Vec<Scope>,
    /// Who pays, by model.
    payers: Mutex<HashMap<String, Arc<[usize]>>>,
    /// A layer that the ledger names is not there any more.
    gone: bool,
}

impl<'d> Judge<'d> {
    pub(super) fn new(
        directory: &'d Directory,
        sheet: Option<&'d PriceSheet>,
        books: Books,
    ) -> Self {
        let (known, findings) = (HashMap::new(), Findings::default());
        Self {
            directory,
            sheet,
            books,
            known,
            findings,
            by: Default::default(),
            nobody: 0,
            gone: 0,
        }
    }

    /// Takes the next line.
    pub(super) fn take(&mut self, line: &Line) {
        self.findings.requests += 1;
        self.findings.recorded = self.findings.recorded.plus(line.cost);
        self.books.reach(line.admitted_at);
        let Some(who) = self.who(&line.whose) else {
            self.nobody += 1;
            self.books.spent = self.books.spent.plus(line.cost);
            return;
        };
        self.gone += u64::from(who.gone);
        if let Err(denied) = self.judge(line, &who) {
            self.refuse(line, &denied);
        }
    }

    fn judge(&mut self, line: &Line, who: &Who) -> Result<(), Denied> {
        let at = line.admitted_at;
        let layers = who.principal.layers();
        let source: Option<IpAddr> = line.source.parse().ok();
        check::door(&layers, source, at)?;
        let room = u32::try_from(line.tokens.output).unwrap_or(u32::MAX);
        let ask = Ask {
            model: line.model.clone(),
            input_tokens: line.tokens.input,
            choices: 1,
            room,
            ..Ask::default()
        };
        let allowed = check::request(&layers, &ask)?;
        self.findings.shortened += u64::from(allowed.max_output < room);
        let output = line.tokens.output.min(allowed.max_output.into());
        let tokens = Tokens { output, ..line.tokens };
        let payers = self.payers(who, &line.model);
        let sheet = self.sheet.or_else(|| self.directory.prices_at(at).map(|sheet| &**sheet));
        let price = sheet.and_then(|sheet| sheet.price(&line.model));
        if !price.is_some_and(ModelPrice::is_bounded) && self.books.any_hard(&payers) {
            return Err(unpriced(&line.model, price.is_some()));
        }
        let price = price.map(|price| price.of(line.service_tier));
        let Some(price) = price.filter(|price| !price.is_free()) else { return Ok(()) };
        let first = Tokens { output: output.min(1), ..price.dearest(tokens.input) };
        let least = price.cost(&first);
        if !self.books.hold(&payers, at, least) {
            return Err(Denied::new(Rule::Budget, "a budget has less left"));
        }
        // Nobody pays for our faults.
        let cost = if line.failed { Money::ZERO } else { price.billed(&tokens, line.device_us) };
        self.books.begin(payers, (at, line.settled_at), (least, cost));
        Ok(())
    }

    fn refuse(&mut self, line: &Line, denied: &Denied) {
        let rule = denied.rule.name();
        let [_, team, _, _, key] = &line.whose;
        self.findings.refused += 1;
        for (counts, name) in self.by.iter_mut().zip([rule, key, team, &line.model]) {
            counts.add(name);
        }
        if self.findings.examples.len() < EXAMPLES_MAX {
            self.findings.examples.push(Example { operation: line.operation.clone(), rule });
        }
    }

    /// `None`: their organisation is not there any more.
    fn who(&mut self, whose: &[String; 5]) -> Option<Arc<Who>> {
        if let Some(known) = self.known.get(whose) {
            return known.clone();
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let who = who(self.directory, whose).map(Arc::new);
        self.known.insert(whose.clone(), who.clone());
        who
    }

    fn payers(&self, who: &Who, model: &str) -> Arc<[usize]> {
        let mut known = who.payers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(payers) = known.get(model) {
            return Arc::clone(payers);
        }
        if known.len() >= MODELS_MAX {
            known.clear();
        }
        let payers = self.books.payers(&who.scopes, model);
        known.insert(model.to_owned(), Arc::clone(&payers));
        payers
    }

    pub(super) fn findings(mut self) -> Findings {
        self.books.finish();
        let never = NEVER.iter().map(|(what, why)| NotJudged { what, requests: None, why });
        let mut not_judged: Vec<NotJudged> = never.collect();
        if self.books.left_out {
            let why = "budgets over everything count other organisations too";
            not_judged.push(NotJudged { what: "everything", requests: None, why });
        }
        for (what, count, why) in [
            ("organisation", self.nobody, "it was deleted, so nothing of the request is judged"),
            ("layers", self.gone, "the key, person, project or team was deleted since"),
        ] {
            let requests = Some(count);
            not_judged.extend((count > 0).then_some(NotJudged { what, requests, why }));
        }
        let [by_rule, by_key, by_team, by_model] = self.by.map(Counts::shown);
        let (cut, would_be) = (self.books.cut, self.books.spent);
        Findings { cut, would_be, by_rule, by_key, by_team, by_model, not_judged, ..self.findings }
    }
}

fn who(directory: &Directory, whose: &[String; 5]) -> Option<Who> {
    let [organisation, team, project, user, key] = whose.each_ref().map(|id| Id::of(id));
    let organisation = directory.organisation(&organisation?)?;
    let found = Principal {
        organisation: Arc::clone(organisation),
        team: team.as_ref().and_then(|id| directory.team(id)).cloned(),
        project: project.as_ref().and_then(|id| directory.project(id)).cloned(),
        user: user.as_ref().and_then(|id| directory.user(id)).cloned(),
        key: key.as_ref().and_then(|id| directory.key(id)).cloned(),
        grants: Vec::new(),
    };
    let there =
        [found.team.is_some(), found.project.is_some(), found.user.is_some(), found.key.is_some()];
    let named = [&team, &project, &user, &key].map(Option::is_some);
    let gone = named != there;
    let scopes = found.scopes();
    Some(Who { principal: found, scopes, payers: Mutex::default(), gone })
}
