//! Models of providers that are known by name: those of the table of models, and those that an
//! operator names one by one. Each is asked as `PROVIDER/MODEL`. Nobody asks a provider which
//! models it has.

use std::collections::HashSet;

use govern::policy::Label;
use serde_json::{Value, json};

use super::envelope::Caller;
use super::{App, kept};
use crate::upstream::{Provider, models};

/// A model of a provider.
pub(super) struct Known {
    /// `PROVIDER/MODEL`.
    pub(super) id: String,
    /// Tokens that its prompts have to be below, where that is known.
    pub(super) reads: Option<usize>,
    /// It answers chats, as far as is known.
    pub(super) chats: bool,
    provider: String,
    /// The most secret label that it may see.
    max_label: Label,
}

impl Known {
    fn of(provider: &Provider, name: &str) -> Self {
        let known = models::known(provider.kind, name);
        let reads = known.and_then(models::Model::reads);
        Self {
            id: format!("{}/{name}", provider.name),
            reads: reads.and_then(|tokens| usize::try_from(tokens).ok()),
            chats: provider.kind.chats() && !known.is_some_and(|known| known.embeds),
            provider: provider.name.clone(),
            max_label: provider.max_label,
        }
    }

    /// For OpenAI's list.
    pub(super) fn card(&self) -> Value {
        let Self { id, provider, reads, .. } = self;
        let mut card = json!({ "id": id, "object": "model", "created": 0, "owned_by": provider });
        if let Some(tokens) = reads {
            card["max_model_len"] = json!(tokens);
        }
        card
    }

    fn is_for(&self, caller: Option<&Caller>) -> bool {
        caller.is_none_or(|caller| {
            let may = caller.sees(&self.id) && caller.may_ask_of(&self.provider);
            may && kept::label(caller) <= self.max_label
        })
    }
}

/// Those that this caller may ask, provider by provider, but for names that others are listed by.
pub(super) fn all<'a>(
    app: &'a App,
    caller: Option<&'a Caller>,
) -> impl Iterator<Item = Known> + 'a {
    let of = |provider: &'a std::sync::Arc<Provider>| {
        provider.known().into_iter().map(move |name| Known::of(provider, name))
    };
    let models = app.models.list().into_iter().map(|model| model.id.clone());
    let pools = app.models.pools().into_iter().map(|model| model.id.clone());
    let here: HashSet<String> = models.chain(pools).collect();
    let is_listed = move |id: &str| app.routes.has_pool(id) || here.contains(id);
    let each = app.routes.providers().flat_map(of);
    each.filter(move |known| known.is_for(caller) && !is_listed(&known.id))
}

/// The one of this name that this caller may ask, whether it is known or only allowed.
pub(super) fn one(app: &App, caller: Option<&Caller>, id: &str) -> Option<Known> {
    let (provider, name) = id.split_once('/')?;
    let provider = app.routes.providers().find(|own| own.name == provider)?;
    // Models of this process come first.
    let here = app.models.get(id).is_some() || app.models.pool(id).is_some();
    let may = !name.is_empty() && !here && provider.offers(name);
    may.then(|| Known::of(provider, name)).filter(|known| known.is_for(caller))
}
