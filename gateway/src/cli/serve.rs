//! `hearth serve`: reads the configuration, listens, loads the models, serves, drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::governor::FirstKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use super::exit::{self, Failure, Outcome};
use super::logs;
use crate::api::{self, App, Door, Keys, Limits};
use crate::backend::{Model, Task};
use crate::config::values::show_time;
use crate::config::{Config, Flags, Loaded, ModelChoice, Secret};
use crate::governing;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::server;
use crate::wiring::{self, Target};

/// The gateway's own threads. They parse, tokenize and write; models have threads of their own.
const THREADS: usize = 2;

/// When all engines are done: time for their last bytes to reach the callers. Until then the
/// server answers, so that a probe sees that it is not ready any more.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Flags of `hearth serve`: the options of the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
}

/// Serves until a signal.
///
/// # Errors
/// The configuration, the address or a model cannot be used.
pub fn run(args: &Args) -> Outcome {
    let start = Instant::now();
    let loaded = Config::load(&args.flags, std::env::vars())?;
    logs::start(&loaded.config);
    loaded.warnings.iter().for_each(|text| tracing::warn!("{text}"));
    let runtime = super::runtime(THREADS)?;
    let outcome = runtime.block_on(serve(loaded, start));
    // Whatever still runs (a download, a connection that will not end) dies with the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(loaded: Loaded, start: Instant) -> Outcome {
    let config = Arc::new(loaded.config);
    let mut signals = Signals::new()?;
    let device = Target::choose(&config)?;
    let listener = listen(&config).await?;
    // Port 0 asks the system for a free one: say which it is.
    let address = listener.local_addr().unwrap_or(config.listen);
    let file = loaded.file.map_or("no file".into(), |path| path.display().to_string());
    let governed =
        governing::open(&config).await.map_err(|error| exit::environment(error.to_string()))?;
    let guard = match (&config.data, config.api_keys.len()) {
        (Some(data), _) => format!("keys are kept in {}", data.display()),
        (None, 0) => "no key is set: only this machine may connect".to_owned(),
        (None, keys) => format!("{keys} key(s) accepted"),
    };
    exit::print(&format!(
        "hearth {}  (configuration: {file})\nlisten      http://{}  ({guard})\n\
         device      {device}\n",
        env!("CARGO_PKG_VERSION"),
        address,
    ))?;

    let (door, governor) = match governed {
        Some((governor, first)) => {
            first.map_or(Ok(()), |key| exit::print(&first_key(&key)))?;
            let signin = governing::signin(&config, &governor);
            let signin = signin.map_err(exit::usage)?;
            (Door::Governed(governor.clone(), signin), Some(governor))
        }
        None => (Keys::new(config.api_keys.iter().map(Secret::reveal)).into(), None),
    };
    let (metrics, models) = (Metrics::new(), Models::new());
    let (stop, stopped) = watch::channel(false);
    let router = router(&config, &models, &metrics, door);
    let server = tokio::spawn(server::serve(
        listener,
        router,
        server::Options {
            connections_max: config.connections_max,
            drain: LAST_WORDS,
            ..server::Options::default()
        },
        metrics.connections().clone(),
        async move {
            let mut stopped = stopped;
            let _ = stopped.wait_for(|stop| *stop).await;
        },
    ));
    tokio::select! {
        loaded = load(&config, &device, &models, &metrics) => loaded?,
        () = signals.next() => return exit::print("stopped while loading\n"),
    }
    exit::print(&ready_text(&config, &models, address, start))?;

    signals.next().await;
    let limit = show_time(config.drain);
    exit::print(&format!("draining for {limit} at most; a second signal ends at once\n"))?;
    tokio::select! {
        () = drain(&config, &models) => {}
        () = signals.next() => return Err(Failure { code: 130, message: String::new() }),
    }
    let _ = stop.send(true);
    let _ = server.await;
    if let Some(governor) = governor {
        // What ended is in the database before this process is gone; the rest is in the journal.
        let _ = timeout(LAST_WORDS, governor.flush()).await;
    }
    exit::print("stopped\n")
}

/// Said once: nobody can read it later.
fn first_key(key: &FirstKey) -> String {
    format!(
        "\nfirst key   {}\n            It may do everything and is shown this once; keep it.\n\n  \
         export HEARTH_ADMIN_KEY=... HEARTH_API_KEY=...    # both that key, for a start\n  \
         hearth admin keys create --team default --project default --label mine\n\n",
        key.0.shown
    )
}

fn router(
    config: &Config,
    models: &Arc<Models>,
    metrics: &Arc<Metrics>,
    door: Door,
) -> axum::Router {
    let limits = Limits::for_bodies(config.body_limit);
    let folder = config.adapters_folder.clone();
    api::router(App::new(Arc::clone(models), Arc::clone(metrics), door, limits, folder))
}

async fn listen(config: &Config) -> Result<TcpListener, Failure> {
    TcpListener::bind(config.listen).await.map_err(|error| {
        exit::environment(format!(
            "cannot listen on {}: {error}. Choose another address with --listen, or find what \
             uses it with `ss -ltnp`",
            config.listen
        ))
    })
}

/// Plans and starts the models one after the other: each plan sees what the ones before it left.
async fn load(
    config: &Arc<Config>,
    device: &Target,
    models: &Models,
    metrics: &Arc<Metrics>,
) -> Outcome {
    for choice in &config.models {
        load_one(config, (device, choice), models, metrics).await.map_err(|failure| Failure {
            message: format!("{}: {failure}", choice.id),
            ..failure
        })?;
    }
    models.set_loaded();
    Ok(())
}

async fn load_one(
    config: &Arc<Config>,
    (device, choice): (&Target, &ModelChoice),
    models: &Models,
    metrics: &Arc<Metrics>,
) -> Outcome {
    let planned = wiring::plan(config, device, choice).await?;
    exit::print(&format!("\n{}\n{}", planned.title(), planned.table()))?;
    planned.notes().iter().for_each(|note| tracing::warn!(model = %choice.id, "{note}"));
    if planned.pools() {
        let (config, metrics) = (Arc::clone(config), Arc::clone(metrics));
        let started = tokio::task::spawn_blocking(move || planned.start_pool(&config, &metrics));
        models.add_pool(started.await.map_err(|panic| broken(&panic))??);
        return Ok(());
    }
    let (theirs, metrics) = (Arc::clone(config), Arc::clone(metrics));
    // Reading and packing weights takes every core for a while: not on the runtime's threads.
    let started = tokio::task::spawn_blocking(move || planned.start(&theirs, &metrics));
    let base = models.add(started.await.map_err(|panic| broken(&panic))??);
    load_adapters(config, &base, models).await
}

/// Loading a model must not take the server with it.
fn broken(panic: &tokio::task::JoinError) -> Failure {
    exit::internal(format!("loading failed: {panic}"))
}

/// The adapters that the configuration names for this base.
async fn load_adapters(config: &Config, base: &Arc<Model>, models: &Models) -> Outcome {
    let first = config.models.first().map(|model| model.id.clone());
    for choice in &config.adapters {
        if choice.base.as_ref().or(first.as_ref()) != Some(&base.id) {
            continue;
        }
        let (base, choice) = (Arc::clone(base), choice.clone());
        let loaded = tokio::task::spawn_blocking(move || match &base.adapters {
            Some(adapters) => adapters
                .load(&base, &choice.name, &choice.path)
                .map_err(|error| format!("adapter {}: {error}", choice.name)),
            None => Err(format!("adapter {}: {} takes no adapters", choice.name, base.id)),
        });
        let model = loaded.await.map_err(|panic| broken(&panic))?.map_err(exit::environment)?;
        exit::print(&format!("adapter {}\n", model.id))?;
        if !models.add_new(model) {
            return Err(exit::environment("two adapters have the same name".to_owned()));
        }
    }
    Ok(())
}

/// What the first model answers to: its route, and the rest of a request's body.
fn example(models: &Models, id: &str) -> (&'static str, &'static str) {
    match models.pool(id).map(|model| model.task) {
        None => ("chat/completions", r#""messages": [{"role": "user", "content": "Hello!"}]"#),
        Some(Task::Embed) => ("embeddings", r#""input": ["Hello!"]"#),
        Some(Task::Rerank) => ("rerank", r#""query": "Who?", "documents": ["You.", "There."]"#),
    }
}

fn ready_text(config: &Config, models: &Models, address: SocketAddr, start: Instant) -> String {
    let url = format!("http://{address}");
    let model = config.models.first().map_or("demo", |model| model.id.as_str());
    let (route, body) = example(models, model);
    let key = if config.api_keys.is_empty() && config.data.is_none() {
        ""
    } else {
        "    -H \"authorization: Bearer $HEARTH_API_KEY\" \\\n"
    };
    let usual = address.port() == 8080 && address.ip().is_loopback();
    let chat = match (route, usual) {
        ("chat/completions", true) => "  hearth chat\n\n".to_owned(),
        ("chat/completions", false) => format!("  hearth chat --url {url}\n\n"),
        _ => String::new(),
    };
    format!(
        "\nready in {:.2} s: {url}\n\n  curl {url}/v1/{route} \\\n    \
         -H 'content-type: application/json' \\\n{key}    \
         -d '{{\"model\": \"{model}\", {body}}}'\n\n{chat}",
        start.elapsed().as_secs_f64(),
    )
}

/// All engines side by side, each with the same deadline.
async fn drain(config: &Config, models: &Models) {
    let (models, pools) = (models.list(), models.pools());
    let drains = models.iter().map(|model| model.engine.drain(config.drain));
    let pools = pools.iter().map(|model| model.engine.drain(config.drain));
    let (drained, pooled) =
        tokio::join!(futures_util::future::join_all(drains), futures_util::future::join_all(pools));
    if !drained.iter().chain(&pooled).all(|ended| *ended) {
        tracing::warn!("the drain's time was up: open requests were ended");
    }
}

/// SIGTERM (systemd, Kubernetes) and SIGINT (a terminal) mean the same.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let hear = |kind| {
            signal(kind).map_err(|e| exit::internal(format!("signals cannot be heard: {e}")))
        };
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
