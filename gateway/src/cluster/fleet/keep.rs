//! Follows one node: connects, reads its state, and begins again when that breaks off, is silent
//! or makes no sense. The connection is this task's: when it gives up on the node, everything that
//! goes over it ends at the same moment, and goes to other nodes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{sleep, timeout};

use super::Inner;
use crate::cluster::lines::Lines;
use crate::cluster::member::Member;
use crate::cluster::picture::Picture;
use crate::cluster::protocol::{self, STATE_BYTES_MAX};

/// A node that says nothing for so long is out: it beats four times as often.
const SILENCE: Duration = Duration::from_secs(2);
/// Before the next attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Runs until nobody holds the fleet.
pub(super) async fn keep(fleet: Weak<Inner>, member: Arc<Member>) {
    let mut pause = PAUSES.0;
    let node = member.endpoint.authority();
    loop {
        let why = match follow(&fleet, &member).await {
            Ok(()) => return,
            Err(why) => why,
        };
        let Some(fleet) = fleet.upgrade() else { return };
        if member.is_up() {
            tracing::warn!(node, why, "a node is out");
            pause = PAUSES.0;
        } else {
            tracing::debug!(node, why, "a node does not answer");
        }
        member.down();
        fleet.metrics.cluster().up(&node, false);
        drop(fleet);
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// `Ok`: nobody holds the fleet any more.
async fn follow(fleet: &Weak<Inner>, member: &Arc<Member>) -> Result<(), String> {
    let Some(dialer) = fleet.upgrade().map(|fleet| fleet.dialer.clone()) else { return Ok(()) };
    let link = dialer.connect(&member.endpoint).await?;
    let mut way = link.way();
    let asked = timeout(SILENCE, way.get(protocol::STATE)).await;
    let response = asked.map_err(|_| silent())??;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let mut lines = Lines::new(response.into_body(), STATE_BYTES_MAX);
    let first = line(&mut lines).await?;
    let picture = Picture::begin(first).map_err(|lost| lost.to_string())?;
    member.up(picture, way);
    {
        let Some(fleet) = fleet.upgrade() else { return Ok(()) };
        fleet.roster.changed();
        tracing::info!(node = %member.endpoint, "a node is in");
        fleet.metrics.cluster().up(&member.endpoint.authority(), true);
    }
    // Beside the reading: a description that does not come must not make the node look silent.
    member.news.notify_one();
    tokio::select! {
        read = read(fleet, member, lines) => read,
        () = learn(fleet, member) => Ok(()),
    }
}

/// Reads the state as it changes. `Ok`: nobody holds the fleet any more.
async fn read(
    fleet: &Weak<Inner>,
    member: &Arc<Member>,
    mut lines: Lines<hyper::body::Incoming>,
) -> Result<(), String> {
    loop {
        let state = line(&mut lines).await?;
        if let Some(gone) = member.tell(state).map_err(|lost| lost.to_string())? {
            let Some(fleet) = fleet.upgrade() else { return Ok(()) };
            fleet.roster.changed();
            gone.iter().for_each(|offer| fleet.let_go(offer));
            member.news.notify_one();
        }
    }
}

/// Looks at what the node serves, whenever that may have changed.
async fn learn(fleet: &Weak<Inner>, member: &Arc<Member>) {
    loop {
        member.news.notified().await;
        let Some(fleet) = fleet.upgrade() else { return };
        fleet.learn(member).await;
    }
}

fn silent() -> String {
    format!("it has been silent for {} s", SILENCE.as_secs())
}

async fn line(lines: &mut Lines<hyper::body::Incoming>) -> Result<protocol::State, String> {
    let line = timeout(SILENCE, lines.next()).await.map_err(|_| silent())?;
    let line = line.map_err(|broken| broken.to_string())?;
    let line = line.ok_or("it ended its state")?;
    serde_json::from_slice(&line).map_err(|error| format!("its state makes no sense: {error}"))
}
