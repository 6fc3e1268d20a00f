//! `hearth serve`: reads the configuration, listens, loads the models, serves, drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::Governor;
use govern::cache::Shared;
use govern::governor::FirstKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::exit::{self, Failure, Outcome};
use super::logs;
use crate::api::cache::Settings as Caching;
use crate::api::{self, App, Door, Keys, Limits};
use crate::backend::{Model, Task};
use crate::cluster::{self, Dialer, Fleet, Sources};
use crate::config::values::show_time;
use crate::config::{Config, Flags, Loaded, ModelChoice, Role, Secret};
use crate::deliver::{self, Deliver};
use crate::governing;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::route::Routes;
use crate::server;
use crate::tls::{self, Clients, Tls};
use crate::wiring::{self, Target};

/// When all engines are done: time for their last bytes to reach the callers. Until then the
/// server answers, so that a probe sees that it is not ready any more.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);

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
    run_as(Role::Gateway, &args.flags, serve)
}

/// Runs a process of a role, from its configuration to a signal.
pub(super) fn run_as<F: Future<Output = Outcome>>(
    role: Role,
    flags: &Flags,
    attend: impl FnOnce(Loaded, Instant) -> F,
) -> Outcome {
    let start = Instant::now();
    let loaded = Config::load_as(role, flags, std::env::vars())?;
    logs::start(&loaded.config);
    loaded.warnings.iter().for_each(|text| tracing::warn!("{text}"));
    let runtime = super::runtime(loaded.config.server_threads())?;
    let outcome = runtime.block_on(attend(loaded, start));
    // Whatever still runs (a download, a connection that will not end) dies with the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(loaded: Loaded, start: Instant) -> Outcome {
    let config = Arc::new(loaded.config);
    let mut signals = Signals::new()?;
    let device = Target::choose(&config)?;
    let options = server_options(&config)?;
    let listener = listen(&config).await?;
    // Port 0 asks the system for a free one: say which it is.
    let address = listener.local_addr().unwrap_or(config.listen);
    let file = loaded.file.map_or("no file".into(), |path| path.display().to_string());
    let governed =
        governing::open(&config).await.map_err(|error| exit::environment(error.to_string()))?;
    let guard = guard(&config);
    exit::print(&format!(
        "hearth {}  (configuration: {file})\nlisten      {}://{}  ({guard})\n\
         device      {device}\n",
        env!("CARGO_PKG_VERSION"),
        scheme(&config),
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
    let deliver = start_deliver(&config, governor.as_ref(), &metrics)?;
    let (stop, stopped) = watch::channel(false);
    let cache = caching(&config).await?;
    let app = app(&config, &models, &metrics, (door, cache))?;
    let fleet = fleet(&config, &models, &metrics)?;
    let beside = fleet.as_ref().map(Fleet::router).unwrap_or_default();
    let server = attend(listener, api::served(app, beside), options, &metrics, stopped);
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
    if let Some(deliver) = deliver {
        deliver.finish(LAST_WORDS).await;
    }
    exit::print("stopped\n")
}

/// Serves until it is told to stop, and looks after the files of TLS.
pub(super) fn attend<R: server::Routes>(
    listener: TcpListener,
    router: R,
    options: server::Options,
    metrics: &Metrics,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<std::io::Result<()>> {
    if let Some(tls) = options.tls.clone() {
        tokio::spawn(async move { tls.watch(tls::LOOK_EVERY).await });
    }
    let connections = metrics.connections().clone();
    tokio::spawn(server::serve(listener, router, options, connections, async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    }))
}

/// Bounds of connections, and what they begin with.
pub(super) fn server_options(config: &Config) -> Result<server::Options, Failure> {
    let tls = config.tls.files().map(Tls::open).transpose();
    let tls = tls.map_err(|error| exit::environment(error.to_string()))?;
    Ok(server::Options {
        connections_max: config.connections_max,
        drain: LAST_WORDS,
        tls: tls.map(Arc::new),
        trusted_proxies: config.tls.trusted_proxies.clone().into(),
        ..server::Options::default()
    })
}

/// Who may in, for the first lines.
fn guard(config: &Config) -> String {
    match (&config.data, config.api_keys.len()) {
        (Some(data), _) => format!("keys are kept in {}", data.display()),
        (None, 0) => "no key is set: only this machine may connect".to_owned(),
        (None, keys) => format!("{keys} key(s) accepted"),
    }
}

/// Begins to tell people, and to export the audit.
fn start_deliver(
    config: &Config,
    governor: Option<&Governor>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Deliver>, Failure> {
    let Some(governor) = governor else { return Ok(None) };
    let settings = deliver::settings::Settings::of(config, |name| std::env::var(name).ok());
    let settings = settings.map_err(exit::usage)?;
    for warning in settings.sinks.iter().filter_map(|sink| sink.target.warning()) {
        tracing::warn!("{warning}");
    }
    deliver::start(governor, settings, metrics).map(Some).map_err(exit::usage)
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

fn app(
    config: &Config,
    models: &Arc<Models>,
    metrics: &Arc<Metrics>,
    (door, cache): (Door, Option<Caching>),
) -> Result<Arc<App>, Failure> {
    let limits = Limits { kept_days: config.kept_days, ..Limits::for_bodies(config.body_limit) };
    let folder = config.adapters_folder.clone();
    let own = config.models.iter().map(|model| &model.id);
    let local: Vec<String> = own.chain(&config.cluster.models).cloned().collect();
    let routes = Routes::new(&config.routing, &local).map_err(exit::usage)?;
    if let Some(pool) = routes.pools().find(|pool| pool.mirrors_unpaid()).filter(|_| door.pays()) {
        return Err(exit::usage(format!(
            "[pools.{}]: mirror: key: where keys are needed, copies are made in the name of one",
            pool.name
        )));
    }
    let (models, metrics) = (Arc::clone(models), Arc::clone(metrics));
    let app = App::caching(models, metrics, door, limits, (folder, routes), cache);
    app.warnings().iter().for_each(|text| tracing::warn!("{text}"));
    Ok(app)
}

/// Answers that are given again, where the configuration asks for it.
async fn caching(config: &Config) -> Result<Option<Caching>, Failure> {
    let chosen = &config.cache;
    if !chosen.enabled {
        return Ok(None);
    }
    let shared = match &chosen.redis {
        Some(url) => Some(Shared::start(url.reveal()).await.map_err(exit::usage)?),
        None => None,
    };
    let (ttl, bytes_max, any) = (chosen.ttl, chosen.bytes_max, chosen.any);
    Ok(Some(Caching { ttl, bytes_max, any, shared }))
}

/// The nodes that make tokens for this gateway; `None`: there are none.
fn fleet(
    config: &Config,
    models: &Arc<Models>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Fleet>, Failure> {
    let chosen = &config.cluster;
    if !chosen.is_used() {
        return Ok(None);
    }
    let token = chosen.token.as_ref().map(Secret::reveal);
    let certified = config.tls.clients != Clients::Unasked;
    let sources = Sources {
        nodes: chosen.nodes.clone(),
        names: chosen.names.clone().into(),
        kubernetes: chosen.kubernetes.clone(),
        dialer: dialer(config)?,
        // Certificates are asked of callers, too: where there is a token, a node shows that.
        door: (token.is_some() || certified)
            .then(|| cluster::Door::new(token, certified && token.is_none())),
        request_timeout: Some(config.request_timeout),
    };
    Ok(Some(Fleet::start(sources, models, metrics)))
}

/// What connections within the cluster are made with.
pub(super) fn dialer(config: &Config) -> Result<Dialer, Failure> {
    let cluster = &config.cluster;
    let own = cluster.own();
    let own = own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let token = cluster.token.as_ref().map(Secret::reveal);
    Dialer::new(token, cluster.ca.as_deref(), own)
        .map_err(|why| exit::environment(format!("cluster: {why}")))
}

pub(super) async fn listen(config: &Config) -> Result<TcpListener, Failure> {
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
    load_adapters(config, &base, models).await.map(drop)
}

/// Loading a model must not take the server with it.
pub(super) fn broken(panic: &tokio::task::JoinError) -> Failure {
    exit::internal(format!("loading failed: {panic}"))
}

/// The adapters that the configuration names for this base, now loaded, each with its folder.
pub(super) async fn load_adapters(
    config: &Config,
    base: &Arc<Model>,
    models: &Models,
) -> Result<Vec<(Arc<Model>, PathBuf)>, Failure> {
    let mut all = Vec::new();
    let first = config.models.first().map(|model| model.id.clone());
    for choice in &config.adapters {
        if choice.base.as_ref().or(first.as_ref()) != Some(&base.id) {
            continue;
        }
        let (base, path) = (Arc::clone(base), choice.path.clone());
        let choice = choice.clone();
        let loaded = tokio::task::spawn_blocking(move || match &base.adapters {
            Some(adapters) => adapters
                .load(&base, &choice.name, &choice.path)
                .map_err(|error| format!("adapter {}: {error}", choice.name)),
            None => Err(format!("adapter {}: {} takes no adapters", choice.name, base.id)),
        });
        let model = loaded.await.map_err(|panic| broken(&panic))?.map_err(exit::environment)?;
        let id = model.id.clone();
        exit::print(&format!("adapter {id}\n"))?;
        if !models.add_new(model) {
            return Err(exit::environment("two adapters have the same name".to_owned()));
        }
        all.extend(models.get(&id).map(|model| (model, path)));
    }
    Ok(all)
}

/// What the first model answers to: its route, and the rest of a request's body.
fn example(models: &Models, id: &str) -> (&'static str, &'static str) {
    match models.pool(id).map(|model| model.task) {
        None => ("chat/completions", r#""messages": [{"role": "user", "content": "Hello!"}]"#),
        Some(Task::Embed) => ("embeddings", r#""input": ["Hello!"]"#),
        Some(Task::Rerank) => ("rerank", r#""query": "Who?", "documents": ["You.", "There."]"#),
    }
}

pub(super) fn scheme(config: &Config) -> &'static str {
    if config.tls.certificate.is_some() { "https" } else { "http" }
}

fn ready_text(config: &Config, models: &Models, address: SocketAddr, start: Instant) -> String {
    let url = format!("{}://{address}", scheme(config));
    if config.models.is_empty() {
        return format!("\nready in {:.2} s: {url}\n\n", start.elapsed().as_secs_f64());
    }
    let model = config.models.first().map_or("demo", |model| model.id.as_str());
    let (route, body) = example(models, model);
    let key = if config.api_keys.is_empty() && config.data.is_none() {
        ""
    } else {
        "    -H \"authorization: Bearer $HEARTH_API_KEY\" \\\n"
    };
    let usual =
        config.tls.certificate.is_none() && address.port() == 8080 && address.ip().is_loopback();
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
pub(super) async fn drain(config: &Config, models: &Models) {
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
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let hear = |kind| {
            signal(kind).map_err(|e| exit::internal(format!("signals cannot be heard: {e}")))
        };
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
