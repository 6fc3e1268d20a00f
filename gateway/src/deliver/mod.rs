//! What leaves this machine by itself: alerts to people, the audit to other places. What they say
//! and when they are due is `govern::deliver`'s; here are the sockets.
//!
//! Nothing waits in memory that could be lost: an alert is a row before it counts as taken, and a
//! sink reads the audit from the database, page by page, and writes down how far it has got. Killed
//! at any moment, this delivers something twice rather than not at all.

mod alerts;
mod export;
mod file;
mod http;
mod mail;
mod otlp;
mod s3;
pub mod settings;
mod syslog;
pub mod target;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use govern::Governor;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use settings::Settings;

pub(crate) use mail::{mailbox, server};
pub(crate) use webhook::key;

/// Why something did not arrive. Holds no secret: it is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    why: String,
    /// A smaller piece might.
    too_large: bool,
}

impl Failed {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), too_large: false }
    }
}

/// The tasks that deliver. Dropped, they end where they are.
#[must_use]
#[derive(Debug)]
pub struct Deliver {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Begins to deliver.
///
/// # Errors
/// In words: something that was named cannot be used.
pub fn start(
    governor: &Governor,
    settings: Settings,
    metrics: &Arc<Metrics>,
) -> Result<Deliver, String> {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let Settings { webhooks, mail, sinks, proxies, pace } = settings;
    let mut channels = Vec::new();
    for webhook in webhooks {
        channels.push(alerts::Channel::webhook(&webhook, &proxies)?);
    }
    if let Some(mail) = mail {
        channels.push(alerts::Channel::mail(&mail)?);
    }
    let shared = alerts::Shared::new(governor.clone(), metrics, pace.clone(), stopped.clone());
    alerts::start(&mut tasks, &shared, channels);
    for sink in sinks {
        let name = sink.target.name();
        let sink = export::Sink::open(sink, &proxies)?;
        tracing::info!(sink = %name, "the audit is exported");
        let exporter =
            export::Exporter::new(governor.clone(), name, sink, metrics, &pace, stopped.clone());
        tasks.spawn(exporter.run());
    }
    Ok(Deliver { tasks, stop })
}

impl Deliver {
    /// Delivers what there is, and ends. Not for longer than `most`; what is left waits in the
    /// database.
    pub async fn finish(mut self, most: Duration) {
        let _ = self.stop.send(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(most, all).await;
    }
}

/// Sleeps for some time, or until the end is near: `true`.
async fn sleep(stop: &mut watch::Receiver<bool>, time: Duration) -> bool {
    // Whoever could say so is gone: that says it too.
    tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_ok()
}

/// A number that nobody foresees, for pauses that scatter.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without chance all pauses are the shortest: still pauses.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
