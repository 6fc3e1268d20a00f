//! One node, as a gateway sees it: what it has told, the way to it while there is one, what was
//! sent there and has not ended, and how well it does at that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::choose::{self, Candidate};
use super::dial::Way;
use super::endpoint::Endpoint;
use super::picture::{Lost, Offer, Picture};
use super::protocol::{Load, ReadLoad, State};
use crate::breaker::{Breaker, Condition};
use crate::digest;
use crate::metrics::GpuReading;

/// See the module.
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    /// For choices that stay.
    pub(super) number: u64,
    /// What it serves is to be looked at.
    pub(super) news: Notify,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// While it speaks.
    there: Option<(Picture, Way)>,
    /// By the name that the node tells the load under.
    sent: HashMap<String, Sent>,
    /// A node may speak and fail at every request of a model. By the model's name.
    breakers: HashMap<String, Breaker>,
}

impl Inner {
    /// It has failed at requests of this model, and is left alone with them.
    fn is_broken(&self, model: &str, now: Instant) -> bool {
        let breaker = self.breakers.get(model);
        breaker.is_some_and(|own| matches!(own.condition(now), Condition::Broken(_)))
    }
}

/// What was sent and has not ended: a node tells of it later than it is sent.
#[derive(Default)]
struct Sent {
    now: Amount,
    /// When the node last told of its load.
    told: Amount,
}

#[derive(Default, Clone, Copy)]
struct Amount {
    requests: u64,
    /// Of those that are read only.
    tokens: u64,
}

impl Sent {
    /// What the node has not told of.
    fn unknown(&self) -> Amount {
        Amount {
            requests: self.now.requests.saturating_sub(self.told.requests),
            tokens: self.now.tokens.saturating_sub(self.told.tokens),
        }
    }
}

/// A request at a node. Counts there until it is dropped.
pub(super) struct Sending {
    member: Arc<Member>,
    engine: String,
    tokens: u64,
    pub(super) way: Way,
}

impl Member {
    pub(super) fn new(endpoint: Endpoint) -> Arc<Self> {
        let number = digest::number(&[endpoint.to_string().as_bytes()]);
        Arc::new(Self { endpoint, number, news: Notify::new(), inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It speaks: this is its state, and the way to it.
    pub(super) fn up(&self, picture: Picture, way: Way) {
        let mut inner = self.inner();
        inner.there = Some((picture, way));
        let now = Instant::now();
        inner.breakers.values_mut().for_each(|breaker| breaker.renewed(now));
        inner.sent.values_mut().for_each(|sent| sent.told = sent.now);
    }

    /// It does not speak any more. What it has told is worth nothing.
    pub(super) fn down(&self) {
        self.inner().there = None;
    }

    /// Takes in what it tells; `Some`: models may have come or gone, and it has let these adapters
    /// go.
    pub(super) fn tell(&self, state: State) -> Result<Option<Vec<Offer>>, Lost> {
        let mut inner = self.inner();
        let Inner { there, sent, .. } = &mut *inner;
        let Some((picture, _)) = there else { return Ok(None) };
        if let State::Delta(delta) = &state {
            let models = delta.models.iter().map(|changed| &changed.name);
            for name in models.chain(delta.readers.iter().map(|(name, _)| name)) {
                if let Some(sent) = sent.get_mut(name) {
                    sent.told = sent.now;
                }
            }
        }
        let before = match &state {
            State::Snapshot(_) => picture.offers(),
            State::Delta(_) | State::Beat(_) => Vec::new(),
        };
        if !picture.apply(state)? {
            return Ok(None);
        }
        let gone = before.into_iter().filter(|offer| {
            offer.base.is_some() && !picture.has((&offer.name, &offer.fingerprint))
        });
        Ok(Some(gone.collect()))
    }

    /// What an adapter of this whole name is, where it serves one.
    pub(super) fn adapter(&self, id: &str) -> Option<String> {
        let inner = self.inner();
        inner.there.as_ref()?.0.adapter(id).map(str::to_owned)
    }

    /// It speaks, and serves this.
    pub(super) fn serves(&self, model: &str, fingerprint: &str) -> bool {
        let inner = self.inner();
        inner.there.as_ref().is_some_and(|(picture, _)| picture.has((model, fingerprint)))
    }

    /// It speaks, serves this, and takes requests.
    pub(super) fn takes(&self, name: (&str, &str)) -> bool {
        let inner = self.inner();
        inner.there.as_ref().is_some_and(|(picture, _)| !picture.draining && picture.has(name))
    }

    /// All that it serves, bases before their adapters, while it speaks.
    pub(super) fn offers(&self) -> Vec<Offer> {
        self.inner().there.as_ref().map(|(picture, _)| picture.offers()).unwrap_or_default()
    }

    /// What its GPUs do, while it speaks.
    pub(super) fn gpus(&self) -> Vec<GpuReading> {
        self.inner().there.as_ref().map(|(picture, _)| picture.gpus.clone()).unwrap_or_default()
    }

    pub(super) fn way(&self) -> Option<Way> {
        self.inner().there.as_ref().map(|(_, way)| way.clone())
    }

    pub(super) fn is_up(&self) -> bool {
        self.inner().there.is_some()
    }

    /// Something that was sent there has not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.inner().sent.values().any(|sent| sent.now.requests > 0)
    }

    /// It has been left alone for failures at a model, and has not answered there since: see
    /// [`Breaker`].
    pub(super) fn is_left_alone(&self) -> bool {
        self.inner().breakers.values().any(Breaker::is_open)
    }

    #[cfg(test)]
    pub(super) fn is_well(&self, model: &str) -> bool {
        !self.inner().is_broken(model, Instant::now())
    }

    /// What has come of requests of this model that were sent there.
    pub(super) fn learn<T>(&self, model: &str, tell: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut inner = self.inner();
        match inner.breakers.get_mut(model) {
            Some(breaker) => tell(breaker),
            None => tell(inner.breakers.entry(model.to_owned()).or_default()),
        }
    }

    /// What it has to do for a model, while it takes requests; also whether it is well.
    pub(super) fn load(&self, model: &str, fingerprint: &str) -> Option<(Load, bool)> {
        let inner = self.inner();
        let (picture, _) = inner.there.as_ref().filter(|(picture, _)| !picture.draining)?;
        let (_, known) = picture.find(model, fingerprint)?;
        Some((known.load, !inner.is_broken(model, Instant::now())))
    }

    /// What speaks for it, for a prompt of these pages. `None`: it is not there.
    pub(super) fn candidate(
        &self,
        (model, fingerprint): (&str, &str),
        chain: &[u64],
        (page_tokens, now): (u64, Instant),
    ) -> Option<Candidate> {
        let inner = self.inner();
        let (picture, _) = inner.there.as_ref()?;
        let (engine, known) = picture.find(model, fingerprint)?;
        let load = &known.load;
        let unknown = inner.sent.get(engine).map_or(0, |sent| sent.unknown().requests);
        let places = load.rows.saturating_sub(load.running.saturating_add(load.waiting));
        let held = u64::try_from(known.held(chain)).unwrap_or(u64::MAX);
        Some(Candidate {
            number: self.number,
            waiting: u64::from(load.waiting) + unknown.saturating_sub(places.into()),
            open: u64::from(load.open) + unknown,
            open_max: load.open_max.into(),
            held: held.saturating_mul(page_tokens),
            us_per_request: load.us_per_request,
            us_per_kilotoken: load.us_per_kilotoken,
            us_per_row: load.us_per_row,
            draining: picture.draining,
            broken: inner.is_broken(model, now),
            by_chance: false,
        })
    }

    /// The same for a model that reads and does not write.
    pub(super) fn read_load(&self, name: (&str, &str)) -> Option<(ReadLoad, bool)> {
        let inner = self.inner();
        let (picture, _) = inner.there.as_ref().filter(|(picture, _)| !picture.draining)?;
        Some((*picture.reader(name)?, !inner.is_broken(name.0, Instant::now())))
    }

    /// What speaks for it, for texts that are only read. Its line is a time: of all tokens that it
    /// has not read yet. `best` is a token's time at the fastest node.
    pub(super) fn read_candidate(
        &self,
        name: (&str, &str),
        best: Option<u64>,
    ) -> Option<Candidate> {
        let inner = self.inner();
        let (picture, _) = inner.there.as_ref()?;
        let load = picture.reader(name)?;
        let unknown = inner.sent.get(name.0).map(Sent::unknown).unwrap_or_default();
        let each = choose::us_per_kilotoken(load.ns_per_token, best);
        let line = load.tokens.saturating_add(unknown.tokens).saturating_mul(each) / 1000;
        Some(Candidate {
            number: self.number,
            waiting: u64::from(line > 0),
            us_per_request: line,
            open: u64::from(load.open) + unknown.requests,
            open_max: load.open_max.into(),
            us_per_kilotoken: each,
            draining: picture.draining,
            broken: inner.is_broken(name.0, Instant::now()),
            ..Candidate::default()
        })
    }

    /// A request goes there, to be read so many tokens of. `None`: there is no way any more, or no
    /// such model.
    pub(super) fn send(
        self: &Arc<Self>,
        (model, fingerprint): (&str, &str),
        tokens: u64,
    ) -> Option<Sending> {
        let mut inner = self.inner();
        let (picture, way) = inner.there.as_ref()?;
        let engine = match picture.find(model, fingerprint) {
            Some((engine, _)) => engine,
            None => picture.reader((model, fingerprint)).map(|_| model)?,
        };
        let (engine, way) = (engine.to_owned(), way.clone());
        let now = &mut inner.sent.entry(engine.clone()).or_default().now;
        now.requests += 1;
        now.tokens = now.tokens.saturating_add(tokens);
        Some(Sending { member: Arc::clone(self), engine, tokens, way })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(sent) = self.member.inner().sent.get_mut(&self.engine) {
            sent.now.requests = sent.now.requests.saturating_sub(1);
            sent.now.tokens = sent.now.tokens.saturating_sub(self.tokens);
        }
    }
}
