//! The life of the node: listen, load, serve until a signal, drain. It listens before it loads,
//! so that /health and /ready tell the two apart.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::api::{self, Site};
use crate::args::Options;
use crate::model;

/// For answers that run when the signal comes; below the 30 s that container runtimes allow.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The address is taken, or the model cannot be loaded.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let Options { source, name, listen, key, concurrent, dtype, time_max } = options;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let stop = stop_signal().map_err(|error| error.to_string())?;
    tokio::pin!(stop);
    let site = Arc::new(Site {
        name,
        key,
        node: OnceLock::new(),
        places: Arc::new(Semaphore::new(concurrent)),
        draining: AtomicBool::new(false),
        time_max,
        created: api::unix_seconds(),
        answers: AtomicU64::new(0),
    });
    let leave = Arc::new(Notify::new());
    let leaving = leave.clone();
    let server = axum::serve(listener, api::router(site.clone()))
        .with_graceful_shutdown(async move { leaving.notified().await });
    let server = tokio::spawn(server.into_future());
    eprintln!("listening on http://{address}; loading '{}'", site.name);

    let begun = Instant::now();
    // Loading blocks its thread; an unknown model may also make mistralrs panic.
    let load = tokio::task::spawn_blocking(move || {
        Handle::current().block_on(model::load(&source, dtype, concurrent))
    });
    let node = tokio::select! {
        loaded = load => loaded.map_err(|_| "mistralrs panicked while it loaded the model")??,
        () = &mut stop => return Ok(()),
    };
    eprintln!(
        "ready after {:.1} s: context {} tokens, images {}",
        begun.elapsed().as_secs_f32(),
        node.context,
        if node.sees { "yes" } else { "no" },
    );
    // Nobody else sets it, so it is empty.
    let _ = site.node.set(node);

    stop.await;
    site.draining.store(true, Ordering::Relaxed);
    leave.notify_one();
    eprintln!("stopping; running answers have {} s", DRAIN_MAX.as_secs());
    match timeout(DRAIN_MAX, server).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("some answers did not end in time".to_owned()),
    }
}

/// Ends with SIGTERM or SIGINT; both are caught from here on.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
