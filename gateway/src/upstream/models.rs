//! Models that are well known, as data (`models.toml`): what they read, what they cannot, what
//! their providers ask for them. Pools learn here what their operator does not say. Prices are
//! shown, and written into sheets for an operator to look at and set: nobody is charged by this
//! table.

use std::sync::LazyLock;

use govern::policy::pattern;
use govern::price::{ModelPrice, Tier, TokenPrices};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Kind, Provider};

const TABLE: &str = include_str!("models.toml");

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let table: Table = toml::from_str(TABLE).expect("models.toml, which a test reads");
    table.sources
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    sources: Vec<Source>,
}

/// A page, and the models that it speaks of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Kinds of providers that have these models.
    pub kinds: Vec<String>,
    /// Where it was read.
    pub url: String,
    /// The latest day that it speaks of: `2026-11-17`.
    pub seen: String,
    models: Vec<Model>,
}

/// A model that is well known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What it is asked by: patterns, the usual name first.
    pub names: Vec<String>,
    /// How much it reads and writes.
    #[serde(default)]
    pub tokens: Tokens,
    /// What it cannot, in the words of a pool's targets.
    #[serde(default)]
    pub without: Vec<String>,
    /// It makes embeddings, and answers no chats.
    #[serde(default)]
    pub embeds: bool,
    /// What its provider asks for it.
    pub price: TokenPrices,
    /// What it asks where it may take its time.
    #[serde(default)]
    pub batch: Option<TokenPrices>,
    /// What it asks for long prompts.
    #[serde(default)]
    pub tiers: Vec<Tier>,
}

/// How many tokens a model reads and writes, as far as is known.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tokens {
    /// Its longest sequence, prompt and answer together.
    pub context: Option<u64>,
    /// Its longest prompt, where that is bounded apart.
    pub prompt: Option<u64>,
    /// Its longest answer.
    pub output: Option<u64>,
}

impl Model {
    /// Tokens that a prompt has to be below.
    #[must_use]
    pub fn reads(&self) -> Option<u64> {
        self.tokens.prompt.or(self.tokens.context)
    }

    /// Entries of a sheet, by the names that callers ask it by.
    fn prices(&self, section: &str) -> impl Iterator<Item = ModelPrice> {
        self.names.iter().map(move |name| ModelPrice {
            model: format!("{section}/{name}"),
            rates: self.price,
            tiers: self.tiers.clone(),
            batch: self.batch,
            device: None,
        })
    }
}

/// All models with their sources, in the order of the table.
pub fn all() -> impl Iterator<Item = (&'static Source, &'static Model)> {
    SOURCES.iter().flat_map(|source| source.models.iter().map(move |model| (source, model)))
}

/// The models of a kind of providers.
pub fn of(kind: &Kind) -> impl Iterator<Item = (&'static Source, &'static Model)> + use<> {
    let name = kind.name;
    all().filter(move |(source, _)| source.kinds.iter().any(|kind| kind == name))
}

/// The model that a provider of this kind calls so, if it is well known.
#[must_use]
pub fn known(kind: &Kind, name: &str) -> Option<&'static Model> {
    let is = |wanted: &String| pattern::matches(wanted, name);
    of(kind).map(|(_, model)| model).find(|model| model.names.iter().any(is))
}

impl Provider {
    /// Names of models that it is known to have, of those that may be asked as `NAME/MODEL`: the
    /// table's, and those that its operator names one by one.
    #[must_use]
    pub fn known(&self) -> Vec<&str> {
        let table = of(self.kind).flat_map(|(_, model)| &model.names);
        let table = table.map(String::as_str).filter(|name| self.offers(name));
        let mut names: Vec<&str> = Vec::new();
        for name in table.chain(self.models.iter().map(String::as_str)) {
            if !name.contains(['*', '?']) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// A price sheet of the models of these sections, one entry in a line: what `hearth admin prices
/// set` reads.
#[must_use]
pub fn sheet(sections: &[(&str, &Kind)]) -> String {
    let (mut latest, mut lines) = ("", Vec::new());
    for (section, kind) in sections {
        for (source, model) in of(kind) {
            latest = latest.max(&*source.seen);
            lines.extend(model.prices(section).map(|price| said(json!(price)).to_string()));
        }
    }
    let name = json!(format!("list prices {latest}"));
    format!("{{\"name\": {name}, \"models\": [\n{}\n]}}\n", lines.join(",\n"))
}

/// A model for a program.
#[must_use]
pub fn shown(source: &Source, model: &Model) -> Value {
    let Model { names, tokens, without, embeds, price, batch, tiers } = model;
    said(json!({
        "names": names,
        "context": tokens.context,
        "prompt": tokens.prompt,
        "output": tokens.output,
        "without": without,
        "embeds": embeds,
        "price": price,
        "batch": batch,
        "tiers": tiers,
        "source": source.url,
        "seen": source.seen,
    }))
}

/// Leaves out what is not said.
fn said(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.into_iter().filter(|(_, value)| !value.is_null());
            there.map(|(name, value)| (name, said(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(said).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::kinds::KINDS;
    use govern::entity::PriceSheet;
    use jiff::civil::Date;

    /// Of a sheet that was written.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        name: String,
        models: Vec<ModelPrice>,
    }

    fn kind(name: &str) -> &'static Kind {
        Kind::named(name).expect("a kind")
    }

    #[test]
    fn rows_are_whole() {
        let place = |name: &String| KINDS.iter().position(|kind| kind.name == name);
        let mut last = 0;
        for (source, model) in all() {
            let Source { kinds, url, seen, .. } = source;
            let places: Vec<_> = kinds.iter().map(place).collect();
            let first = places[0].expect("a kind");
            assert!(first >= last, "{kinds:?} come in the order of kinds");
            assert!(places.iter().all(|place| place.is_some_and(|at| KINDS[at].chats())), "{url}");
            last = first;
            assert!(url.starts_with("https://"), "{url}");
            assert_eq!(seen.parse::<Date>().expect("a day").to_string(), *seen);
            let Model { names, tokens, without, embeds, price, batch, .. } = model;
            assert!(!names.is_empty());
            let words = ["tools", "images", "structured"];
            assert!(without.iter().all(|word| words.contains(&&**word)), "{names:?}");
            assert!(!embeds || price.output == 0 && without.is_empty(), "{names:?}");
            let Tokens { context, prompt, output } = *tokens;
            for part in [prompt, output].into_iter().flatten() {
                assert!(context.is_some_and(|whole| (1..=whole).contains(&part)), "{names:?}");
            }
            // A cache that is dearer than none, or a batch, is a slip of the pen.
            assert!(price.cache_read.is_none_or(|read| read < price.input), "{names:?}");
            assert!(price.cache_write.is_none_or(|write| write > price.input), "{names:?}");
            let cheap = |batch: &TokenPrices| batch.input * 2 == price.input;
            assert!(batch.as_ref().is_none_or(cheap), "{names:?}");
            assert!(model.tiers.iter().all(|tier| tier.rates.input > price.input), "{names:?}");
        }
    }

    #[test]
    fn no_row_hides_another() {
        for kind in KINDS {
            for (_, model) in of(kind) {
                for name in &model.names {
                    // Each pattern stands for names like this one.
                    let like = name.replace('?', "0");
                    let found = known(kind, &like).expect("the row itself");
                    assert_eq!(found.names, model.names, "{} has {name} twice", kind.name);
                }
            }
        }
    }

    #[test]
    fn names_are_found_with_their_dates_and_no_others() {
        let context = |of: &str, name: &str| known(kind(of), name).map(Model::reads);
        assert_eq!(context("openai", "gpt-4o-mini"), Some(Some(128_000)));
        assert_eq!(context("openai", "gpt-4o-mini-2024-07-18"), Some(Some(128_000)));
        assert_eq!(context("openai", "gpt-5-2025-08-07"), Some(Some(272_000)), "of a prompt");
        assert_eq!(context("vertex", "gemini-2.5-pro"), context("gemini", "gemini-2.5-pro"));
        for (of, name) in [
            ("openai", "gpt-4o-mini-search-preview"),
            ("openai", "gpt-4o-audio-preview"),
            ("openai", "claude-haiku-4-5"),
            ("openai", ""),
            // What is deployed there has the operator's names.
            ("azure", "gpt-4o"),
            ("compatible", "gpt-4o"),
        ] {
            assert!(known(kind(of), name).is_none(), "{of} {name}");
        }
    }

    #[test]
    fn sheets_can_be_set() {
        let all: Vec<_> = KINDS.iter().map(|kind| (kind.name, kind)).collect();
        let text = sheet(&all);
        assert!(!text.contains("null"), "{text}");
        let Written { name, models } = serde_json::from_str(&text).expect("a sheet");
        assert!(name.starts_with("list prices 20"), "{name}");
        let sheet = PriceSheet::new(&name, models, 0);
        assert_eq!(sheet.check(), Ok(()));
        let input = |model: &str| sheet.price(model).map(|price| price.rates.input);
        assert_eq!(input("openai/gpt-4o-mini-2024-07-18"), Some(150_000));
        assert_eq!(input("openai/gpt-4o"), Some(2_500_000));
        assert_eq!(input("gpt-4o"), None, "callers ask it by its provider's name");
        assert_eq!(input("openai/gpt-4"), None);
        for (_, model) in super::all() {
            assert!(model.names.iter().all(|name| pattern::check(name).is_ok()));
        }
        // Of a section with another name.
        let work = super::sheet(&[("work", kind("groq"))]);
        let Written { models, .. } = serde_json::from_str(&work).expect("a sheet");
        assert!(models.iter().all(|price| price.model.starts_with("work/")));
        assert!(models.iter().any(|price| price.model == "work/openai/gpt-oss-120b"));
    }

    #[test]
    fn prices_are_exactly_those_of_the_table() {
        for (source, model) in all() {
            for price in model.prices("x") {
                let text = said(json!(price)).to_string();
                let again: ModelPrice = serde_json::from_str(&text).expect("a price");
                assert_eq!(again, price, "{}", source.url);
            }
        }
        let sol = known(kind("openai"), "gpt-6-sol").expect("it is known");
        let price = sol.prices("openai").next().expect("a price");
        let tokens = govern::ledger::Tokens { input: 300_000, ..Default::default() };
        assert_eq!(price.cost(&tokens), govern::Money(1_200_000_000), "a long prompt");
    }
}
