//! What nodes serve becomes models of this gateway. A name is one model: nodes that mean another
//! by it get nothing, as long as any node has the one that is known.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use text::TextModel;
use text::tools::Format;
use tokio::time::timeout;

use super::{Inner, Known};
use crate::backend::answering::Answering;
use crate::backend::local::PrefixRule;
use crate::backend::{Model, PoolModel};
use crate::cluster::member::Member;
use crate::cluster::picture::Offer;
use crate::cluster::protocol::{self, CARD_BYTES_MAX, Card, Prefix, ReaderCard, SIZE_MAX};
use crate::cluster::read::ClusterReader;
use crate::cluster::remote::ClusterEngine;
use crate::cluster::service::Service;

/// Why a model of a node gets nothing here.
const OWN: &str = "this gateway has a model of this name itself";
/// Longest wait for a description: other nodes of the same model wait behind it.
const FETCH_TIME: Duration = Duration::from_secs(10);

impl Inner {
    /// Looks at what a node serves.
    pub(super) async fn learn(self: &Arc<Self>, member: &Arc<Member>) {
        for offer in member.offers() {
            if self.knows(&offer.name, &offer.fingerprint) {
                continue;
            }
            let turn = self.turn(&offer.name);
            let _one = turn.lock().await;
            if self.knows(&offer.name, &offer.fingerprint) {
                continue;
            }
            let node = member.endpoint.authority();
            match self.take_in(member, &offer).await {
                Ok(()) => {
                    self.metrics.cluster().refused(&node, &offer.name, false);
                    // It may have been unloaded meanwhile.
                    if offer.base.is_some() {
                        self.let_go(&offer);
                    }
                }
                Err(why) => {
                    // Once a second would fill the log.
                    if self.metrics.cluster().refused(&node, &offer.name, true) {
                        tracing::warn!(
                            node,
                            model = offer.name,
                            why,
                            "a node's model gets nothing"
                        );
                    }
                }
            }
        }
    }

    /// A node has unloaded an adapter. With the last one it is gone at once: nobody has lost it.
    pub(super) fn let_go(&self, offer: &Offer) {
        let Offer { name, fingerprint, .. } = offer;
        let mut engines = self.engines();
        let known = engines.get(name).is_some_and(|k| k.service().fingerprint == *fingerprint);
        let held = self.roster.list().iter().any(|member| member.serves(name, fingerprint));
        if known && !held {
            tracing::info!(model = name, fingerprint, "an adapter is gone");
            engines.remove(name);
            self.models.remove_cluster(name);
        }
    }

    /// Whose holder alone asks for the description of this model.
    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        learning.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(learning.entry(name.to_owned()).or_default())
    }

    fn knows(&self, name: &str, fingerprint: &str) -> bool {
        self.engines().get(name).is_some_and(|known| known.service().fingerprint == fingerprint)
    }

    async fn take_in(&self, member: &Arc<Member>, offer: &Offer) -> Result<(), String> {
        let Offer { name, fingerprint, base, .. } = offer;
        // Before anything is fetched: descriptions are large, and this is asked again and again.
        if self.models.has_own(name) {
            return Err(OWN.to_owned());
        }
        let known = self.engines().get(name).map(|known| known.service().fingerprint.clone());
        if let Some(known) = known
            && self.roster.list().iter().any(|other| other.serves(name, &known))
        {
            return Err(format!(
                "it is not the model that others serve under this name ({fingerprint}, not {known})"
            ));
        }
        let (put, known) = if offer.reads {
            let (model, reader) = self.describe_reader(member, offer).await?;
            (self.models.put_cluster_pool(model), Known::Reads(reader))
        } else {
            let (model, engine) = match base {
                None => self.describe(member, offer).await?,
                Some(base) => self.beside(base, offer)?,
            };
            (self.models.put_cluster(model), Known::Writes(engine))
        };
        if !put {
            return Err(OWN.to_owned());
        }
        tracing::info!(model = name, fingerprint, node = %member.endpoint, "a model is offered");
        self.engines().insert(name.clone(), known);
        Ok(())
    }

    /// A model as its node describes it.
    async fn describe(
        &self,
        member: &Arc<Member>,
        offer: &Offer,
    ) -> Result<(Model, ClusterEngine), String> {
        let card: Card = fetch(member, (protocol::MODEL, &offer.name)).await?;
        same(offer, (&card.name, &card.fingerprint))?;
        let engine = self.engine(offer, &offer.name, card.context);
        let own = engine.clone();
        let made = tokio::task::spawn_blocking(move || model(card, own)).await;
        Ok((made.map_err(|_| "its text cannot be made".to_owned())??, engine))
    }

    /// The same of one that reads and does not write.
    async fn describe_reader(
        &self,
        member: &Arc<Member>,
        offer: &Offer,
    ) -> Result<(PoolModel, ClusterReader), String> {
        let card: ReaderCard = fetch(member, (protocol::READER, &offer.name)).await?;
        same(offer, (&card.name, &card.fingerprint))?;
        if card.size > SIZE_MAX {
            return Err(format!("its vectors have more than {SIZE_MAX} numbers"));
        }
        let reader = ClusterReader::new(self.service(offer, &offer.name), card.size);
        let own = reader.clone();
        let made = tokio::task::spawn_blocking(move || pool_model(card, own)).await;
        Ok((made.map_err(|_| "its text cannot be made".to_owned())??, reader))
    }

    /// An adapter: all but its tokens is its base's.
    fn beside(
        &self,
        (base, fingerprint): &(String, String),
        offer: &Offer,
    ) -> Result<(Model, ClusterEngine), String> {
        let known = self.models.get(base).filter(|_| self.knows(base, fingerprint));
        let base = known.ok_or_else(|| format!("its base `{base}` is not the one served here"))?;
        let engine = self.engine(offer, &base.id, base.context);
        let model = Model {
            id: offer.name.clone(),
            created: base.created,
            context: base.context,
            text: Arc::clone(&base.text),
            defaults: base.defaults.clone(),
            max_tokens_default: base.max_tokens_default,
            eos: base.eos.clone(),
            answering: Arc::clone(&base.answering),
            engine: engine.clone().into(),
            prefix: base.prefix,
            adapters: None,
            adapter: None,
        };
        Ok((model, engine))
    }

    /// What has the tokens made; its figures are those of `counted`.
    fn engine(&self, offer: &Offer, counted: &str, context: usize) -> ClusterEngine {
        ClusterEngine::new(self.service(offer, counted), offer.base.is_some(), context)
    }

    fn service(&self, offer: &Offer, counted: &str) -> Service {
        let about = (offer.name.clone(), offer.fingerprint.clone());
        let (roster, metrics) = (self.roster.clone(), self.metrics.model(counted));
        Service::new(about, roster, metrics, self.request_timeout)
    }
}

fn same(offer: &Offer, (name, fingerprint): (&str, &str)) -> Result<(), String> {
    if fingerprint != offer.fingerprint || name != offer.name {
        return Err("it describes another model than it tells of".to_owned());
    }
    Ok(())
}

/// A model's description, of whichever kind.
async fn fetch<C: DeserializeOwned + Send + 'static>(
    member: &Member,
    what: (&str, &str),
) -> Result<C, String> {
    let card = timeout(FETCH_TIME, get(member, what)).await;
    card.map_err(|_| "its description does not come".to_owned())?
}

async fn get<C: DeserializeOwned + Send + 'static>(
    member: &Member,
    (route, name): (&str, &str),
) -> Result<C, String> {
    let mut way = member.way().ok_or("it is gone")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let path: String = name
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let response = way.get(&format!("{route}{path}")).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let body = Limited::new(response.into_body(), CARD_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let read = tokio::task::spawn_blocking(move || serde_json::from_slice(&body)).await;
    let read = read.map_err(|_| "its description cannot be read".to_owned())?;
    read.map_err(|error| format!("its description makes no sense: {error}"))
}

/// The model as handlers see it.
fn pool_model(card: ReaderCard, reader: ClusterReader) -> Result<PoolModel, String> {
    let text = TextModel::from_portable(card.text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(PoolModel {
        reads: card.reads(),
        id: card.name,
        created: card.created,
        task: card.task.into(),
        context: card.context,
        size: card.size,
        normalises: card.normalises,
        text: Arc::new(text),
        engine: reader.into(),
    })
}

/// The same of one that writes.
fn model(card: Card, engine: ClusterEngine) -> Result<Model, String> {
    let text = TextModel::from_portable(card.text.as_bytes()).map_err(|error| error.to_string())?;
    let text = Arc::new(text);
    let format = match &card.tool_format {
        None => None,
        Some(name) => {
            let known = Format::named(name);
            Some(known.ok_or_else(|| format!("`{name}` is no way of writing calls here"))?)
        }
    };
    let answering = Answering::new(&text, &card.eos, format);
    Ok(Model {
        id: card.name,
        created: card.created,
        context: card.context,
        text,
        defaults: card.defaults.sampling(),
        max_tokens_default: card.max_tokens_default,
        eos: card.eos,
        answering: Arc::new(answering),
        engine: engine.into(),
        prefix: match card.prefix {
            Prefix::Any => PrefixRule::Any,
            Prefix::Split(limit) => PrefixRule::Split { limit },
            Prefix::Length(limit) => PrefixRule::Length { limit },
        },
        adapters: None,
        adapter: None,
    })
}
