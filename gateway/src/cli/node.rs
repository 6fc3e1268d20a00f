//! `hearth node`: the engine of `hearth serve` without its API, for gateways of the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::exit::{self, Failure, Outcome};
use super::serve;
use crate::backend::{Model, PoolModel};
use crate::cluster::{self, AdapterFolder, Node, protocol::Join};
use crate::config::{Config, Flags, Loaded, ModelChoice, Role, Secret};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::tls::Clients;
use crate::wiring::{self, Target, WiringError};

/// Gateways keep one connection each; all of their requests share it.
const STREAMS_MAX: u32 = 16_384;
/// Between two looks at the GPUs.
const GPU_LOOK: Duration = Duration::from_secs(1);

/// Flags of `hearth node`: the options of the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
}

/// Makes tokens until a signal.
///
/// # Errors
/// The configuration, the address or a model cannot be used.
pub fn run(args: &Args) -> Outcome {
    serve::run_as(Role::Node, &args.flags, node)
}

async fn node(loaded: Loaded, start: Instant) -> Outcome {
    let config = Arc::new(loaded.config);
    let mut signals = serve::Signals::new()?;
    let device = Target::choose(&config)?;
    let mut options = serve::server_options(&config)?;
    options.streams_max = STREAMS_MAX;
    let listener = serve::listen(&config).await?;
    // Port 0 asks the system for a free one: say which it is.
    let address = listener.local_addr().unwrap_or(config.listen);
    let file = loaded.file.map_or("no file".into(), |path| path.display().to_string());
    let (scheme, guard) = (serve::scheme(&config), guard(&config));
    exit::print(&format!(
        "hearth {} node  (configuration: {file})\nlisten      {scheme}://{address}  ({guard})\n\
         device      {device}\n",
        env!("CARGO_PKG_VERSION"),
    ))?;
    let (metrics, models) = (Metrics::new(), Models::new());
    let token = config.cluster.token.as_ref().map(Secret::reveal);
    let door = cluster::Door::new(token, config.tls.clients != Clients::Unasked);
    let digest = wiring::adapter_digest;
    let folder = config.adapters_folder.clone().map(|top| AdapterFolder { top, digest });
    let node = Node::new(Arc::clone(&models), Arc::clone(&metrics), door, folder);
    tokio::spawn(watch_gpus(Arc::clone(&metrics), Arc::clone(&node)));
    let (stop, stopped) = watch::channel(false);
    let server = serve::attend(listener, node.router(), options, &metrics, stopped);
    tokio::select! {
        loaded = load(&config, &device, (&models, &metrics), &node) => loaded?,
        () = signals.next() => return exit::print("stopped while loading\n"),
    }
    name(&config, address)?;
    let took = start.elapsed().as_secs_f64();
    exit::print(&format!("\nready in {took:.2} s: {scheme}://{address}\n\n"))?;

    signals.next().await;
    exit::print("draining; a second signal ends at once\n")?;
    tokio::select! {
        () = serve::drain(&config, &models) => {}
        () = signals.next() => return Err(Failure { code: 130, message: String::new() }),
    }
    let _ = stop.send(true);
    // Gateways read its state for as long as it is told.
    let _ = tokio::time::timeout(serve::LAST_WORDS, server).await;
    exit::print("stopped\n")
}

/// Who may in, for the first lines.
fn guard(config: &Config) -> &'static str {
    match (&config.cluster.token, config.tls.clients) {
        (Some(_), Clients::Unasked) => "gateways show a token",
        (Some(_), _) => "gateways show a token or a certificate",
        (None, Clients::Unasked) => "no token is set: only this machine may connect",
        (None, _) => "gateways show a certificate",
    }
}

/// Starts the models one after the other and offers each.
async fn load(
    config: &Arc<Config>,
    device: &Target,
    (models, metrics): (&Models, &Arc<Metrics>),
    node: &Arc<Node>,
) -> Outcome {
    for choice in &config.models {
        let loaded = load_one(config, device, choice, metrics).await;
        let loaded = loaded
            .map_err(|failure| Failure { message: format!("{}: {failure}", choice.id), ..failure });
        let node = Arc::clone(node);
        let (model, weights) = match loaded? {
            Loading::Writes(model, weights) => (models.add(model), weights),
            Loading::Reads(model, weights) => {
                let model = models.add_pool(model);
                let offered =
                    tokio::task::spawn_blocking(move || node.offer_reader(&model, &weights));
                offered.await.map_err(|panic| serve::broken(&panic))?.map_err(exit::data)?;
                continue;
            }
        };
        let adapters = serve::load_adapters(config, &model, models).await?;
        let offered = tokio::task::spawn_blocking(move || {
            let adapters: Result<Vec<_>, String> = adapters.into_iter().map(with_digest).collect();
            node.offer(&model, &weights, &adapters?)
        });
        offered.await.map_err(|panic| serve::broken(&panic))?.map_err(exit::data)?;
    }
    models.set_loaded();
    Ok(())
}

/// A model that was loaded, with a digest of its weights.
enum Loading {
    Writes(Model, String),
    Reads(PoolModel, String),
}

async fn load_one(
    config: &Arc<Config>,
    device: &Target,
    choice: &ModelChoice,
    metrics: &Arc<Metrics>,
) -> Result<Loading, Failure> {
    let planned = wiring::plan(config, device, choice).await?;
    exit::print(&format!("\n{}\n{}", planned.title(), planned.table()))?;
    planned.notes().iter().for_each(|note| tracing::warn!(model = %choice.id, "{note}"));
    let (config, metrics) = (Arc::clone(config), Arc::clone(metrics));
    let started = tokio::task::spawn_blocking(move || {
        let weights = planned.weights_digest()?;
        if planned.pools() {
            let model = planned.start_pool(&config, &metrics)?;
            return Ok::<_, WiringError>(Loading::Reads(model, weights));
        }
        Ok(Loading::Writes(planned.start(&config, &metrics)?, weights))
    });
    Ok(started.await.map_err(|panic| serve::broken(&panic))??)
}

/// An adapter with a digest of its files.
fn with_digest((model, folder): (Arc<Model>, PathBuf)) -> Result<(Arc<Model>, String), String> {
    let files = wiring::adapter_digest(&folder);
    files.map(|files| (model, files)).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Keeps what gateways are told of the GPUs new.
async fn watch_gpus(metrics: Arc<Metrics>, node: Arc<Node>) {
    let mut ticks = interval(GPU_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let metrics = Arc::clone(&metrics);
        let read = tokio::task::spawn_blocking(move || metrics.gpus()).await;
        node.tell_gpus(read.unwrap_or_default());
    }
}

/// Names this node to its gateways from now on.
fn name(config: &Config, address: SocketAddr) -> Outcome {
    let chosen = &config.cluster;
    let join = match &chosen.advertise {
        Some(at) => Join { host: Some(at.host.clone()), port: at.port, tls: at.tls },
        None => {
            // Where it listens on all addresses, the gateway sees which one it comes from.
            let host = (!address.ip().is_unspecified()).then(|| address.ip().to_string());
            Join { host, port: address.port(), tls: config.tls.certificate.is_some() }
        }
    };
    let dialer = serve::dialer(config)?;
    for gateway in &chosen.join {
        tokio::spawn(cluster::join(dialer.clone(), gateway.clone(), join.clone()));
    }
    Ok(())
}
