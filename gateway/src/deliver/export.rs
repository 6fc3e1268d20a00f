//! One sink's way through the audit: it reads what the sink has not taken yet, hands it over, and
//! writes down how far it is. What is not taken stays in the database; there is no queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::audit::export::write_json_line;
use govern::audit::{Broken, Record};
use govern::deliver::{Notice, Place, pause};
use govern::report;
use govern::store::{Kind, StoreError};
use govern::{Governor, Millis};
use reqwest::header::HeaderMap;
use tokio::sync::watch;

use super::file::Lines;
use super::http::Address;
use super::otlp::Otlp;
use super::s3::{self, S3};
use super::settings::{self, Pace};
use super::syslog::Syslog;
use super::target::Target;
use super::{Failed, random, sleep};
use crate::metrics::Metrics;
use crate::outbound::Proxies;

/// Records handed over at once, and bytes of their bodies.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
const OBJECT_BYTES: usize = 8 << 20;

/// Between two looks at chains of other gateways.
const OTHERS: Duration = Duration::from_secs(30);

/// Of failures in a row, which ones are logged beside the first.
const LOG_EACH: u32 = 20;

/// A place that takes records.
pub(super) enum Sink {
    Syslog(Box<Syslog>),
    File(Box<Lines>),
    Lines(Address),
    Otlp(Otlp),
    S3(Box<S3>),
}

impl Sink {
    pub(super) fn open(sink: settings::Sink, proxies: &Proxies) -> Result<Self, String> {
        let settings::Sink { target, s3 } = sink;
        let name = target.name();
        let opened = match (target, s3) {
            (Target::Syslog { transport, host, port }, _) => {
                Syslog::new(transport, host, port).map(|sink| Self::Syslog(Box::new(sink)))
            }
            (Target::File(path), _) => Lines::new(path).map(|sink| Self::File(Box::new(sink))),
            (Target::Lines(url), _) => Address::new(url, proxies).map(Self::Lines),
            (Target::Otlp(url), _) => Otlp::new(&url, proxies).map(Self::Otlp),
            (Target::S3(bucket), Some(key)) => {
                S3::new(bucket, key, proxies).map(|sink| Self::S3(Box::new(sink)))
            }
            (Target::S3(_), None) => Err("there is no key".to_owned()),
        };
        opened.map_err(|why| format!("audit.export: {name}: {why}"))
    }

    /// Hands records of one chain over. An error says that they may have arrived or not.
    async fn send(&mut self, records: &[Record], now: Millis) -> Result<(), Failed> {
        match self {
            Self::Syslog(syslog) => syslog.send(records).await,
            Self::File(file) => file.send(records).await,
            Self::Lines(address) => {
                let (kind, body) = ("application/x-ndjson", lines(records));
                address.post(kind, HeaderMap::new(), body).await.map(drop)
            }
            Self::Otlp(otlp) => {
                let rejected = otlp.send(records, now).await?;
                if rejected > 0 {
                    tracing::error!(rejected, "the collector refused records of the audit");
                }
                Ok(())
            }
            Self::S3(bucket) => bucket.send(records, now).await,
        }
    }

    /// Where a batch has to end for the sake of the sink: the last number that may be in it.
    fn end(&self, first: i64) -> i64 {
        match self {
            Self::S3(_) => (first.div_euclid(s3::OBJECT_RECORDS) + 1) * s3::OBJECT_RECORDS - 1,
            _ => i64::MAX,
        }
    }

    /// How long records wait for company.
    fn linger(&self, pace: &Pace) -> Duration {
        match self {
            Self::S3(_) => pace.linger.unwrap_or(s3::LINGER),
            _ => Duration::ZERO,
        }
    }
}

/// Records as JSON lines.
pub(super) fn lines(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        // Memory takes everything.
        let _ = write_json_line(&mut out, record);
    }
    out
}

/// Why a round failed.
enum Trouble {
    Store(StoreError),
    Sink(Failed),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A chain that somebody else should export.
struct Other {
    /// Where it stood when it last moved, and since when it has not.
    place: Place,
    since: Instant,
}

/// What brings records to a sink.
pub(super) struct Exporter {
    governor: Governor,
    name: String,
    sink: Sink,
    metrics: Arc<Metrics>,
    pace: Pace,
    stop: watch::Receiver<bool>,
    places: HashMap<String, Place>,
    others: HashMap<String, Other>,
    looked: Option<Instant>,
    /// Since when less than a batch waits.
    waits: Option<Instant>,
    /// Records in a batch; fewer once a sink has found one too large.
    count_max: usize,
}

impl Exporter {
    pub(super) fn new(
        governor: Governor,
        name: String,
        sink: Sink,
        metrics: &Arc<Metrics>,
        pace: &Pace,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let count_max = match sink {
            Sink::S3(_) => usize::try_from(s3::OBJECT_RECORDS).unwrap_or(BATCH_RECORDS),
            _ => BATCH_RECORDS,
        };
        Self {
            governor,
            name,
            sink,
            metrics: Arc::clone(metrics),
            pace: pace.clone(),
            stop,
            places: HashMap::new(),
            others: HashMap::new(),
            looked: None,
            waits: None,
            count_max,
        }
    }

    /// Exports until the end is near and all is exported, or does not get out.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let ends = *self.stop.borrow();
            let time = match self.round(ends).await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    self.pace.poll
                }
                Err(trouble) => {
                    failures += 1;
                    self.failed(&trouble, failures);
                    pause(failures, self.pace.pause, self.pace.pause_max, random())
                }
            };
            if ends {
                return;
            }
            sleep(&mut self.stop, time).await;
        }
    }

    fn failed(&mut self, trouble: &Trouble, failures: u32) {
        self.metrics.deliveries().failed(&self.name);
        let why = match trouble {
            Trouble::Store(error) => error.to_string(),
            Trouble::Sink(failed) => failed.why.clone(),
        };
        if let Trouble::Sink(Failed { too_large: true, .. }) = trouble {
            self.count_max = (self.count_max / 2).max(1);
        }
        // What goes on for hours is said now and then.
        if failures == 1 || failures.is_multiple_of(LOG_EACH) {
            tracing::error!(sink = %self.name, failures, "the audit is not exported: {why}");
        }
    }

    /// Hands over one batch of each chain. `true`: there may be more.
    async fn round(&mut self, ends: bool) -> Result<bool, Trouble> {
        let own = self.governor.gateway().to_owned();
        let mut more = self.step(&own, ends).await?;
        if self.looked.is_none_or(|at| at.elapsed() >= OTHERS.min(self.pace.adopt)) {
            self.looked = Some(Instant::now());
            for chain in report::chains(self.governor.store()).await? {
                if chain != own && self.is_left(&chain).await? {
                    more |= self.step(&chain, true).await?;
                }
            }
        } else {
            for chain in self.left() {
                more |= self.step(&chain, true).await?;
            }
        }
        Ok(more)
    }

    /// Chains of others that nobody exports any more, as of the last look.
    fn left(&self) -> Vec<String> {
        self.places.keys().filter(|chain| self.others.contains_key(*chain)).cloned().collect()
    }

    /// Whether records of a chain lie there and its own gateway does not export them: it was
    /// renamed, or is gone. SQLite has one gateway, so all other chains are of former ones.
    async fn is_left(&mut self, chain: &str) -> Result<bool, Trouble> {
        let store = self.governor.store();
        let place = store.place(&self.name, chain).await?;
        if place.number >= store.head(chain).await? {
            self.others.remove(chain);
            self.places.remove(chain);
            return Ok(false);
        }
        let patience = match store.kind() {
            Kind::Sqlite => Duration::ZERO,
            Kind::Postgres => self.pace.adopt,
        };
        let other = self.others.entry(chain.to_owned());
        let other = other.or_insert_with(|| Other { place: place.clone(), since: Instant::now() });
        let adopted = self.places.contains_key(chain);
        if other.place != place && !adopted {
            *other = Other { place, since: Instant::now() };
        }
        Ok(adopted || other.since.elapsed() >= patience)
    }

    /// Hands over one batch of a chain. `true`: there may be more.
    async fn step(&mut self, chain: &str, at_once: bool) -> Result<bool, Trouble> {
        let store = self.governor.store().clone();
        let from = match self.places.get(chain) {
            Some(place) => place.clone(),
            None => store.place(&self.name, chain).await?,
        };
        let lag = store.head(chain).await?.saturating_sub(from.number);
        self.metrics.deliveries().lag(&self.name, chain, lag);
        let bytes = if matches!(self.sink, Sink::S3(_)) { OBJECT_BYTES } else { BATCH_BYTES };
        let mut records = store.records_behind(chain, from.number, self.count_max, bytes).await?;
        let Some(first) = records.first().map(|record| record.number) else {
            self.waits = None;
            return Ok(false);
        };
        let end = self.sink.end(first);
        records.retain(|record| record.number <= end);
        let whole = records.last().is_some_and(|record| record.number == end)
            || records.len() >= self.count_max;
        let linger = self.sink.linger(&self.pace);
        let size = || records.iter().map(|record| record.body.len()).sum::<usize>();
        if !(at_once || linger.is_zero() || whole || size() >= bytes)
            && self.waits.get_or_insert_with(Instant::now).elapsed() < linger
        {
            return Ok(false);
        }
        let mut to = from.clone();
        for record in &records {
            self.verify(&mut to, record);
        }
        self.sink.send(&records, self.governor.now()).await.map_err(Trouble::Sink)?;
        self.waits = None;
        if !store.advance(&self.name, &from, &to).await? {
            // Somebody else exports this chain, so it has an exporter.
            self.places.remove(chain);
            self.others.remove(chain);
            return Ok(false);
        }
        self.metrics.deliveries().exported(&self.name, records.len());
        let left = lag.saturating_sub(i64::try_from(records.len()).unwrap_or(lag));
        self.metrics.deliveries().lag(&self.name, chain, left);
        self.places.insert(chain.to_owned(), to);
        Ok(left > 0)
    }

    /// What goes out is verified on the way: whoever tampered with the database is told of.
    fn verify(&self, place: &mut Place, record: &Record) {
        let number = place.number + 1;
        if let Some(why) = place.pass(record) {
            let broken = Broken { chain: record.chain.clone(), number, why };
            let notice = Notice::broken(&broken, self.governor.gateway(), self.governor.now());
            self.governor.tell(notice);
        }
    }
}
