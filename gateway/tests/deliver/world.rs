//! A governor with one key and one budget, and what delivers for it, in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gateway::config::Secret;
use gateway::deliver::settings::{Pace, S3Key, Settings, Sink, Webhook};
use gateway::deliver::{self, Deliver, target};
use gateway::metrics::Metrics;
use govern::budget::window::Period;
use govern::entity::{Budget, Limit, PriceSheet};
use govern::governor::{Clock, EditError, OpenError};
use govern::ledger::writer::Note;
use govern::ledger::{Outcome, Tokens};
use govern::price::{ModelPrice, TokenPrices};
use govern::store::StoreError;
use govern::store::documents::Edit;
use govern::{Ask, Governor, Id, Money, Scope, Sharing};

use super::receiver::PATIENCE;

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-gateway-deliver-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A governor at work.
pub(crate) struct World {
    pub(crate) governor: Governor,
    pub(crate) metrics: Arc<Metrics>,
    key: String,
}

/// Less patience than in production.
pub(crate) fn pace() -> Pace {
    Pace {
        poll: Duration::from_millis(20),
        pause: Duration::from_millis(50),
        pause_max: Duration::from_millis(400),
        alert_pause_max: Duration::from_millis(400),
        away: Duration::from_secs(2),
        adopt: Duration::from_secs(1),
        linger: Some(Duration::from_millis(100)),
    }
}

/// Where alerts go.
pub(crate) fn webhook(url: &str, secret: Option<&str>) -> Webhook {
    let secret = secret.map(|text| Secret::new(text.to_owned()));
    Webhook { url: Secret::new(url.to_owned()), secret }
}

/// Where the audit goes.
pub(crate) fn sinks(places: &[&str]) -> Settings {
    let key = S3Key {
        access_key: "AKIDTEST".to_owned(),
        secret_key: Secret::new("s3-secret-of-the-test".to_owned()),
        session_token: None,
    };
    let sink = |text: &&str| {
        let target = target::parse(text).expect("a place");
        let s3 = text.starts_with("s3:").then(|| key.clone());
        Sink { target, s3 }
    };
    Settings { sinks: places.iter().map(sink).collect(), pace: pace(), ..Settings::default() }
}

impl World {
    /// On SQLite.
    pub(crate) async fn new(folder: &Folder) -> Self {
        Self::open(folder, &folder.file("hearth.db"), "gateway-1").await
    }

    /// Opens a governor as soon as the one before it has let go.
    pub(crate) async fn open(folder: &Folder, url: &str, gateway: &str) -> Self {
        // Whoever opens a connection needs a provider, and only the binary's start has one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = govern::Settings {
            url: url.to_owned(),
            journal: folder.file(&format!("journal-{gateway}")).into(),
            gateway: gateway.to_owned(),
            clock: Clock::System,
            fsync: govern::Fsync::default(),
            sharing: Sharing::default(),
        };
        let end = Instant::now() + PATIENCE;
        let (governor, first) = loop {
            match Governor::open(&settings).await {
                Ok(opened) => break opened,
                Err(OpenError::Journal(_) | OpenError::Store(StoreError::InUse(_)))
                    if Instant::now() < end =>
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let shown = folder.file("key");
        if let Some(first) = first {
            std::fs::write(&shown, &first.0.shown).expect("written");
        }
        let key = std::fs::read_to_string(&shown).expect("a first key");
        Self { governor, metrics: Metrics::new(), key }
    }

    /// A budget of so many micro-dollars a month; each token costs one.
    pub(crate) async fn budget(&self, name: &str, micro: i64) {
        let organisation = {
            let principal = self.governor.authenticate(Some(&self.key), None).expect("good");
            principal.organisation.id.clone()
        };
        let rates = TokenPrices { input: 1_000_000, output: 1_000_000, ..TokenPrices::default() };
        let price = ModelPrice { model: "*".to_owned(), rates, ..ModelPrice::default() };
        let now = self.governor.now();
        let budget = Budget {
            id: Id::new("bud", now),
            scope: Scope::Organisation(organisation.clone()),
            organisation,
            name: name.to_owned(),
            model: None,
            limits: vec![Limit {
                period: Period::Month,
                nano_usd: Money(micro * 1000),
                soft: true,
                alert_percent: vec![50],
                raises: Vec::new(),
            }],
            time_zone: None,
            created_at: now,
        };
        let sheet = PriceSheet::new(name, vec![price], now - 1);
        let edits = vec![Edit::put(&sheet), Edit::put(&budget)];
        let made = self.governor.edit(|_, _| Ok::<_, EditError>((edits, Note::default(), ())));
        made.await.expect("an edit");
    }

    /// A request of so many tokens.
    pub(crate) fn ask(&self, tokens: u64) {
        let principal = self.governor.authenticate(Some(&self.key), None).expect("good");
        let ask = Ask {
            model: "m".to_owned(),
            surface: "chat",
            input_tokens: 1,
            choices: 1,
            room: 1000,
            ..Ask::default()
        };
        let operation = self.governor.admit(&principal, &ask).expect("let in");
        let tokens = Tokens { input: 1, output: tokens - 1, ..Tokens::default() };
        operation.used(tokens, Outcome::Done, 1);
        drop(operation.finish());
    }

    /// Adds so many records to the audit.
    pub(crate) async fn note(&self, count: usize) {
        for number in 0..count {
            self.governor.note(Note {
                at: self.governor.now(),
                kind: "admin".to_owned(),
                organisation: String::new(),
                body: format!("{{\"number\":{number},\"word\":\"für \\\"alle\\\"\"}}"),
            });
        }
        self.governor.flush().await;
    }

    /// The number of the chain's last record.
    pub(crate) async fn head(&self) -> i64 {
        let store = self.governor.store();
        store.head(self.governor.gateway()).await.expect("a head")
    }

    pub(crate) fn deliver(&self, settings: Settings) -> Deliver {
        deliver::start(&self.governor, settings, &self.metrics).expect("started")
    }

    /// The value of a series.
    pub(crate) fn metric(&self, name: &str) -> i64 {
        let text = self.metrics.render();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until<F: Future<Output = bool>>(
    what: &str,
    holds: impl Fn() -> F,
) -> impl Future<Output = ()> {
    let here = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < end, "{here}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
