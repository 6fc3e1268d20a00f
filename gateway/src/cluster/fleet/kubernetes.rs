//! Nodes that are the endpoints of a service of Kubernetes. Its API server lists the service's
//! EndpointSlices and then tells of each change as it happens (list and watch), so that a pod that
//! comes or goes is known at once. What was told last counts for as long as nothing else is told: a
//! server that is away, broken or refuses takes no node away.
//!
//! Whether a node works is not asked here: that the node itself tells.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>

mod service;
mod slices;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Weak;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use reqwest::header::ACCEPT;
use reqwest::{Body, Certificate, Client, Response, StatusCode, Url};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use super::{Finder, Inner, Named};
use crate::cluster::lines::Lines;
use crate::outbound::{self, Options, Proxies};

pub use service::{KubernetesService, ServicePort};
use slices::{Slices, Status, Trouble};

/// Between two words to the fleet that nodes are there still: several times before it forgets.
const REMIND: Duration = Duration::from_secs(3);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for a list, and for what a watch owes when its time is up.
const ANSWER: Duration = Duration::from_secs(10);
/// So long a watch is asked for. A connection that has died without a word is noticed when it ends.
const WATCH: Duration = Duration::from_secs(60);
/// Watches begin no more often, whatever ends them.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Before the next list.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// What has gone well for so long is no part of a row of failures.
const STEADY: Duration = Duration::from_secs(1);
/// A thousand pods are half a megabyte.
const LIST_BYTES_MAX: usize = 4 << 20;
/// An object of Kubernetes has a megabyte and a half at most.
const LINE_BYTES_MAX: usize = 2 << 20;
/// Of an answer that says what is wrong.
const STATUS_BYTES_MAX: usize = 16 << 10;

/// Which services, and who is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// Each of their endpoints is a node.
    pub services: Vec<KubernetesService>,
    /// The API server. `None`: nobody is asked.
    pub api: Option<Url>,
    /// Folder with `token`, `ca.crt` and `namespace`, as pods have it. They are read again and
    /// again: Kubernetes replaces them.
    pub account: PathBuf,
}

/// Every endpoint of a service is a node, as long as it is one.
pub(super) async fn follow(
    fleet: Weak<Inner>,
    finder: Finder,
    service: KubernetesService,
    (api, account): (Url, PathBuf),
) {
    let (say, hear) = watch::channel(Vec::new());
    let asker = Asker { service, api, account, say, logged: None };
    tokio::select! {
        () = asker.ask() => {}
        () = keep_to(&fleet, finder, hear) => {}
    }
}

/// Makes the fleet's nodes of what is told. Ends when nobody holds the fleet any more.
async fn keep_to(fleet: &Weak<Inner>, finder: Finder, mut told: watch::Receiver<Vec<Named>>) {
    let mut ticks = interval(REMIND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = told.changed() => if changed.is_err() { return },
        }
        let Some(fleet) = fleet.upgrade() else { return };
        let named = told.borrow_and_update().clone();
        fleet.stands_for(finder, &named);
    }
}

/// Asks for one service.
struct Asker {
    service: KubernetesService,
    api: Url,
    account: PathBuf,
    /// What is known goes there.
    say: watch::Sender<Vec<Named>>,
    /// What the log said last: the same again would fill it.
    logged: Option<Result<(), String>>,
}

impl Asker {
    async fn ask(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let begun = Instant::now();
            let Err(trouble) = self.round().await;
            match trouble {
                Trouble::Gone => tracing::debug!(service = %self.service, "listed anew"),
                Trouble::Failed(why) => self.log(Err(why)),
            }
            let steady = begun.elapsed() >= STEADY;
            pause = if steady { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            sleep(pause).await;
        }
    }

    /// Lists, and watches from there for as long as that goes on.
    async fn round(&mut self) -> Result<Infallible, Trouble> {
        let client = self.client().await?;
        let url = self.url().await?;
        let mut slices = self.list(&client, url.clone()).await?;
        self.tell(&slices);
        loop {
            let begun = tokio::time::Instant::now();
            self.watch(&client, url.clone(), &mut slices).await?;
            sleep_until(begun + WATCH_EVERY).await;
        }
    }

    async fn list(&self, client: &Client, url: Url) -> Result<Slices, Trouble> {
        let response = self.get(client, url, ANSWER).await?;
        let body = Limited::new(Body::from(response), LIST_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("its list does not come: {error}"))?;
        Ok(Slices::read(&body.to_bytes(), &self.service.port)?)
    }

    /// `Ok`: its time is up, and the next one goes on where it ended.
    async fn watch(
        &mut self,
        client: &Client,
        mut url: Url,
        slices: &mut Slices,
    ) -> Result<(), Trouble> {
        url.query_pairs_mut()
            .append_pair("watch", "1")
            .append_pair("allowWatchBookmarks", "true")
            .append_pair("resourceVersion", &slices.version)
            .append_pair("timeoutSeconds", &WATCH.as_secs().to_string());
        let response = self.get(client, url, WATCH + ANSWER).await?;
        // Not before: who may list and not watch would fill the log.
        self.log(self.fits(slices));
        let mut lines = Lines::new(Body::from(response), LINE_BYTES_MAX);
        while let Some(line) = lines.next().await.map_err(|broken| broken.to_string())? {
            if slices.apply(&line, &self.service.port)? {
                self.tell(slices);
                self.log(self.fits(slices));
            }
        }
        Ok(())
    }

    fn tell(&self, slices: &Slices) {
        self.say.send_replace(slices.endpoints(&self.service));
    }

    fn fits(&self, slices: &Slices) -> Result<(), String> {
        match slices.is_portless() {
            true => Err(format!("none of its endpoints has the port `{}`", self.service.port)),
            false => Ok(()),
        }
    }

    /// Once for each change.
    fn log(&mut self, now: Result<(), String>) {
        let (service, again) = (&self.service, self.logged.as_ref() == Some(&now));
        match &now {
            Ok(()) if again => {}
            Ok(()) => tracing::info!(%service, "Kubernetes tells which nodes a service has"),
            Err(why) if again => tracing::debug!(%service, why, "Kubernetes still does not tell"),
            Err(why) => tracing::warn!(
                %service,
                why,
                "Kubernetes does not tell which nodes a service has; those that are known stay"
            ),
        }
        self.logged = Some(now);
    }

    /// Asks, and shows the token as it is now.
    async fn get(&self, client: &Client, url: Url, total: Duration) -> Result<Response, Trouble> {
        let mut request = client.get(url).header(ACCEPT, "application/json").timeout(total);
        if let Some(token) = self.token().await? {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(outbound::why)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::GONE => Err(Trouble::Gone),
            status => {
                let body = Limited::new(Body::from(response), STATUS_BYTES_MAX).collect().await;
                let said: Status = match body {
                    Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
                    Err(_) => Status::default(),
                };
                Err(Trouble::Failed(format!("it answers {status}: {}", said.said())))
            }
        }
    }

    /// Made for each list: the authorities may be others by then.
    async fn client(&self) -> Result<Client, String> {
        let mut authorities = Vec::new();
        if let Some(pem) = self.file("ca.crt").await? {
            let read = Certificate::from_pem_bundle(&pem);
            authorities = read.map_err(|error| self.wrong("ca.crt", &outbound::why(error)))?;
            if authorities.is_empty() {
                return Err(self.wrong("ca.crt", "there is no certificate in it"));
            }
        }
        let (connect, total, proxies) = (CONNECT, ANSWER, Proxies::None);
        let options = Options { connect, total, authorities, proxies };
        outbound::client(options).map_err(outbound::why)
    }

    async fn token(&self) -> Result<Option<String>, String> {
        match self.text("token").await? {
            // `kubectl proxy` shows one of its own.
            None if self.api.scheme() == "http" => Ok(None),
            None => {
                Err(self.wrong("token", "there is no such file (automountServiceAccountToken?)"))
            }
            token => Ok(token),
        }
    }

    /// Where the service's slices are.
    async fn url(&self) -> Result<Url, String> {
        let namespace = match &self.service.namespace {
            Some(name) => name.clone(),
            None => self.text("namespace").await?.ok_or_else(|| {
                self.wrong("namespace", "there is no such file: write http://SERVICE.NAMESPACE")
            })?,
        };
        if !service::is_label(&namespace) {
            return Err(self.wrong("namespace", "there is no name of one in it"));
        }
        let mut url = self.api.clone();
        let path = ["apis", "discovery.k8s.io", "v1", "namespaces", &namespace, "endpointslices"];
        let parts = url.path_segments_mut();
        parts.map_err(|()| "the API server's address has no path")?.pop_if_empty().extend(path);
        let selector = format!("kubernetes.io/service-name={}", self.service.name);
        url.query_pairs_mut().append_pair("labelSelector", &selector);
        Ok(url)
    }

    /// A file of the account, without the space around its text; `None`: there is none.
    async fn text(&self, name: &str) -> Result<Option<String>, String> {
        let Some(bytes) = self.file(name).await? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| self.wrong(name, "it is no text"))?;
        Ok(Some(text.trim().to_owned()))
    }

    async fn file(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match tokio::fs::read(self.account.join(name)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.wrong(name, &error.to_string())),
        }
    }

    fn wrong(&self, file: &str, why: &str) -> String {
        format!("{}: {why}", self.account.join(file).display())
    }
}
