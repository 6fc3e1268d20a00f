//! What tokens cost, and the time of the device that makes them. Prices of tokens are micro-dollars
//! per million, which is pico-dollars per token; a sum of them and of the device's price is exact,
//! and is rounded up to whole nano-dollars once per entry of the ledger.
//!
//! A request that may wait is sold as a batch where a sheet has prices for that. Whether a provider
//! served it so is known from its answer: until then, the dearer price of each token is held.
//!
//! How long a device will take nobody knows before. So a price of its time may say how long a token
//! takes at most: that is what is held, and more is never charged.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Money;
use crate::entity::PriceSheet;
use crate::ledger::{ServiceTier, Tokens};
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
    /// Other prices for requests that are served as a batch (`service_tier: "flex"`); they cost
    /// what any other does where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<TokenPrices>,
    /// What the device's time costs on top of the tokens. A model that is sold by time alone has
    /// tokens at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DevicePrice>,
}

/// What the time of a device costs that runs a request, from the request's first step to its end.
/// Whoever shares the steps is not deducted: it is the price of one place on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DevicePrice {
    /// Nano-dollars for a second.
    pub gpu_second: u64,
    /// Nano-dollars for a kilowatt-hour.
    pub kwh: u64,
    /// What the place draws, in watts.
    pub watts: u32,
    /// Microseconds that a token of prompt or answer takes at most: held before, and never charged
    /// more. Without it no hard budget can pay for the model.
    pub us_per_token_max: Option<u32>,
}

/// Micro-dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Prompts with more tokens than this.
    pub above_input_tokens: u64,
    /// The prices.
    #[serde(flatten)]
    pub rates: TokenPrices,
    /// Those of a batch; as any other's of this tier where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<TokenPrices>,
}

/// Highest price: a thousand million dollars per million tokens. Above it somebody has mistaken
/// the unit.
pub const PRICE_MAX: u64 = 1_000_000_000_000_000;

/// Most models of a sheet: every request walks them until one matches.
const MODELS_MAX: usize = 10_000;

/// Most tiers of a model.
const TIERS_MAX: usize = 16;

/// Highest price of a second and of a kilowatt-hour: a thousand dollars.
const DEVICE_PRICE_MAX: u64 = 1_000_000_000_000;

/// Most watts of a device: a megawatt.
const WATTS_MAX: u32 = 1_000_000;

/// Parts of a nano-dollar in which all prices are whole: a microsecond at a watt is a part of
/// 3.6 * 10^12 of a kilowatt-hour.
const PARTS: u128 = 3_600_000_000_000;

/// Such parts in a pico-dollar.
const PICO: u128 = PARTS / 1000;

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
    /// What holds for requests that are served so: a price without any of a batch.
    #[must_use]
    pub fn of(&self, served: ServiceTier) -> Cow<'_, Self> {
        match served {
            ServiceTier::Flex if self.has_batch() => {
                Cow::Owned(self.each(|rates, batch| batch.unwrap_or(rates)))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// The dearer price of each kind of token, of a batch or not: what is held while nobody knows
    /// how a request will be served.
    #[must_use]
    pub fn dearer(&self) -> Self {
        self.each(|rates, batch| batch.map_or(rates, |batch| rates.dearer(&batch)))
    }

    fn has_batch(&self) -> bool {
        self.batch.is_some() || self.tiers.iter().any(|tier| tier.batch.is_some())
    }

    /// Other prices in the place of all pairs.
    fn each(&self, choose: impl Fn(TokenPrices, Option<TokenPrices>) -> TokenPrices) -> Self {
        let tier =
            |tier: &Tier| Tier { rates: choose(tier.rates, tier.batch), batch: None, ..*tier };
        Self {
            rates: choose(self.rates, self.batch),
            batch: None,
            tiers: self.tiers.iter().map(tier).collect(),
            model: self.model.clone(),
            device: self.device,
        }
    }

    /// What these tokens cost at most, however long the device takes; rounded up to whole
    /// nano-dollars, and [`Money::MAX`] where it is more. Where nothing bounds the device's time it
    /// is not in it: ask [`ModelPrice::is_bounded`].
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Money {
        let device = self.device.map_or(0, |device| device.most(tokens.input, tokens.output));
        self.sum(tokens, device)
    }

    /// What these tokens cost that took the device so many microseconds; rounded likewise, and
    /// never more than [`ModelPrice::cost`] where that is bounded.
    #[must_use]
    pub fn billed(&self, tokens: &Tokens, device_us: u64) -> Money {
        let device = self.device.map_or(0, |device| {
            let took = device.rate().saturating_mul(device_us.into());
            let most = device.us_per_token_max.map(|_| device.most(tokens.input, tokens.output));
            most.map_or(took, |most| most.min(took))
        });
        self.sum(tokens, device)
    }

    fn sum(&self, tokens: &Tokens, device: u128) -> Money {
        let prices = self.prices(tokens.input);
        let pico = prices.input_pico(tokens).saturating_add(prices.output_pico(tokens.output));
        let nano = pico.saturating_mul(PICO).saturating_add(device).div_ceil(PARTS);
        Money(i64::try_from(nano).unwrap_or(i64::MAX))
    }

    /// Whether it is known before what a request may cost.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.device.is_none_or(|device| device.rate() == 0 || device.us_per_token_max.is_some())
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
        let device = |input, output| self.device.map_or(0, |device| device.most(input, output));
        let prompt = prices.input_pico(tokens).saturating_mul(PICO);
        let prompt = prompt.saturating_add(device(tokens.input, 0));
        // A cost rounded up to nano-dollars fits exactly where the exact one does.
        let Some(left) = (nano * PARTS).checked_sub(prompt) else { return 0 };
        let each = prices.output_pico(u64::from(choices)).saturating_mul(PICO);
        let each = each.saturating_add(device(0, u64::from(choices)));
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

    /// Whether no token of any kind costs anything, however long the prompt, nor any time.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let tiers = self.tiers.iter().flat_map(|tier| [Some(&tier.rates), tier.batch.as_ref()]);
        let mut all = [Some(&self.rates), self.batch.as_ref()].into_iter().chain(tiers).flatten();
        all.all(|prices| prices.all().iter().all(|(_, price)| *price == 0))
            && self.device.is_none_or(|device| device.rate() == 0)
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self) -> Result<(), String> {
        pattern::check(&self.model).map_err(|why| format!("model: {why}"))?;
        self.rates.check()?;
        let batch = |prices: &TokenPrices| prices.check().map_err(|why| format!("batch: {why}"));
        self.batch.iter().try_for_each(batch)?;
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
            let checked = tier.rates.check().and_then(|()| tier.batch.iter().try_for_each(batch));
            checked.map_err(|why| format!("tiers[{at}]: {why}"))?;
        }
        self.device.map_or(Ok(()), |device| device.check().map_err(|why| format!("device: {why}")))
    }

    /// The prices for a prompt of this length.
    fn prices(&self, input: u64) -> &TokenPrices {
        let reached = self.tiers.iter().rev().find(|tier| input > tier.above_input_tokens);
        reached.map_or(&self.rates, |tier| &tier.rates)
    }
}

impl DevicePrice {
    /// Parts of a nano-dollar in a microsecond.
    fn rate(self) -> u128 {
        // Of a second, as of a kilowatt-hour at so many watts, each in microseconds.
        u128::from(self.gpu_second) * (PARTS / 1_000_000)
            + u128::from(self.kwh) * u128::from(self.watts)
    }

    /// Parts of a nano-dollar that so many tokens take at most; 0 where nothing is said.
    fn most(self, input: u64, output: u64) -> u128 {
        let us = u128::from(self.us_per_token_max.unwrap_or(0));
        self.rate().saturating_mul(us.saturating_mul(u128::from(input) + u128::from(output)))
    }

    fn check(self) -> Result<(), String> {
        for (field, price) in [("gpu_second", self.gpu_second), ("kwh", self.kwh)] {
            if price > DEVICE_PRICE_MAX {
                return Err(format!("{field} is {price} nano-dollars: at most {DEVICE_PRICE_MAX}"));
            }
        }
        if self.watts > WATTS_MAX {
            return Err(format!("watts are {}: at most {WATTS_MAX}", self.watts));
        }
        if (self.kwh == 0) != (self.watts == 0) {
            return Err("kwh and watts go together".to_owned());
        }
        if self.us_per_token_max == Some(0) {
            return Err("us_per_token_max is 0: nothing takes no time".to_owned());
        }
        Ok(())
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

    /// The dearer one of each.
    fn dearer(&self, other: &Self) -> Self {
        let [ours, theirs] = [self.all(), other.all()];
        let most = |at: usize| ours[at].1.max(theirs[at].1);
        let (cache_read, cache_write) = (Some(most(2)), Some(most(3)));
        Self { input: most(0), output: most(1), cache_read, cache_write }
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
        let price = ModelPrice { model: "*".to_owned(), rates, ..ModelPrice::default() };
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
            ModelPrice { model: model.to_owned(), rates, ..ModelPrice::default() }
        };
        let models = vec![named("qwen3-8b", 1), named("qwen*", 2)];
        let sheet = PriceSheet::new("prices", models, 0);
        let input = |model: &str| sheet.price(model).map(|price| price.rates.input);
        assert_eq!([input("qwen3-8b"), input("qwen3"), input("llama")], [Some(1), Some(2), None]);
    }

    #[test]
    fn time_of_a_device_by_hand() {
        let device = r#"{"model": "*", "input": 0, "output": 2000, "device": {"gpu_second": 700000,
            "kwh": 360000000, "watts": 400, "us_per_token_max": 50000}}"#;
        let price: ModelPrice = serde_json::from_str(device).expect("a price");
        let again = serde_json::to_string(&price).expect("JSON");
        assert_eq!(serde_json::from_str::<ModelPrice>(&again).expect("a price"), price);
        // A second: 700,000 nano-dollars, and 400 of 3,600,000 parts of a kilowatt-hour: 40,000.
        let check = |(input, output), us, nano: i64| {
            let cost = price.billed(&tokens(input, 0, 0, output), us);
            assert_eq!(cost, Money(nano), "{input} {output} {us}");
        };
        check((100, 0), 1_000_000, 740_000);
        check((100, 3), 1_000_000, 740_006);
        check((100, 0), 1, 1);
        check((100, 0), 0, 0);
        // Ten tokens take half a second at most.
        check((7, 3), 1_000_000, 370_006);
        check((7, 3), u64::MAX, 370_006);
        assert_eq!(price.cost(&tokens(7, 0, 0, 3)), Money(370_006));
        assert!(price.is_bounded() && !price.is_free());
        // A token of each of two choices: 4 nano-dollars and a tenth of a second.
        let prompt = tokens(10, 0, 0, 0);
        let within = |nano| price.output_within(&prompt, 2, Money(nano));
        assert_eq!([within(370_000), within(444_003), within(444_004)], [0, 0, 1]);
        assert_eq!([within(370_000 + 5 * 74_004), within(369_999)], [5, 0]);
        let device = price.device.map(|device| DevicePrice { us_per_token_max: None, ..device });
        let open = ModelPrice { device, ..price };
        assert!(!open.is_bounded() && !open.is_free());
        assert_eq!(open.billed(&tokens(7, 0, 0, 0), 2_000_000), Money(1_480_000));
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
        price.batch = Some(rates);
        assert!(!price.is_free() && price.of(ServiceTier::Default).batch.is_some());
        price.batch = None;
        price.tiers.push(Tier { above_input_tokens: 10, rates, batch: None });
        assert!(!price.is_free());
    }

    #[test]
    fn a_batch_has_prices_of_its_own() {
        let json = r#"{"model": "*", "input": 2000, "output": 8000, "cache_read": 500,
            "batch": {"input": 1000, "output": 9000},
            "tiers": [
                {"above_input_tokens": 100, "input": 4000, "output": 8000,
                 "batch": {"input": 2000, "output": 4000, "cache_write": 6000}},
                {"above_input_tokens": 200, "input": 5000, "output": 8000}
            ]}"#;
        let price: ModelPrice = serde_json::from_str(json).expect("a price");
        let again = serde_json::to_string(&price).expect("JSON");
        assert_eq!(serde_json::from_str::<ModelPrice>(&again).expect("a price"), price);
        assert_eq!(price.check(), Ok(()));
        let check = |tokens: Tokens, nano: [i64; 3]| {
            let [flex, usual] = [ServiceTier::Flex, ServiceTier::Default].map(|t| price.of(t));
            let costs = [flex.cost(&tokens), usual.cost(&tokens), price.dearer().cost(&tokens)];
            assert_eq!(costs, nano.map(Money), "{tokens:?}");
        };
        check(tokens(100, 0, 0, 10), [100 + 90, 200 + 80, 200 + 90]);
        // A cache read costs what the batch's own prompt does: nothing else is said.
        check(tokens(100, 100, 0, 0), [100, 50, 100]);
        check(tokens(150, 0, 100, 10), [100 + 600 + 40, 600 + 80, 200 + 600 + 80]);
        check(tokens(300, 0, 0, 10), [1500 + 80, 1500 + 80, 1500 + 80]);
        let plain = ModelPrice { batch: None, tiers: Vec::new(), ..price };
        assert_eq!(*plain.of(ServiceTier::Flex), plain);
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
        check(
            r#"{"model": "*", "input": 1, "output": 1,
                "batch": {"input": 9000000000000000, "output": 1}}"#,
            "batch: input",
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
        let device = |device: &str| {
            format!(r#"{{"model": "*", "input": 0, "output": 0, "device": {device}}}"#)
        };
        check(&device(r#"{"gpu_second": 1000000000001}"#), "device: gpu_second is");
        check(&device(r#"{"kwh": 5}"#), "device: kwh and watts");
        check(&device(r#"{"kwh": 5, "watts": 1000001}"#), "device: watts are");
        check(&device(r#"{"us_per_token_max": 0}"#), "device: us_per_token_max");
        for wrong in [
            &device(r#"{"hours": 1}"#),
            r#"{"model": "*", "input": -1, "output": 1}"#,
            r#"{"model": "*", "input": 1.5, "output": 1}"#,
            r#"{"model": "*", "input": 1, "output": 1, "batch": 1}"#,
            r#"{"model": "*", "input": 1, "output": 1, "batch": {"input": 1}}"#,
            r#"{"model": "*", "input": 1, "output": 1, "batch": {"input": 1, "output": 1, "x": 2}}"#,
            r#"{"model": "*", "input": 1, "output": 1, "bulk": 1}"#,
            &tier(&[5]).replace("\"output\": 1}", "\"output\": 1, \"x\": 1}"),
            r#"{"model": "*", "input": 1}"#,
        ] {
            assert!(serde_json::from_str::<ModelPrice>(wrong).is_err(), "{wrong}");
        }
    }
}
