//! What a caller is told who names a model that is not here: those of its names that it may ask,
//! the most alike first.

use std::cmp::Reverse;

use wire::{ApiError, ErrorKind};

use super::envelope::Caller;
use super::error::Failure;
use super::{App, known};

/// Names in a message.
const NAMES_MAX: usize = 8;

/// Characters of the wrong name that are repeated.
const SHOWN_MAX: usize = 128;

/// Nobody answers to this name. Without a caller no names are told: what somebody may know of
/// depends on who it is.
pub(super) fn model(app: &App, caller: Option<&Caller>, id: &str) -> Failure {
    let short: String = id.chars().take(SHOWN_MAX).collect();
    let told = match caller {
        Some(caller) => told(&short, names(app, caller)),
        None => "GET /v1/models lists those that do".to_owned(),
    };
    let message = format!("The model '{short}' does not exist here. {told}.");
    let error = ApiError::new(ErrorKind::NotFound, "model_not_found", message);
    error.with_param("model").into()
}

/// Nobody is told of a model that its policies do not let it ask.
pub(super) fn may_know(app: &App, caller: Option<&Caller>, id: &str) -> Result<(), Failure> {
    match caller {
        Some(caller) if !caller.sees(id) => Err(model(app, Some(caller), id)),
        _ => Ok(()),
    }
}

fn names(app: &App, caller: &Caller) -> Vec<String> {
    let (models, pools) = (app.models.list(), app.models.pools());
    let own = models.iter().map(|model| &model.id).chain(pools.iter().map(|model| &model.id));
    let routed = app.routes.pools().map(|pool| &pool.name);
    let own = own.chain(routed).filter(|name| caller.sees(name)).cloned();
    own.chain(known::all(app, Some(caller)).map(|known| known.id)).collect()
}

fn told(wrong: &str, mut names: Vec<String>) -> String {
    let wrong = wrong.to_lowercase();
    // None is below zero, and such numbers have the order of their bits. Equal ones stay in theirs.
    let like = |name: &String| strsim::jaro_winkler(&wrong, &name.to_lowercase()).to_bits();
    names.sort_by_cached_key(|name| Reverse(like(name)));
    names.dedup();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match (quoted.is_empty(), more) {
        (true, _) => "Available: none".to_owned(),
        (false, 0) => format!("Available: {}", quoted.join(", ")),
        (false, more) => format!("Available: {}, and {more} more", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_come_first() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let near = told("gpt-5-minni", owned(&["llama-3", "gpt-5", "GPT-5-mini"]));
        assert_eq!(near, "Available: 'GPT-5-mini', 'gpt-5', 'llama-3'");
        let many: Vec<String> = (0..20).map(|number| format!("model-{number}")).collect();
        let near = told("model-17", many);
        assert!(near.starts_with("Available: 'model-17', "), "{near}");
        assert!(near.ends_with(", and 12 more"), "{near}");
        assert_eq!(told("x", Vec::new()), "Available: none");
    }
}
