//! Names in the DNS whose addresses come and go: each is a node for as long as look-ups find it,
//! and what runs there when it leaves comes to its own end.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use gateway::cluster::{Dialer, Endpoint, Kubernetes, Names, Sources};
use serde_json::json;

use crate::client::post;
use crate::fake::{Fake, Setup};
use crate::kit::{Gateway, SPEECH, Site, TOKEN, ask, chat, listen, until};
use crate::lost::{read_until, text, under_way};
use crate::wire::Wire;

/// What names are looked up to. One that nothing is said of is not found.
#[derive(Clone, Default)]
struct Dns(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    addresses: HashMap<String, Vec<IpAddr>>,
    /// Look-ups of each name.
    asked: HashMap<String, usize>,
}

impl Dns {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().expect("nobody panicked")
    }

    /// From now on; waits until that has been heard. `None`: look-ups fail.
    async fn says(&self, name: &str, sites: Option<&[&Site]>) {
        let before = {
            let mut told = self.told();
            match sites {
                None => told.addresses.remove(name),
                Some(sites) => {
                    let addresses = sites.iter().map(|site| site.wire.address.ip()).collect();
                    told.addresses.insert(name.to_owned(), addresses)
                }
            };
            told.asked.get(name).copied().unwrap_or_default()
        };
        // The second is asked for when the first has had its effect.
        let asked = || self.told().asked.get(name).copied().unwrap_or_default();
        until("it is looked up", || asked() >= before + 2).await;
    }

    fn look_up(&self, name: &Endpoint) -> io::Result<Vec<IpAddr>> {
        let mut told = self.told();
        *told.asked.entry(name.host.clone()).or_default() += 1;
        let found = told.addresses.get(&name.host).cloned();
        found.ok_or_else(|| io::Error::other("the server does not answer"))
    }

    /// A gateway that finds its nodes behind two names.
    fn gateway(&self, port: u16) -> Gateway {
        let all = ["first", "second"];
        let all = all.map(|name| format!("http://{name}:{port}").parse().expect("an endpoint"));
        let own = self.clone();
        let look_up = move |name: &Endpoint| std::future::ready(own.look_up(name)).boxed();
        let pause = Duration::from_millis(20);
        Gateway::finding(Sources {
            nodes: Vec::new(),
            names: Names { all: all.to_vec(), look_up: Arc::new(look_up), pause },
            kubernetes: Kubernetes::default(),
            dialer: Dialer::new(Some(TOKEN), None, None).expect("a dialer"),
            door: None,
            request_timeout: Some(Duration::from_secs(60)),
        })
    }
}

fn slow() -> Setup {
    Setup { speech: SPEECH, pace: Duration::from_millis(10), ..Setup::default() }
}

/// Two nodes at one port of two addresses.
async fn sites() -> [Site; 2] {
    let (mut one, mut two) = (Site::start(slow()).await, Site::start(slow()).await);
    one.wire = Wire::to(listen(one.router.clone()).await).await;
    let beside = SocketAddr::from(([127, 0, 0, 2], one.wire.address.port()));
    two.wire = Wire::at(beside, listen(two.router.clone()).await).await;
    [one, two]
}

/// The nodes that answer different prompts now.
async fn who_answers(gateway: &Gateway) -> BTreeSet<String> {
    let mut nodes = BTreeSet::new();
    for number in 0..16 {
        let messages = json!([{"role": "user", "content": format!("{number}?")}]);
        let body = chat(&json!({"max_tokens": 2, "messages": messages}));
        let answer = ask(&gateway.router, &body).await;
        let route = answer.headers["x-hearth-route"].to_str().expect("text");
        let node = route.split("; ").find_map(|part| part.strip_prefix("node="));
        nodes.insert(node.expect("a node").to_owned());
    }
    nodes
}

/// These nodes and no others answer what is asked now.
async fn all_go_to(gateway: &Gateway, sites: &[&Site]) {
    let expect = sites.iter().map(|site| site.wire.address.to_string()).collect();
    assert_eq!(who_answers(gateway).await, expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_name_has_lost_ends_what_it_has_and_gets_nothing_new() {
    let [one, two] = &sites().await;
    // An engine of the same words that nobody disturbs.
    let alone = Fake::start(Setup { speech: SPEECH, ..Setup::default() });
    let wanted = ask(&alone.router, &chat(&json!({}))).await.json();
    let dns = Dns::default();
    dns.told().addresses.insert("first".to_owned(), vec![one.wire.address.ip()]);
    let gateway = dns.gateway(one.wire.address.port());
    gateway.nodes(1).await;
    dns.says("first", Some(&[one, two])).await;
    gateway.nodes(2).await;
    gateway.model("org/fake").await;

    // A look-up that fails says nothing.
    dns.says("first", None).await;
    all_go_to(&gateway, &[one, two]).await;
    let (leaves, mut body, mut seen) = under_way(&gateway, [one, two]).await;
    leaves.fake.gate.close();
    let stays = if std::ptr::eq(leaves, one) { two } else { one };
    dns.says("first", Some(&[stays])).await;
    all_go_to(&gateway, &[stays]).await;
    assert_eq!((leaves.model().engine.open(), gateway.up()), (1, 2), "it is still at it");
    leaves.fake.gate.open();
    read_until(&mut body, "[DONE]", &mut seen).await;
    assert_eq!(text(&seen), wanted["choices"][0]["message"]["content"].as_str().expect("text"));
    assert_eq!(gateway.figure("hearth_cluster_resumes_total{model=\"org/fake\"}"), 0.0);

    // It comes back, and is taken for what it is.
    dns.says("first", Some(&[leaves])).await;
    all_go_to(&gateway, &[leaves]).await;
    assert_eq!(gateway.up(), 2);
    // Known by two names it stays with one of them, and goes with both.
    dns.says("second", Some(&[leaves])).await;
    dns.says("first", Some(&[])).await;
    all_go_to(&gateway, &[leaves]).await;
    dns.says("first", Some(&[stays])).await;
    dns.says("second", Some(&[stays])).await;
    all_go_to(&gateway, &[stays]).await;
    // Let go and dead: it is forgotten.
    leaves.wire.kill(true);
    let node = format!("node=\"{}\"", leaves.wire.address);
    until("it is forgotten", || !gateway.metrics.render().contains(&node)).await;
    // The last address of all goes as well.
    dns.says("first", Some(&[])).await;
    dns.says("second", Some(&[])).await;
    let body = chat(&json!({})).to_string();
    assert_eq!(post(&gateway.router, "/v1/chat/completions", body).await.status, 503);
}
