//! Finding each other: addresses behind a name, and nodes that name themselves.

use std::sync::Weak;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::{Inner, Origin};
use crate::cluster::dial::{Dialer, Link};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::protocol::{self, Join};

/// Between two looks at a name.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Between two words of a node to its gateways.
const NAME: Duration = Duration::from_secs(1);
/// Longest wait for a gateway's answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Every address of a name is a node, as long as the name stands for it.
pub(super) async fn follow(fleet: Weak<Inner>, name: Endpoint) {
    loop {
        let found = lookup_host((name.host.as_str(), name.port)).await;
        let Some(fleet) = fleet.upgrade() else { return };
        match found {
            Ok(addresses) => {
                for address in addresses {
                    fleet.add(&name.at(address.ip()), Origin::Found(Instant::now()));
                }
            }
            // Those that are known stay for as long as they speak.
            Err(error) => tracing::debug!(name = %name, %error, "a name was not found"),
        }
        drop(fleet);
        sleep(LOOK_UP).await;
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
