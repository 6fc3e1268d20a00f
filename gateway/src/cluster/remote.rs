//! A model whose tokens are made by nodes: to the rest of the gateway an engine like the one in
//! this process. It holds no weights; it knows which nodes have them, and sends each request to
//! the one that is thought to answer soonest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scheduler::types::{PAGE_TOKENS, Request, RequestId};
use scheduler::{Stats, prefix_hashes};
use tokio::sync::mpsc;

use super::carry::{Carried, Carrier, Control};
use super::choose::{self, Candidate, Finding, choose};
use super::look::{among, chance};
use super::member::Member;
use super::protocol::{self, Load};
use super::service::{Chosen, Figure, Nobody, OnNodes, Service, of_the_well};
use crate::backend::meter::Metered;
use crate::backend::reading::Reading;
use crate::backend::{Along, SubmitError, events_max};
use crate::metrics::{ModelMetrics, RequestTimer};

/// Ids within this gateway: a request's name in logs.
static NEXT_ID: AtomicU64 = AtomicU64::new(1 << 62);

/// Handle to a model of the cluster. Clones are cheap and mean the same.
#[derive(Clone)]
pub struct ClusterEngine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) service: Service,
    /// It is an adapter: its base's engine makes its tokens, and its figures are its base's.
    adapter: bool,
    /// Longest sequence in tokens.
    pub(super) context: usize,
    least: Figure<Least>,
}

/// A node as a choice for a request sees it.
pub(crate) struct Seen {
    pub(crate) node: String,
    /// The request would go there.
    pub(crate) chosen: bool,
    /// Sequences that wait there.
    pub(crate) waiting: u64,
    /// Pages of its cache with nothing in them.
    pub(crate) pages_free: u32,
    pub(crate) finding: Finding,
}

/// What a choice has looked at.
struct Looked<'a> {
    there: Vec<&'a Arc<Member>>,
    candidates: Vec<Candidate>,
    /// Tokens of the prompt.
    length: u64,
    best: Option<Finding>,
}

/// Where a new request would wait least.
#[derive(Clone, Copy, Default)]
struct Least {
    /// Sequences that wait.
    waiting: u32,
    us: u64,
}

impl ClusterEngine {
    pub(super) fn new(service: Service, adapter: bool, context: usize) -> Self {
        Self { shared: Arc::new(Shared { service, adapter, context, least: Figure::default() }) }
    }

    /// Sends a request to a node; its id is overwritten. Must be called within a runtime.
    ///
    /// # Errors
    /// No node is there, or none has room.
    pub(crate) fn submit_with(
        &self,
        mut request: Request,
        along: Along,
    ) -> Result<Carried, SubmitError> {
        let Along { grammar, meter, arrived, hedge } = along;
        let shared = &self.shared;
        let service = &shared.service;
        service.admit(|| self.shortest_wait())?;
        request.id = RequestId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let paid = meter.as_ref().map_or(u32::MAX, |meter| meter.allowance());
        request.allowance = request.max_tokens.min(paid);
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let adapter = shared.adapter.then_some(service.fingerprint.as_str());
        let salt = protocol::salt(request.salt, adapter);
        let chain: Vec<u64> = prefix_hashes(&request.prompt, salt).collect();
        let first = match shared.choose(&chain, request.prompt.len(), &[]) {
            Ok(first) => first,
            Err(nobody) => return Err(service.turned_away(nobody, self.shortest_wait())),
        };
        let (events, reader) = mpsc::channel(events_max(&request, shared.context));
        let control = Arc::new(Control::new(request.choices));
        let timer = RequestTimer::start(Arc::clone(&service.metrics), prompt_tokens, arrived);
        let (id, route) = (request.id, service.route(&first));
        let carrier = Carrier::new(Arc::clone(shared), request, (events, Arc::clone(&control)))
            .held(grammar.map(|grammar| grammar.plan().clone()))
            .paid(meter.map(|meter| Metered::new(meter, &[])))
            .until(service.deadline(arrived))
            .knowing(chain)
            .hedged(hedge);
        tokio::spawn(carrier.run(first));
        Ok(Carried::new(id, Reading::new(reader, timer), control, route))
    }

    /// What a choice sees now of the nodes that it looks at, for this prompt.
    pub(crate) fn nodes(&self, prompt: &[u32], salt: u64) -> Vec<Seen> {
        let (shared, (model, fingerprint)) = (&self.shared, self.shared.service.name());
        let salt = protocol::salt(salt, shared.adapter.then_some(fingerprint));
        let chain: Vec<u64> = prefix_hashes(prompt, salt).collect();
        let nodes = shared.service.nodes();
        let looked = shared.look(&nodes, (&chain, prompt.len()), &[]);
        let each = looked.there.iter().zip(&looked.candidates).enumerate();
        let seen = each.map(|(at, (node, candidate))| Seen {
            node: node.endpoint.authority(),
            chosen: looked.best.is_some_and(|best| best.at == at),
            waiting: candidate.waiting,
            pages_free: node.load(model, fingerprint).map_or(0, |(load, _)| load.pages_free),
            finding: choose::find(at, candidate, looked.length),
        });
        seen.collect()
    }

    /// Sequences that wait at the node where the fewest do.
    #[must_use]
    pub fn waiting(&self) -> usize {
        usize::try_from(self.shared.least().waiting).unwrap_or(usize::MAX)
    }

    /// Of all nodes together, as far as they tell.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        for (load, _) in self.shared.loads() {
            all.requests += number(load.open);
            all.running += number(load.running);
            all.waiting += number(load.waiting);
            all.pages_total += number(load.pages_total);
            all.pages_free += number(load.pages_free);
        }
        all
    }

    /// The model's metrics, of this gateway.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.shared.service.metrics
    }

    /// Once a second: what nodes tell goes into the figures.
    pub(super) fn review(&self) {
        self.shared.service.look();
        if !self.shared.adapter {
            self.shared.service.report(self.stats());
        }
    }
}

impl OnNodes for ClusterEngine {
    fn service(&self) -> &Service {
        &self.shared.service
    }

    fn shortest_wait(&self) -> Duration {
        Duration::from_micros(self.shared.least().us)
    }
}

impl Shared {
    pub(super) fn is_adapter(&self) -> bool {
        self.adapter
    }

    /// The loads of all nodes that take requests, and whether each is well.
    fn loads(&self) -> Vec<(Load, bool)> {
        let (nodes, (model, fingerprint)) = (self.service.nodes(), self.service.name());
        nodes.iter().filter_map(|node| node.load(model, fingerprint)).collect()
    }

    fn least(&self) -> Least {
        self.least.get(|| {
            let loads: Vec<Load> = of_the_well(self.loads()).collect();
            let each = loads.iter();
            let us = each.map(|load| u64::from(load.waiting).saturating_mul(load.us_per_request));
            Least {
                waiting: loads.iter().map(|load| load.waiting).min().unwrap_or_default(),
                us: us.min().unwrap_or_default(),
            }
        })
    }

    /// Those of these nodes that a choice looks at for a prompt of these pages, but `avoid`, and
    /// the best.
    fn look<'a>(
        &self,
        nodes: &'a [Arc<Member>],
        (chain, prompt): (&[u64], usize),
        avoid: &[u64],
    ) -> Looked<'a> {
        let name = self.service.name();
        let page = u64::try_from(PAGE_TOKENS).unwrap_or(1);
        // The last token is computed in any case.
        let usable = &chain[..chain.len().min(prompt.saturating_sub(1) / PAGE_TOKENS)];
        let now = Instant::now();
        let see = |node: &Member| node.candidate(name, usable, (page, now));
        let looked = among(nodes, (usable, chance()), avoid, see);
        let (there, candidates): (Vec<&Arc<Member>>, Vec<_>) = looked.into_iter().unzip();
        let length = u64::try_from(prompt).unwrap_or(u64::MAX);
        let number = usable.last().copied().unwrap_or(length);
        let best = choose(&candidates, length, number);
        Looked { there, candidates, length, best }
    }

    /// The best node for a prompt of these pages, `avoid` left out.
    pub(super) fn choose(
        &self,
        chain: &[u64],
        prompt: usize,
        avoid: &[u64],
    ) -> Result<Chosen, Nobody> {
        let nodes = self.service.nodes();
        let looked = self.look(&nodes, (chain, prompt), avoid);
        let Looked { there, candidates, length, best } = looked;
        if tracing::enabled!(tracing::Level::DEBUG) {
            for (at, candidate) in candidates.iter().enumerate() {
                let finding = choose::find(at, candidate, length);
                tracing::debug!(
                    model = &*self.service.model,
                    node = %there[at].endpoint,
                    verdict = %finding.verdict,
                    open = finding.open,
                    held = finding.held,
                    wait_us = finding.wait_us,
                    first_token_us = finding.first_us,
                    "a node"
                );
            }
        }
        match best {
            Some(finding) => Ok(Chosen::new(there[finding.at], &self.service.model, finding)),
            None if candidates.iter().any(|candidate| !candidate.draining) => Err(Nobody::Full),
            None => Err(Nobody::Gone),
        }
    }
}
