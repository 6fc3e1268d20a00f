//! The connection to a server that gateways share, and whether it may be asked. Whoever finds it
//! slow or gone says so once; from then on nobody waits for it, while a task looks for it in the
//! background.
//!
//! What the server is asked is no business of this file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Longest wait for a new connection: name, TLS and password.
const CONNECT: Duration = Duration::from_secs(1);

/// A connection that nobody uses is looked at so often.
const LOOK: Duration = Duration::from_secs(5);

/// Pause before the first try, and the longest one: each try that fails doubles it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A connection that lasted so long was good: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);

/// One server, there or not.
pub(crate) struct Link {
    client: Client,
    /// What is logged when it is lost, and when it is there.
    words: [&'static str; 2],
    /// Longest wait for an answer.
    patience: Duration,
    open: RwLock<Option<Open>>,
    /// How many connections there were.
    count: AtomicU64,
    lost: Notify,
    /// The server is there again.
    pub(super) back: Notify,
}

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Open {
    number: u64,
    pub(crate) connection: MultiplexedConnection,
}

impl Link {
    pub(crate) fn new(client: Client, patience: Duration, words: [&'static str; 2]) -> Self {
        Self {
            client,
            words,
            patience,
            open: RwLock::default(),
            count: AtomicU64::new(0),
            lost: Notify::new(),
            back: Notify::new(),
        }
    }

    /// The connection; `None`: nobody may wait for the server now.
    pub(crate) fn open(&self) -> Option<Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An answer that came in time. Else the connection is given up.
    pub(crate) async fn answer<T>(
        &self,
        open: &Open,
        patience: Duration,
        asked: impl Future<Output = RedisResult<T>>,
    ) -> Option<T> {
        let why = match timeout(patience, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", patience.as_millis()),
        };
        let mut now = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Others that waited for the same connection find the next one, or none.
        if now.as_ref().is_some_and(|now| now.number == open.number) {
            *now = None;
            tracing::warn!(why, "{}", self.words[0]);
            self.lost.notify_one();
        }
        None
    }

    /// One try.
    pub(crate) async fn connect(&self) -> Result<(), String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let connected = timeout(CONNECT, connecting).await.map_err(|_| "no connection in time")?;
        let mut connection = connected.map_err(|error| error.to_string())?;
        let asked = timeout(self.patience, ping(&mut connection)).await;
        asked.map_err(|_| "no answer in time")?.map_err(|error| error.to_string())?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let open = Open { number, connection };
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
        self.back.notify_one();
        tracing::info!("{}", self.words[1]);
        Ok(())
    }

    /// Keeps the connection, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let (mut since, mut pause) = (Some(Instant::now()), PAUSE.0);
        loop {
            while let Some(open) = self.open() {
                tokio::select! {
                    () = self.lost.notified() => {}
                    () = sleep(LOOK) => {
                        let mut connection = open.connection.clone();
                        self.answer(&open, self.patience, ping(&mut connection)).await;
                    }
                }
            }
            if since.take().is_some_and(|since| since.elapsed() >= GOOD) {
                pause = PAUSE.0;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            match self.connect().await {
                Ok(()) => since = Some(Instant::now()),
                Err(why) => tracing::debug!(why, "still: {}", self.words[0]),
            }
        }
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("PING").query_async(connection).await
}
