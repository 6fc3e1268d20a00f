//! A cluster without a token: gateways and nodes know each other by their certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway::cluster::{self, Dialer, Fleet, Kubernetes, Node, Sources};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::server::{self, Options};
use gateway::tls::{Clients, Files, Tls};
use tokio::net::TcpListener;

use crate::authority::{Authority, put};
use crate::fake::{Fake, Setup};
use crate::kit::until;

/// A gateway's models, with this to show.
fn gateway(
    node: &str,
    ca: &Path,
    own: Option<(&Path, &Path)>,
    token: Option<&str>,
) -> (Arc<Models>, Fleet) {
    let (models, metrics) = (Models::new(), Metrics::new());
    let sources = Sources {
        nodes: vec![node.parse().expect("an endpoint")],
        names: Vec::new().into(),
        kubernetes: Kubernetes::default(),
        dialer: Dialer::new(token, Some(ca), own).expect("a dialer"),
        door: None,
        request_timeout: None,
    };
    let fleet = Fleet::start(sources, &models, &metrics);
    (models, fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_as_good_as_a_token() {
    let folder = std::env::temp_dir().join(format!("hearth-cluster-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str| PathBuf::from(put(&folder, name, text));
    let (house, other) = (Authority::new("house"), Authority::new("other"));
    let own = house.issue(1, &["ip:127.0.0.1"]);
    let guest = house.issue(2, &["uri:urn:gateway"]);
    let stranger = other.issue(3, &["uri:urn:gateway"]);
    let ca = file("ca.pem", &house.pem());
    let pair = |name: &str, pair: &crate::authority::Pair| {
        (file(&format!("{name}.pem"), &pair.certificate), file(&format!("{name}.key"), &pair.key))
    };
    let (own, guest, stranger) =
        (pair("own", &own), pair("guest", &guest), pair("stranger", &stranger));
    let tls = Tls::open(Files {
        certificate: own.0,
        key: own.1,
        client_authorities: Some(ca.clone()),
        revoked: None,
        clients: Clients::Optional,
    });
    let fake = Fake::start(Setup::default());
    let door = cluster::Door::new(None, true);
    let node = Node::new(Arc::clone(&fake.models), Arc::clone(&fake.metrics), door, None);
    node.offer(&fake.models.first().expect("the fake"), "weights", &[]).expect("offered");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let options = Options { tls: Some(Arc::new(tls.expect("TLS"))), ..Options::default() };
    let gauge = Metrics::new().connections().clone();
    tokio::spawn(server::serve(listener, node.router(), options, gauge, std::future::pending()));
    let url = format!("https://127.0.0.1:{port}");
    // Nothing to show, a token that nobody knows, a certificate of somebody else's; and one that
    // believes another authority.
    let other_ca = file("other.pem", &other.pem());
    let stranger = (stranger.0.as_path(), stranger.1.as_path());
    let outside = [
        gateway(&url, &ca, None, None),
        gateway(&url, &ca, None, Some("some-token-or-other")),
        gateway(&url, &ca, Some(stranger), None),
        gateway(&url, &other_ca, Some((&guest.0, &guest.1)), None),
        gateway(&format!("http://127.0.0.1:{port}"), &ca, Some((&guest.0, &guest.1)), None),
    ];
    let (inside, _fleet) = gateway(&url, &ca, Some((&guest.0, &guest.1)), None);
    until("it is in", || inside.get("org/fake").is_some()).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(outside.iter().all(|(models, _)| models.list().is_empty()));
    let _ = std::fs::remove_dir_all(&folder);
}
