//! Alerts on their way: from memory into the database, from there to each channel, again and again
//! until it has taken them. Only that the database is away goes without it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::deliver::{Notice, pause};
use govern::store::StoreError;
use govern::store::deliveries::Due;
use govern::{Governor, Millis};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::mail::Mail;
use super::settings::{self, Pace};
use super::target::short_hash;
use super::webhook::Webhook;
use super::{Failed, random, sleep};
use crate::metrics::Metrics;
use crate::outbound::Proxies;

/// Alerts written down at once.
const ROWS_MAX: usize = 50;

/// For so long a delivery belongs to whoever began it: longer than any takes.
const LEASE_MS: Millis = 60_000;

/// Between two clearings of what is over.
const FORGET: Duration = Duration::from_secs(3600);

/// A look at the database takes no longer, or it has not answered.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Who is told.
pub(super) struct Channel {
    /// In the database, in metrics and logs: holds nothing secret.
    name: String,
    way: Way,
}

enum Way {
    Webhook(Box<Webhook>),
    Mail(Box<Mail>),
}

impl Channel {
    pub(super) fn webhook(webhook: &settings::Webhook, proxies: &Proxies) -> Result<Self, String> {
        let name = format!("webhook:{}", short_hash(webhook.url.reveal()));
        let way = Webhook::open(webhook, proxies).map_err(|why| format!("alerts.webhook: {why}"));
        Ok(Self { name, way: Way::Webhook(Box::new(way?)) })
    }

    pub(super) fn mail(mail: &settings::Mail) -> Result<Self, String> {
        let name = format!("mail:{}", short_hash(&mail.to.join(",")));
        let way = Mail::open(mail).map_err(|why| format!("alerts.smtp: {why}"))?;
        Ok(Self { name, way: Way::Mail(Box::new(way)) })
    }

    async fn send(&self, id: &str, body: &str, now: Millis) -> Result<(), Failed> {
        match &self.way {
            Way::Webhook(webhook) => webhook.send(id, body, now).await,
            Way::Mail(mail) => mail.send(id, body).await,
        }
    }
}

/// What all tasks for alerts have.
#[derive(Clone)]
pub(super) struct Shared {
    governor: Governor,
    metrics: Arc<Metrics>,
    pace: Pace,
    stop: watch::Receiver<bool>,
}

impl Shared {
    pub(super) fn new(
        governor: Governor,
        metrics: &Arc<Metrics>,
        pace: Pace,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { governor, metrics: Arc::clone(metrics), pace, stop }
    }
}

/// Begins: one task that writes down, one for each channel.
pub(super) fn start(tasks: &mut JoinSet<()>, shared: &Shared, channels: Vec<Channel>) {
    let channels: Vec<(Arc<Channel>, Arc<Notify>)> =
        channels.into_iter().map(|channel| (Arc::new(channel), Arc::default())).collect();
    for (channel, came) in &channels {
        tasks.spawn(deliver(shared.clone(), Arc::clone(channel), Arc::clone(came)));
    }
    let heard = (Instant::now(), shared.governor.now());
    tasks.spawn(Desk { shared: shared.clone(), channels, heard, told: false }.run());
}

/// Writes alerts down, and watches the database.
struct Desk {
    shared: Shared,
    channels: Vec<(Arc<Channel>, Arc<Notify>)>,
    /// When the database last answered.
    heard: (Instant, Millis),
    told: bool,
}

impl Desk {
    async fn run(mut self) {
        let mut stop = self.shared.stop.clone();
        let mut forgot: Option<Instant> = None;
        let mut direct = JoinSet::new();
        loop {
            let patience = LOOK_MAX.min(self.shared.pace.away / 4);
            let written = timeout(patience, self.write()).await;
            match written.unwrap_or(Err(None)) {
                Ok(()) => {
                    self.told = false;
                    self.heard = (Instant::now(), self.shared.governor.now());
                    if forgot.is_none_or(|at| at.elapsed() >= FORGET) {
                        forgot = Some(Instant::now());
                        self.forget().await;
                    }
                }
                Err(error) => self.away(error, &mut direct),
            }
            if *stop.borrow() {
                return;
            }
            tokio::select! {
                _ = sleep(&mut stop, self.shared.pace.poll) => {}
                () = self.shared.governor.notice_came() => {}
            }
        }
    }

    /// Brings all that waits into the database; `Err(None)`: it does not answer.
    async fn write(&self) -> Result<(), Option<StoreError>> {
        let governor = &self.shared.governor;
        let names: Vec<String> = self.channels.iter().map(|(c, _)| c.name.clone()).collect();
        loop {
            let notices = governor.notices(ROWS_MAX);
            if names.is_empty() {
                // Nobody is to be told; the log says it.
                governor.taken(notices.len());
            } else if !notices.is_empty() {
                governor.store().post(&notices, &names, governor.now()).await?;
                governor.taken(notices.len());
            }
            if notices.len() < ROWS_MAX {
                break;
            }
        }
        for (channel, came) in &self.channels {
            let count = governor.store().undelivered(&channel.name).await?;
            self.shared.metrics.deliveries().waiting(&channel.name, count);
            if count > 0 {
                came.notify_one();
            }
        }
        Ok(())
    }

    async fn forget(&self) {
        match self.shared.governor.store().forget(self.shared.governor.now()).await {
            Ok(0) => {}
            Ok(count) => tracing::error!(count, "alerts were given up after a week"),
            Err(error) => tracing::warn!(%error, "old alerts are not forgotten yet"),
        }
    }

    /// The database does not answer. When that lasts, people are told without it: once, for as long
    /// as this process lives.
    fn away(&mut self, error: Option<StoreError>, direct: &mut JoinSet<()>) {
        let governor = &self.shared.governor;
        let (heard, at) = self.heard;
        if self.told || heard.elapsed() < self.shared.pace.away {
            return;
        }
        self.told = true;
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        tracing::error!(error, "the database is away; people are told");
        let notice = Notice::away(at, governor.gateway(), governor.now());
        direct.abort_all();
        for (channel, _) in &self.channels {
            let (shared, channel) = (self.shared.clone(), Arc::clone(channel));
            direct.spawn(tell(shared, channel, notice.clone()));
        }
    }
}

/// Tells something until it has arrived or the end is near.
async fn tell(shared: Shared, channel: Arc<Channel>, notice: Notice) {
    let (body, mut stop) = (notice.body.to_string(), shared.stop.clone());
    for failures in 1.. {
        match channel.send(&notice.id, &body, shared.governor.now()).await {
            Ok(()) => return shared.metrics.deliveries().delivered(&channel.name),
            Err(failed) => report(&shared, &channel, &notice.id, &failed),
        }
        let time = pause(failures, shared.pace.pause, shared.pace.alert_pause_max, random());
        if sleep(&mut stop, time).await {
            return;
        }
    }
}

/// Delivers what is due to one channel, one alert after the other.
async fn deliver(shared: Shared, channel: Arc<Channel>, came: Arc<Notify>) {
    let mut stop = shared.stop.clone();
    // Whoever starts a server again has mended something, and a process that was killed has left
    // what it had begun.
    if let Err(error) = shared.governor.store().all_due(&channel.name, shared.governor.now()).await
    {
        tracing::debug!(%error, "alerts are tried again when they are due");
    }
    loop {
        match deliver_one(&shared, &channel).await {
            Ok(true) => continue,
            Ok(false) => {}
            // The desk watches the database, and says so.
            Err(error) => tracing::debug!(%error, "what is due is not known"),
        }
        if *stop.borrow() {
            return;
        }
        tokio::select! {
            _ = sleep(&mut stop, shared.pace.poll.saturating_mul(5)) => {}
            () = came.notified() => {}
        }
    }
}

/// `true`: there may be more.
async fn deliver_one(shared: &Shared, channel: &Channel) -> Result<bool, StoreError> {
    let (governor, store) = (&shared.governor, shared.governor.store());
    let now = governor.now();
    let due = store.due(&channel.name, now, now.saturating_add(LEASE_MS)).await?;
    let Some(due) = due else { return Ok(false) };
    let Due { alert, body, attempt } = &due;
    match channel.send(alert, body, now).await {
        Ok(()) => {
            shared.metrics.deliveries().delivered(&channel.name);
            store.delivered(alert, &channel.name).await?;
        }
        Err(failed) => {
            report(shared, channel, alert, &failed);
            let time = pause(*attempt, shared.pace.pause, shared.pace.alert_pause_max, random());
            let time = Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
            store.postponed(&due, &channel.name, governor.now().saturating_add(time)).await?;
        }
    }
    Ok(true)
}

fn report(shared: &Shared, channel: &Channel, alert: &str, failed: &Failed) {
    shared.metrics.deliveries().failed(&channel.name);
    tracing::warn!(channel = %channel.name, alert, "an alert did not arrive: {}", failed.why);
}
