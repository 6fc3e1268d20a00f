//! A model that reads and does not write, on nodes: to the rest of the gateway one like those of
//! this process. A request goes to the node that is thought to have read it soonest. What is read
//! leaves nothing behind, so one whose node is lost is simply asked of another, from its beginning.
//!
//! Nothing runs for a request beside whoever waits for it: dropped, its stream to the node ends,
//! and the node stops reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Incoming;
use scheduler::Stats;
use scheduler::types::{Refusal, Usage};

use super::carry;
use super::choose::choose;
use super::lines::Lines;
use super::look::{among, chance};
use super::member::Member;
use super::protocol::{self, Read, ReadTold, VECTOR_BYTES_MAX, Why};
use super::service::{
    Chosen, Figure, NODE_WAIT, Nobody, OnNodes, Service, head, of_the_well, shutting_down, until,
};
use super::tries::{Failed, Tries};
use crate::backend::SubmitError;
use crate::backend::embed::{Input, Vectors};
use crate::metrics::RequestTimer;

/// Handle to a model of the cluster. Clones are cheap and mean the same.
#[derive(Clone)]
pub struct ClusterReader {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) service: Service,
    /// Numbers in a vector.
    size: usize,
    /// What the node with the shortest line has to do.
    least: Figure<Duration>,
}

/// A request that nodes read. Dropping it cancels it.
pub struct ClusterReading {
    shared: Arc<Shared>,
    inputs: Vec<Input>,
    tokens: u64,
    deadline: Option<Instant>,
    first: Option<Chosen>,
    timer: RequestTimer,
    _open: Open,
}

/// Counts a request for as long as it is open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.service.ended();
    }
}

/// What came of sending it to one node.
enum Came {
    /// Vectors, and how long they waited and were computed.
    Done(Vec<Vec<f32>>, u64, u64),
    /// It is refused, whoever is asked.
    Refused(Refusal),
    /// The node has no room.
    Full,
    /// The node gave nothing: another may do better.
    Failed(Failed),
}

impl ClusterReader {
    pub(super) fn new(service: Service, size: usize) -> Self {
        Self { shared: Arc::new(Shared { service, size, least: Figure::default() }) }
    }

    /// Has inputs read by a node; latency and timeout count from `arrived`. Nothing is sent before
    /// the result is waited for.
    ///
    /// # Errors
    /// No node is there, or none has room.
    pub fn submit(
        &self,
        inputs: Vec<Input>,
        arrived: Instant,
    ) -> Result<ClusterReading, SubmitError> {
        let shared = Arc::clone(&self.shared);
        let service = &shared.service;
        service.admit(|| self.shortest_wait())?;
        let count = inputs.iter().map(|input| input.ids.len()).sum::<usize>();
        let tokens = u64::try_from(count).unwrap_or(u64::MAX);
        let first = match shared.choose(tokens, &[]) {
            Ok(first) => first,
            Err(nobody) => return Err(service.turned_away(nobody, self.shortest_wait())),
        };
        let open = Open(Arc::clone(&shared));
        let counted = u32::try_from(count).unwrap_or(u32::MAX);
        let timer = RequestTimer::start(Arc::clone(&service.metrics), counted, arrived);
        let (deadline, first) = (service.deadline(arrived), Some(first));
        Ok(ClusterReading { shared, inputs, tokens, deadline, first, timer, _open: open })
    }

    /// Once a second: what nodes tell goes into the figures.
    pub(super) fn review(&self) {
        self.shared.service.look();
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let mut all = Stats::default();
        for (load, _) in self.shared.loads() {
            all.running += number(load.running);
            all.waiting += number(load.open.saturating_sub(load.running));
        }
        self.shared.service.report(all);
    }
}

impl OnNodes for ClusterReader {
    fn service(&self) -> &Service {
        &self.shared.service
    }

    fn shortest_wait(&self) -> Duration {
        self.shared.least.get(|| {
            let loads = of_the_well(self.shared.loads());
            let waits = loads.map(|load| load.tokens.saturating_mul(load.ns_per_token));
            Duration::from_nanos(waits.min().unwrap_or_default())
        })
    }
}

impl Shared {
    /// The loads of all nodes that take requests, and whether each is well.
    fn loads(&self) -> Vec<(protocol::ReadLoad, bool)> {
        let nodes = self.service.nodes();
        nodes.iter().filter_map(|node| node.read_load(self.service.name())).collect()
    }

    /// The best node for so many tokens, `avoid` left out.
    fn choose(&self, tokens: u64, avoid: &[u64]) -> Result<Chosen, Nobody> {
        let (nodes, name) = (self.service.nodes(), self.service.name());
        let number = chance();
        let see = |node: &Member| node.read_candidate(name, None);
        let looked = among(&nodes, (&[], number), avoid, see);
        let loads = looked.iter().filter_map(|(node, _)| node.read_load(name));
        let times = loads.map(|(load, _)| load.ns_per_token);
        let best = times.filter(|ns| *ns > 0).min();
        let (there, candidates): (Vec<_>, Vec<_>) = looked
            .into_iter()
            .filter_map(|(node, _)| Some((node, node.read_candidate(name, best)?)))
            .unzip();
        match choose(&candidates, tokens, number) {
            Some(finding) => Ok(Chosen::new(there[finding.at], &self.service.model, finding)),
            None if candidates.iter().any(|candidate| !candidate.draining) => Err(Nobody::Full),
            None => Err(Nobody::Gone),
        }
    }
}

impl ClusterReading {
    /// Waits for the vectors; also which node made them, and why that one.
    ///
    /// # Errors
    /// The time was up, or no node made them.
    pub async fn result(mut self) -> Result<(Vectors, String), Refusal> {
        let prompt_tokens = u32::try_from(self.tokens).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens, ..Usage::default() };
        match self.run().await {
            Ok((vectors, route)) => {
                let Vectors { queue_us, compute_us, .. } = vectors;
                self.timer.end("stop", &Usage { queue_us, prefill_us: compute_us, ..usage });
                Ok((vectors, route))
            }
            Err(refusal) => {
                self.timer.refused(&refusal, &usage);
                Err(refusal)
            }
        }
    }

    async fn run(&mut self) -> Result<(Vectors, String), Refusal> {
        let shared = Arc::clone(&self.shared);
        let service = &shared.service;
        let mut tries = Tries::default();
        let (mut avoid, mut full) = (Vec::new(), None);
        let mut next = self.first.take();
        loop {
            let mut chosen = match next.take() {
                Some(chosen) => chosen,
                None => {
                    let choose = |avoid: &[u64]| shared.choose(self.tokens, avoid);
                    service.another(&mut avoid, (self.deadline, false), choose).await?
                }
            };
            let mut stopped = service.stop.subscribe();
            let came = tokio::select! {
                came = self.attempt(&chosen) => came,
                () = until(self.deadline) => {
                    chosen.trial.late();
                    Came::Refused(Refusal::Deadline)
                }
                _ = stopped.wait_for(|stop| *stop) => Came::Refused(shutting_down()),
            };
            avoid.push(chosen.member.number);
            match came {
                Came::Done(vectors, queue_us, compute_us) => {
                    chosen.trial.ended();
                    let tokens = self.tokens;
                    let vectors = Vectors { vectors, tokens, compute_us, queue_us };
                    return Ok((vectors, service.route(&chosen)));
                }
                Came::Refused(why) => return Err(why),
                Came::Full => {
                    let since: Instant = *full.get_or_insert_with(Instant::now);
                    if avoid.len() >= service.members() || since.elapsed() > NODE_WAIT {
                        return Err(Refusal::Overloaded);
                    }
                }
                Came::Failed(failed) => {
                    failed.tell(&mut chosen.trial);
                    let (model, why) = (&*service.model, failed.why());
                    let node = &chosen.member.endpoint;
                    tracing::info!(model, %node, why, "a node gave nothing");
                    tries.failed(failed, service.members())?;
                    service.metrics.resumed();
                }
            }
        }
    }

    /// Sends it to a node and reads what comes.
    async fn attempt(&self, chosen: &Chosen) -> Came {
        let name = self.shared.service.name();
        let Some(mut sending) = chosen.member.send(name, self.tokens) else {
            return Came::Failed(Failed::Gone("it is gone".to_owned()));
        };
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let mut body = Vec::new();
        protocol::line(&Read::new(name, &self.inputs, left_ms), &mut body);
        let response = match head(sending.way.post(protocol::READ, body, None)).await {
            Ok(response) => response,
            Err(failed) => return Came::Failed(failed),
        };
        if response.status() != StatusCode::OK {
            return carry::refusal(response).await.map_or(Came::Full, Came::Failed);
        }
        let lines = Lines::new(response.into_body(), VECTOR_BYTES_MAX);
        self.take(lines).await.unwrap_or_else(|why| Came::Failed(Failed::Broken(why)))
    }

    /// Reads what a node tells, and checks it against what was asked.
    async fn take(&self, mut lines: Lines<Incoming>) -> Result<Came, String> {
        let (count, size) = (self.inputs.len(), self.shared.size);
        let mut vectors = Vec::with_capacity(count);
        loop {
            let line = lines.next().await.map_err(|broken| broken.to_string())?;
            let line = line.ok_or("it ended without a last word")?;
            match serde_json::from_slice(&line).map_err(|error| error.to_string())? {
                ReadTold::Vector(numbers) if numbers.len() == size && vectors.len() < count => {
                    vectors.push(numbers.into_iter().map(f32::from).collect());
                }
                ReadTold::Vector(_) => return Err("a vector that nobody asked for".to_owned()),
                ReadTold::Done(queue_us, compute_us) if vectors.len() == count => {
                    return Ok(Came::Done(vectors, queue_us, compute_us));
                }
                ReadTold::Done(..) => {
                    return Err("it says that all is read, and it is not".to_owned());
                }
                ReadTold::Refused(Why::Overloaded) => return Ok(Came::Full),
                ReadTold::Refused(why) => {
                    return Ok(match Refusal::from(why) {
                        Refusal::Engine(why) => Came::Failed(Failed::Engine(why)),
                        refusal => Came::Refused(refusal),
                    });
                }
            }
        }
    }
}
