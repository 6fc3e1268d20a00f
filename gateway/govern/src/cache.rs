//! Answers that several gateways share, in one Redis or Valkey: sealed texts under names, each for
//! a while. A server that is slow or away is as good as one that is empty.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Client;
use tokio::task::JoinSet;

use crate::limit::shared::Settings;
use crate::limit::shared::link::Link;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_millis(50);

/// Longest wait until something is written.
const WRITE: Duration = Duration::from_secs(1);

/// The server. Clones share it.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    /// It ends with this.
    _task: JoinSet<()>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.link.open().is_some() { "Shared(there)" } else { "Shared(away)" })
    }
}

fn name(key: &str) -> String {
    format!("hearth:answer:{key}")
}

impl Shared {
    /// Looks for the server of this URL, once for a moment and then in the background.
    ///
    /// # Errors
    /// The URL cannot be used. That the server is away is none.
    pub async fn start(url: &str) -> Result<Self, String> {
        let settings = Settings::new(url)?;
        let client = Client::open(settings.url.expose().as_str());
        let client = client.map_err(|error| error.to_string())?;
        let words = ["answers are not shared: their server does not answer", "answers are shared"];
        let link = Arc::new(Link::new(client, PATIENCE, words));
        if let Err(why) = link.connect().await {
            tracing::warn!(why, "answers are not shared until their server is there");
        }
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&link).keep());
        Ok(Self(Arc::new(Inner { link, _task: task })))
    }

    /// What is kept under a name, and for how long still; `None`: nothing, as far as is known in
    /// time.
    pub async fn get(&self, key: &str) -> Option<(String, Duration)> {
        let link = &self.0.link;
        let open = link.open()?;
        let (mut connection, mut both, name) = (open.connection.clone(), redis::pipe(), name(key));
        both.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let asked = both.query_async::<(Option<String>, i64)>(&mut connection);
        let (text, left_ms) = link.answer(&open, PATIENCE, asked).await?;
        Some((text?, Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))))
    }

    /// Keeps a text under a name for a while, as far as the server is there.
    pub async fn put(&self, key: &str, text: String, ttl: Duration) {
        let link = &self.0.link;
        let Some(open) = link.open() else { return };
        let (mut connection, mut command) = (open.connection.clone(), redis::cmd("SET"));
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg(name(key)).arg(text).arg("PX").arg(ttl);
        let asked = command.query_async::<()>(&mut connection);
        link.answer(&open, WRITE, asked).await;
    }
}
