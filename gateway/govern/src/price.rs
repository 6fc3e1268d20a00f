//! What tokens cost. Prices are micro-dollars per million tokens, which is pico-dollars per token;
//! a sum of them is exact, and is rounded up to whole nano-dollars once per entry of the ledger.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Money;
use crate::entity::PriceSheet;
use crate::ledger::Tokens;
use crate::policy::pattern;

/// What the tokens of some models cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// Pattern of the models (`*` any letters, `?` one).
    pub model: String,
    /// The prices.
    #[serde(flatten)]
    pub rates: TokenPrices,
    /// Other prices for requests with long prompts; the last tier that a prompt reaches counts, for
    /// all its tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
}

/// Micro-dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenPrices {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer, thoughts among them.
    pub output: u64,
    /// Tokens of the prompt that came from a cache; as the prompt's where nothing is said.
    #[serde(default)]
    pub cache_read: Option<u64>,
    /// Tokens of the prompt that were put into a cache; as the prompt's where nothing is said.
    #[serde(default)]
    pub cache_write: Option<u64>,
}

/// Prices from a length of the prompt on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tier {
    /// Prompts with more tokens than this.
    pub above_input_tokens: u64,
    /// The prices.
    #[serde(flatten)]
    pub rates: TokenPrices,
}

/// Highest price: a thousand million dollars per million tokens. Above it somebody has mistaken
/// the unit.
pub const PRICE_MAX: u64 = 1_000_000_000_000_000;

/// Most models of a sheet: every request walks them until one matches.
const MODELS_MAX: usize = 10_000;

/// Most tiers of a model.
const TIERS_MAX: usize = 16;

/// Pico-dollars in a nano-dollar.
const PICO: u128 = 1000;

impl PriceSheet {
    /// What a model's tokens cost: the first entry whose pattern matches.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<&ModelPrice> {
        self.models.iter().find(|price| pattern::matches(&price.model, model))
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self) -> Result<(), String> {
        if self.models.len() > MODELS_MAX {
            let models = self.models.len();
            return Err(format!("models: {models} entries are too many: at most {MODELS_MAX}"));
        }
        self.models
            .iter()
            .enumerate()
            .try_for_each(|(at, price)| price.check().map_err(|why| format!("models[{at}]: {why}")))
    }
}

impl ModelPrice {
    /// What these tokens cost, rounded up to whole nano-dollars; [`Money::MAX`] where it is more.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Money {
        let prices = self.prices(tokens.input);
        let output = prices.output_pico(tokens.output);
        let nano = prices.input_pico(tokens).saturating_add(output).div_ceil(PICO);
        Money(i64::try_from(nano).unwrap_or(i64::MAX))
    }

    /// Most new tokens of each of `choices` with which a request costs no more than a budget, given
    /// its prompt (`tokens.output` is not looked at). 0 also where the prompt alone costs more:
    /// compare its [`ModelPrice::cost`] where that makes a difference.
    #[must_use]
    pub fn output_within(&self, tokens: &Tokens, choices: u32, budget: Money) -> u32 {
        // Costs are held at this amount, so it covers all.
        if budget == Money::MAX {
            return u32::MAX;
        }
        // Nothing fits what is overdrawn, not even nothing.
        let Ok(nano) = u128::try_from(budget.0) else { return 0 };
        let prices = self.prices(tokens.input);
        // A cost rounded up to nano-dollars fits exactly where the exact one does.
        let Some(left) = (nano * PICO).checked_sub(prices.input_pico(tokens)) else { return 0 };
        let each = prices.output_pico(u64::from(choices));
        left.checked_div(each).map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// A prompt of this many tokens at its dearest: all new, all from a cache, or all put into one.
    #[must_use]
    pub fn dearest(&self, input: u64) -> Tokens {
        let plain = Tokens { input, ..Tokens::default() };
        let read = Tokens { cache_read: input, ..plain };
        let write = Tokens { cache_write: input, ..plain };
        let pico = |tokens: &Tokens| self.prices(input).input_pico(tokens);
        [write, read].into_iter().fold(plain, |dearest, other| {
            if pico(&other) > pico(&dearest) { other } else { dearest }
        })
    }

    /// Whether no token of any kind costs anything, however long the prompt.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let mut all = std::iter::once(&self.rates).chain(self.tiers.iter().map(|tier| &tier.rates));
        all.all(|prices| prices.all().iter().all(|(_, price)| *price == 0))
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self) -> Result<(), String> {
        pattern::check(&self.model).map_err(|why| format!("model: {why}"))?;
        self.rates.check()?;
        if self.tiers.len() > TIERS_MAX {
            let tiers = self.tiers.len();
            return Err(format!("tiers: {tiers} are too many: at most {TIERS_MAX}"));
        }
        let mut below = 0;
        for (at, tier) in self.tiers.iter().enumerate() {
            let above = tier.above_input_tokens;
            if above <= below {
                return Err(format!(
                    "tiers[{at}]: above_input_tokens is {above}, and has to be above {below}"
                ));
            }
            below = above;
            tier.rates.check().map_err(|why| format!("tiers[{at}]: {why}"))?;
        }
        Ok(())
    }

    /// The prices for a prompt of this length.
    fn prices(&self, input: u64) -> &TokenPrices {
        let reached = self.tiers.iter().rev().find(|tier| input > tier.above_input_tokens);
        reached.map_or(&self.rates, |tier| &tier.rates)
    }
}

impl TokenPrices {
    /// Each with its field's name; those that are not said are the prompt's.
    fn all(&self) -> [(&'static str, u64); 4] {
        [
            ("input", self.input),
            ("output", self.output),
            ("cache_read", self.cache_read.unwrap_or(self.input)),
            ("cache_write", self.cache_write.unwrap_or(self.input)),
        ]
    }

    fn check(&self) -> Result<(), String> {
        let wrong = self.all().into_iter().find(|(_, price)| *price > PRICE_MAX);
        wrong.map_or(Ok(()), |(field, price)| {
            Err(format!("{field} is {price} micro-dollars per million tokens: at most {PRICE_MAX}"))
        })
    }

    /// Pico-dollars of a prompt. Its parts never add up to more than the whole.
    fn input_pico(&self, tokens: &Tokens) -> u128 {
        let read = tokens.cache_read.min(tokens.input);
        let write = tokens.cache_write.min(tokens.input - read);
        let rest = tokens.input - read - write;
        let [(_, input), _, (_, cache_read), (_, cache_write)] = self.all();
        [(rest, input), (read, cache_read), (write, cache_write)]
            .into_iter()
            .map(|(count, price)| u128::from(count) * u128::from(price))
            .fold(0, u128::saturating_add)
    }

    /// Pico-dollars of an answer.
    fn output_pico(&self, count: u64) -> u128 {
        u128::from(count) * u128::from(self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// $3 and $15 per million tokens, and more for long prompts.
    const SHEET: &str = r#"{
        "model": "claude-*", "input": 3000000, "output": 15000000,
        "cache_read": 300000, "cache_write": 3750000,
        "tiers": [
            {"above_input_tokens": 200000, "input": 6000000, "output": 30000000},
            {"above_input_tokens": 500000, "input": 7000000, "output": 30000000}
        ]
    }"#;

    fn tokens(input: u64, cache_read: u64, cache_write: u64, output: u64) -> Tokens {
        Tokens { input, cache_read, cache_write, output, reasoning: 0 }
    }

    #[test]
    fn costs_by_hand() {
        let price: ModelPrice = serde_json::from_str(SHEET).expect("a price");
        let again = serde_json::to_string(&price).expect("JSON");
        assert_eq!(serde_json::from_str::<ModelPrice>(&again).expect("a price"), price);
        let check = |tokens: Tokens, nano: i64| assert_eq!(price.cost(&tokens), Money(nano));
        check(tokens(0, 0, 0, 0), 0);
        check(tokens(1_000_000 / 5, 0, 0, 0), 600_000_000);
        check(tokens(1000, 0, 0, 100), 3_000_000 + 1_500_000);
        check(tokens(1000, 600, 300, 0), 100 * 3000 + 600 * 300 + 300 * 3750);
        // Parts above the whole count as the whole.
        check(tokens(1000, 900, 300, 0), 900 * 300 + 100 * 3750);
        // The tier has no prices for caches: as its prompt.
        check(tokens(200_000, 200_000, 0, 0), 200_000 * 300);
        check(tokens(200_001, 200_001, 0, 1), 200_001 * 6000 + 30_000);
        check(tokens(500_000, 0, 0, 0), 500_000 * 6000);
        check(tokens(500_001, 0, 0, 0), 500_001 * 7000);
        check(tokens(u64::MAX, 0, 0, u64::MAX), i64::MAX);
        // Putting tokens into the cache costs more than reading them anew; the tier has no such
        // price.
        assert_eq!(price.dearest(1000), tokens(1000, 0, 1000, 0));
        assert_eq!(price.dearest(200_001), tokens(200_001, 0, 0, 0));
    }

    #[test]
    fn parts_of_a_nano_dollar_are_rounded_up_once() {
        let rates = TokenPrices { input: 1, output: 400, ..TokenPrices::default() };
        let price = ModelPrice { model: "*".to_owned(), rates, tiers: Vec::new() };
        let check = |input, output, nano| {
            assert_eq!(price.cost(&tokens(input, 0, 0, output)), Money(nano), "{input} {output}");
        };
        check(1, 0, 1);
        check(200, 2, 1);
        check(201, 2, 2);
        check(1000, 0, 1);
        assert_eq!(price.output_within(&tokens(200, 0, 0, 99), 1, Money(1)), 2);
        assert_eq!(price.output_within(&tokens(201, 0, 0, 99), 1, Money(1)), 1);
        assert_eq!(price.output_within(&tokens(1001, 0, 0, 0), 1, Money(1)), 0);
        assert_eq!(price.output_within(&tokens(0, 0, 0, 0), 3, Money(-1)), 0);
        let dear = TokenPrices { output: PRICE_MAX, ..TokenPrices::default() };
        let price = ModelPrice { rates: dear, ..price };
        assert_eq!(price.output_within(&tokens(0, 0, 0, 0), 1, Money::MAX), u32::MAX);
        assert_eq!(price.output_within(&tokens(0, 0, 0, 0), 1, Money(i64::MAX - 1)), 9_223_372);
    }

    #[test]
    fn the_first_match_counts() {
        let named = |model: &str, input| {
            let rates = TokenPrices { input, ..TokenPrices::default() };
            ModelPrice { model: model.to_owned(), rates, tiers: Vec::new() }
        };
        let models = vec![named("qwen3-8b", 1), named("qwen*", 2)];
        let sheet = PriceSheet::new("prices", models, 0);
        let input = |model: &str| sheet.price(model).map(|price| price.rates.input);
        assert_eq!([input("qwen3-8b"), input("qwen3"), input("llama")], [Some(1), Some(2), None]);
    }

    #[test]
    fn free_is_free_of_everything() {
        let mut price = ModelPrice { model: "*".to_owned(), ..ModelPrice::default() };
        assert!(price.is_free());
        assert_eq!(price.output_within(&tokens(9, 0, 0, 0), 2, Money::ZERO), u32::MAX);
        price.rates.cache_write = Some(1);
        assert!(!price.is_free());
        price.rates.cache_write = None;
        let rates = TokenPrices { output: 1, ..TokenPrices::default() };
        price.tiers.push(Tier { above_input_tokens: 10, rates });
        assert!(!price.is_free());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |json: &str, named: &str| {
            let price: ModelPrice = serde_json::from_str(json).expect(json);
            let said = PriceSheet::new("p", vec![price], 0).check().expect_err(json);
            assert!(said.starts_with("models[0]: ") && said.contains(named), "{json}: {said}");
        };
        check(r#"{"model": "", "input": 1, "output": 1}"#, "model");
        check(r#"{"model": "*", "input": 1, "output": 1000000000000001}"#, "output is");
        check(
            r#"{"model": "*", "input": 1, "output": 1, "cache_read": 9000000000000000}"#,
            "cache",
        );
        let tier = |above: &[u64]| {
            let tier = |at| format!(r#"{{"above_input_tokens": {at}, "input": 1, "output": 1}}"#);
            let tiers: Vec<String> = above.iter().map(tier).collect();
            let tiers = tiers.join(", ");
            format!(r#"{{"model": "*", "input": 1, "output": 1, "tiers": [{tiers}]}}"#)
        };
        check(&tier(&[5, 5]), "tiers[1]");
        check(&tier(&[0]), "tiers[0]");
        check(&tier(&(1..20).collect::<Vec<_>>()), "tiers: 19");
        let fine: ModelPrice = serde_json::from_str(SHEET).expect("a price");
        assert_eq!(PriceSheet::new("p", vec![fine], 0).check(), Ok(()));
        for wrong in [
            r#"{"model": "*", "input": -1, "output": 1}"#,
            r#"{"model": "*", "input": 1.5, "output": 1}"#,
            r#"{"model": "*", "input": 1, "output": 1, "batch": 1}"#,
            r#"{"model": "*", "input": 1}"#,
        ] {
            assert!(serde_json::from_str::<ModelPrice>(wrong).is_err(), "{wrong}");
        }
    }
}
