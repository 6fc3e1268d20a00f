//! Every caller's requests as every provider gets them, byte by byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wire::{Back, Lost};

use crate::asked::{Case, Feature, features};
use crate::golden::Golden;
use crate::replay;
use crate::side::{From, In, To};

/// What became of a feature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is refused before anybody is asked.
    Refused,
    /// Without these fields.
    Lost(Vec<String>),
    /// It is said, in other words.
    Carried,
    /// The request is the same without it.
    Same,
}

/// A request as a provider gets it, and what is lost.
pub(crate) fn asked(side: In, to: To, body: &Value) -> Result<(Value, Lost), String> {
    let mut chat = side.parse(body, false).map_err(|error| error.message)?;
    chat.model = to.model().to_owned();
    let _ = Back::of(&mut chat, to.dialect());
    let mut lost = Lost::default();
    let sent = to.render(&chat, &mut lost);
    Ok((sent, lost))
}

pub(crate) fn fate(side: In, to: To, case: &Case) -> Fate {
    let (without, before) = asked(side, to, &case.without).expect("it is sound");
    match asked(side, to, &case.with) {
        Err(_) => Fate::Refused,
        Ok((_, lost)) if lost != before => Fate::Lost(lost.names().map(str::to_owned).collect()),
        Ok((with, _)) if with == without => Fate::Same,
        Ok(_) => Fate::Carried,
    }
}

/// Names of all features, with those of replayed turns.
pub(crate) fn names(features: &[Feature]) -> Vec<&'static str> {
    features.iter().map(|feature| feature.name).chain(replay::FEATURES).collect()
}

/// One of them; `None`: the caller cannot say it.
pub(crate) fn case(features: &[Feature], side: In, to: To, name: &str) -> Option<Case> {
    match features.iter().find(|feature| feature.name == name) {
        Some(feature) => feature.of(side),
        None => replay::case(side, to, name),
    }
}

/// What is sent, with what was lost; or why it is refused.
fn shown(side: In, to: To, body: &Value) -> String {
    match asked(side, to, body) {
        Ok((sent, lost)) if lost.is_empty() => sent.to_string(),
        Ok((sent, lost)) => {
            let names: Vec<&str> = lost.names().collect();
            format!("{}\n{sent}", json!({"lost": names}))
        }
        Err(why) => json!({"refused": why}).to_string(),
    }
}

#[test]
fn every_caller_as_every_provider_is_asked() {
    let mut goldens: BTreeMap<From, Golden> = BTreeMap::new();
    let features = features();
    for name in names(&features) {
        for side in In::ALL {
            for to in To::ALL {
                let Some(case) = case(&features, side, to, name) else { continue };
                let kind = if to.from() == From::Chat { format!(" to {to:?}") } else { "".into() };
                let golden = goldens.entry(to.from()).or_default();
                golden.add(format!("{name}, {}{kind}", side.name()), shown(side, to, &case.with));
            }
        }
    }
    for (from, golden) in goldens {
        golden.check(&format!("requests_{}.txt", from.name()), &[]);
    }
}
