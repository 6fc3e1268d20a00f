//! Finding each other: addresses behind a name, and nodes that name themselves.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::{Finder, Inner, Named};
use crate::cluster::dial::{Dialer, Link};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::protocol::{self, Join};

/// Between two looks at a name, where nothing else is said.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Between two words of a node to its gateways.
const NAME: Duration = Duration::from_secs(1);
/// Longest wait for a gateway's answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Finds all addresses that a name has.
pub type LookUp =
    Arc<dyn Fn(&Endpoint) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Names whose addresses are nodes.
pub struct Names {
    /// Each of their addresses is a node.
    pub all: Vec<Endpoint>,
    /// Who finds their addresses.
    pub look_up: LookUp,
    /// Between two looks at a name.
    pub pause: Duration,
}

/// Names that the system looks up.
impl From<Vec<Endpoint>> for Names {
    fn from(all: Vec<Endpoint>) -> Self {
        let look_up: LookUp = Arc::new(|name| {
            let (host, port) = (name.host.clone(), name.port);
            Box::pin(async move {
                let found = lookup_host((host, port)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        Self { all, look_up, pause: LOOK_UP }
    }
}

/// Every address of a name is a node, as long as the name stands for it.
pub(super) async fn follow(
    fleet: Weak<Inner>,
    finder: Finder,
    name: Endpoint,
    (look_up, pause): (LookUp, Duration),
) {
    // One answer may be short of some: of two kinds of addresses one is not told in time.
    let mut before: Vec<IpAddr> = Vec::new();
    loop {
        let found = look_up(&name).await;
        let Some(fleet) = fleet.upgrade() else { return };
        match found {
            Ok(addresses) => {
                let gone = before.iter().filter(|address| !addresses.contains(address));
                let all = gone.chain(&addresses).map(|address| name.at(*address));
                let named: Vec<_> = all.map(|endpoint| Named { endpoint, ready: true }).collect();
                fleet.stands_for(finder, &named);
                before = addresses;
            }
            // It says nothing of those that are known.
            Err(error) => tracing::debug!(name = %name, %error, "a name was not found"),
        }
        drop(fleet);
        sleep(pause).await;
    }
}

/// Names a node to a gateway, again and again.
pub async fn join(dialer: Dialer, gateway: Endpoint, join: Join) {
    let mut link: Option<Link> = None;
    let mut known = false;
    loop {
        let said = timeout(ANSWER, say(&dialer, &gateway, &join, &mut link)).await;
        match said.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
            Ok(()) if !known => {
                tracing::info!(gateway = %gateway, "named to a gateway");
                known = true;
            }
            Ok(()) => {}
            Err(why) => {
                link = None;
                if known {
                    tracing::warn!(gateway = %gateway, why, "a gateway does not know this node");
                } else {
                    tracing::debug!(gateway = %gateway, why, "a gateway does not know this node");
                }
                known = false;
            }
        }
        sleep(NAME).await;
    }
}

async fn say(
    dialer: &Dialer,
    gateway: &Endpoint,
    join: &Join,
    link: &mut Option<Link>,
) -> Result<(), String> {
    let mut way = match link {
        Some(link) => link.way(),
        None => link.insert(dialer.connect(gateway).await?).way(),
    };
    let mut body = Vec::new();
    protocol::line(join, &mut body);
    let response = way.post(protocol::JOIN, body, None).await?;
    match response.status() {
        StatusCode::NO_CONTENT => Ok(()),
        status => Err(format!("it answers {status}")),
    }
}
