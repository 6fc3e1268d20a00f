//! What must hold for all inputs: of windows, prices, policies and rates. Cases that a person
//! would think of stand beside the code.

use std::sync::Barrier;

use govern::budget::window::{Period, Window, zone};
use govern::ledger::Tokens;
use govern::limit::gcra::{Gcra, Refused};
use govern::limit::{Limits, RateRule};
use govern::policy::check::{Allowed, Layer, explain, request};
use govern::policy::{Label, Policy, Rates, pattern};
use govern::price::{ModelPrice, Tier, TokenPrices};
use govern::{Ask, Denied, Millis, Money, Rule};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::option::of as maybe;
use proptest::prelude::*;
use proptest::sample::select;

/// Seeds that fail are shown and not written into the tree: a case that teaches something is
/// written down beside the code.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// Windows

/// What a window promises, for one time. Returns its bounds.
fn check_window(period: Period, now: Millis, zone: &TimeZone) -> Window {
    let window = Window::of(period, now, zone);
    assert!(window.contains(now), "{period:?} {now}: {window:?}");
    assert_eq!((period.start(now, zone), period.end(now, zone)), (window.start, window.end));
    if let Some(end) = window.end {
        assert_eq!(Window::of(period, end - 1, zone), window, "{period:?} {now}: its last moment");
        assert_eq!(
            period.start(end, zone),
            end,
            "{period:?} {now}: the next one begins at its end"
        );
        assert_eq!(Window::of(period, window.start, zone), window, "{period:?} {now}: its first");
    }
    window
}

fn zones() -> Vec<String> {
    let names = jiff::tz::db().available().map(|name| name.to_string());
    names.filter(|name| zone(name).is_ok()).collect()
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_window_is_a_function_of_time(
        name in select(zones()),
        // From 1800 to 2200.
        now in -5_364_662_400_000_i64..7_258_118_400_000,
    ) {
        let zone = zone(&name).expect("a zone");
        let [day, week, month, total] = Period::ALL.map(|period| check_window(period, now, &zone));
        prop_assert!(month.start <= day.start && day.end <= month.end);
        prop_assert!(week.start <= day.start && day.end <= week.end);
        prop_assert_eq!(total, Window { start: Millis::MIN, end: None });
    }

    #[test]
    fn any_number_is_a_time(now in any::<Millis>()) {
        let zone = zone("Asia/Kathmandu").expect("a zone");
        for period in Period::ALL {
            prop_assert!(Window::of(period, now, &zone).contains(now));
        }
    }
}

#[test]
fn windows_around_every_change_of_clocks() {
    let names = [
        "Africa/Cairo",
        "America/Havana",
        "America/New_York",
        "America/Santiago",
        "America/Sao_Paulo",
        "America/St_Johns",
        "America/Toronto",
        "Asia/Beirut",
        "Asia/Kathmandu",
        "Asia/Manila",
        "Asia/Tehran",
        "Australia/Lord_Howe",
        "Europe/Berlin",
        "Pacific/Apia",
        "Pacific/Kwajalein",
    ];
    let mut changes = 0;
    for name in names {
        let zone = zone(name).expect(name);
        let until: Timestamp = "2032-01-01T00:00:00Z".parse().expect("a time");
        for change in zone.following(Timestamp::MIN).take_while(|change| change.timestamp() < until)
        {
            changes += 1;
            let at = change.timestamp().as_millisecond();
            let near = [-86_400_000, -3_600_000, -1_800_000, -1, 0, 1, 1_800_000, 3_600_000];
            for now in near.map(|off| at + off) {
                for period in [Period::Day, Period::Week, Period::Month] {
                    check_window(period, now, &zone);
                }
            }
        }
    }
    assert!(changes > 1000, "{changes}");
}

// Prices

fn prices(max: u64) -> impl Strategy<Value = TokenPrices> {
    let price = prop_oneof![Just(0), 0..=max, 0..=2000_u64.min(max)];
    (price.clone(), price.clone(), maybe(price.clone()), maybe(price)).prop_map(
        |(input, output, cache_read, cache_write)| TokenPrices {
            input,
            output,
            cache_read,
            cache_write,
        },
    )
}

fn price() -> impl Strategy<Value = ModelPrice> {
    (prices(1_000_000_000_000_000), prices(1_000_000_000), maybe(0..5000_u64)).prop_map(
        |(rates, dearer, above)| {
            // No tier is cheaper than the prices before it.
            let more = |one: u64, other: u64| one.saturating_add(other);
            let [input, output] =
                [more(rates.input, dearer.input), more(rates.output, dearer.output)];
            let read = rates.cache_read.unwrap_or(rates.input);
            let write = rates.cache_write.unwrap_or(rates.input);
            let rates_then = TokenPrices {
                input,
                output,
                cache_read: Some(more(read, dearer.input)),
                cache_write: Some(more(write, dearer.input)),
            };
            let tiers = above.map(|above| Tier {
                above_input_tokens: above + 1,
                rates: rates_then,
                batch: None,
            });
            ModelPrice {
                model: "*".to_owned(),
                rates,
                tiers: tiers.into_iter().collect(),
                batch: None,
                device: None,
            }
        },
    )
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let count = prop_oneof![0..10_000_u64, any::<u64>()];
    (count.clone(), count.clone(), count.clone(), count).prop_map(
        |(input, cache_read, cache_write, output)| Tokens {
            input,
            cache_read,
            cache_write,
            output,
            reasoning: 0,
        },
    )
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn a_cost_is_the_exact_one_rounded_up(price in price(), tokens in tokens()) {
        let reached = price.tiers.iter().find(|tier| tokens.input > tier.above_input_tokens);
        let rates = reached.map_or(price.rates, |tier| tier.rates);
        let read = tokens.cache_read.min(tokens.input);
        let write = tokens.cache_write.min(tokens.input - read);
        let parts = [
            (tokens.input - read - write, rates.input),
            (read, rates.cache_read.unwrap_or(rates.input)),
            (write, rates.cache_write.unwrap_or(rates.input)),
            (tokens.output, rates.output),
        ];
        let pico: u128 = parts.iter().map(|&(n, each)| u128::from(n) * u128::from(each)).sum();
        let Money(nano) = price.cost(&tokens);
        let nano = u128::try_from(nano).expect("no cost is negative");
        if nano == u128::from(i64::MAX.unsigned_abs()) {
            prop_assert!(pico > (nano - 1) * 1000);
        } else {
            prop_assert!(pico <= nano * 1000 && pico + 1000 > nano * 1000);
        }
    }

    #[test]
    fn more_tokens_never_cost_less(price in price(), tokens in tokens(), more in 1..5000_u64) {
        let cost = |input, output| price.cost(&Tokens { input, output, ..tokens });
        let before = cost(tokens.input, tokens.output);
        let longer = cost(tokens.input, tokens.output.saturating_add(more));
        prop_assert!(longer >= before);
        prop_assert!(cost(tokens.input.saturating_add(more), tokens.output) >= before);
        // In two entries never less than in one: no stream gets cheaper by being cut.
        let rest = price.cost(&Tokens { output: more, ..Tokens::default() });
        if price.tiers.is_empty() {
            prop_assert!(before.plus(rest) >= longer);
        }
    }

    #[test]
    fn output_fits_the_budget_and_one_more_does_not(
        price in price(),
        tokens in tokens(),
        choices in prop_oneof![0..5_u32, any::<u32>()],
        budget in prop_oneof![-5..1000_i64, 0..10_000_000_000_i64, any::<i64>()],
    ) {
        let budget = Money(budget);
        let cost = |each: u64| {
            let output = each * u64::from(choices);
            price.cost(&Tokens { output, ..tokens })
        };
        let most = price.output_within(&tokens, choices, budget);
        if cost(0) > budget {
            prop_assert_eq!(most, 0);
        } else {
            prop_assert!(cost(u64::from(most)) <= budget);
            // Costs are held at the highest amount: only below it does one more show.
            if most < u32::MAX {
                prop_assert!(cost(u64::from(most) + 1) > budget);
            }
        }
    }
}

// Policies

fn policy() -> impl Strategy<Value = Policy> {
    let names = || maybe(prop::collection::vec(select(vec!["a*", "*b", "?", "ab", "c"]), 0..3));
    let texts = |list: Option<Vec<&str>>| list.map(|l| l.into_iter().map(str::to_owned).collect());
    (names(), names(), maybe(1..50_u32), maybe(1..100_u32), maybe(select(Label::ALL.to_vec())))
        .prop_map(move |(models, tools, max_tokens, max_context, label)| Policy {
            models: texts(models),
            tools: texts(tools),
            max_tokens,
            max_context,
            label,
            ..Policy::default()
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    let names = || select(vec!["a", "ab", "b", "c"]).prop_map(str::to_owned);
    let tools = prop::collection::vec(names(), 0..2);
    let label = maybe(select(Label::ALL.to_vec()));
    (names(), 0..80_u64, 1..4_u32, maybe(0..60_u32), 0..60_u32, tools, label).prop_map(
        |(model, input_tokens, choices, max_output, room, tools, label)| Ask {
            model,
            input_tokens,
            choices,
            max_output,
            room,
            tools,
            label,
            ..Ask::default()
        },
    )
}

fn layers(policies: &[Policy]) -> Vec<Layer<'_>> {
    let names = ["organisation", "team", "project", "key"];
    names.iter().zip(policies).map(|(kind, policy)| Layer { kind, name: "a", policy }).collect()
}

fn judge(policies: &[Policy], ask: &Ask) -> Result<Allowed, Denied> {
    request(&layers(policies), ask)
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn what_is_explained_is_what_is_done(
        policies in prop::collection::vec(policy(), 0..4),
        ask in ask(),
    ) {
        let findings = explain(&layers(&policies), &ask, None, 0);
        let first = findings.iter().find(|finding| !finding.passed);
        let said = first.map(|found| format!("{}, {}: {}", found.layer, found.rule, found.text));
        prop_assert_eq!(judge(&policies, &ask).err().map(|denied| denied.message), said);
    }

    #[test]
    fn what_is_allowed_keeps_every_bound(
        policies in prop::collection::vec(policy(), 0..4),
        ask in ask(),
    ) {
        let Ok(allowed) = judge(&policies, &ask) else { return Ok(()) };
        let output = u64::from(allowed.max_output);
        prop_assert!(allowed.max_output <= ask.room);
        prop_assert!(ask.max_output.is_none_or(|wish| allowed.max_output == wish.min(ask.room)));
        // A caller who says nothing gets something, where there is room.
        prop_assert!(ask.max_output.is_some() || ask.room == 0 || output > 0);
        for policy in &policies {
            let tokens = policy.max_tokens.map(u64::from);
            let context = policy.max_context.map(u64::from);
            prop_assert!(tokens.is_none_or(|bound| output * u64::from(ask.choices) <= bound));
            prop_assert!(context.is_none_or(|bound| ask.input_tokens + output <= bound));
            let any = |list: &[String], name: &str| list.iter().any(|p| pattern::matches(p, name));
            prop_assert!(policy.models.as_ref().is_none_or(|list| any(list, &ask.model)));
            let tools = policy.tools.as_ref();
            prop_assert!(tools.is_none_or(|list| ask.tools.iter().all(|tool| any(list, tool))));
            prop_assert!(policy.label.is_none_or(|label| label <= allowed.label));
        }
    }

    #[test]
    fn a_layer_more_only_narrows(
        policies in prop::collection::vec(policy(), 1..4),
        ask in ask(),
    ) {
        let (_, above) = policies.split_last().expect("one at least");
        let (all, above) = (judge(&policies, &ask), judge(above, &ask));
        match (above, all) {
            (Err(above), Err(all)) => prop_assert_eq!(above, all),
            (Err(above), Ok(_)) => prop_assert!(false, "widened: {above}"),
            (Ok(above), Ok(all)) => {
                prop_assert!(all.max_output <= above.max_output);
                // Where nobody says anything a request is internal; `public` may be said of it.
                prop_assert!(all.label >= above.label || all.label == Label::Public);
            }
            (Ok(_), Err(_)) => {}
        }
    }

    #[test]
    fn patterns_match_as_the_plain_rule_says(
        wanted in "[ab?*]{0,8}",
        text in "[ab]{0,8}",
    ) {
        fn plain(wanted: &[u8], text: &[u8]) -> bool {
            match (wanted.split_first(), text.split_first()) {
                (None, None) => true,
                (Some((b'*', more)), None) => plain(more, text),
                (Some((b'*', more)), Some((_, rest))) => plain(more, text) || plain(wanted, rest),
                (Some((b'?', more)), Some((_, rest))) => plain(more, rest),
                (Some((one, more)), Some((other, rest))) => one == other && plain(more, rest),
                _ => false,
            }
        }
        let expected = plain(wanted.as_bytes(), text.as_bytes());
        prop_assert_eq!(pattern::matches(&wanted, &text), expected, "{} {}", wanted, text);
    }
}

// Rates

const MINUTE_US: i64 = 60_000_000;

proptest! {
    #![proptest_config(cases(1000))]

    /// Over any stretch of time: a full bucket, and what drains in that time. Clocks that go back
    /// let in nothing more.
    #[test]
    fn no_stretch_of_time_lets_in_more_than_the_rate_allows(
        rate in prop_oneof![1..100_u32, any::<u32>()],
        steps in prop::collection::vec((-2 * MINUTE_US / 3..MINUTE_US / 2, 0..120_u64), 1..80),
    ) {
        let mut bucket = Gcra::new(rate, 0);
        let (mut now, mut latest) = (0_i64, 0_i64);
        let mut admitted: Vec<(i64, u128)> = Vec::new();
        for (step, percent) in steps {
            now += step;
            latest = latest.max(now);
            let cost = u64::from(rate) * percent / 100;
            match bucket.check(now, cost, rate) {
                Ok(left) => {
                    prop_assert!(cost + left.remaining <= u64::from(rate));
                    admitted.push((latest, u128::from(cost)));
                }
                Err(Refused::Never) => prop_assert!(cost > u64::from(rate)),
                Err(Refused::After(wait)) => {
                    let then = now + i64::try_from(wait).expect("less than a minute and the jump");
                    let (mut early, mut late) = (bucket, bucket);
                    prop_assert!(early.check(then - 1, cost, rate).is_err());
                    prop_assert!(late.check(then, cost, rate).is_ok());
                }
            }
        }
        for (first, (begin, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for (end, cost) in &admitted[first..] {
                sum += cost;
                let passed = u128::try_from(end - begin).expect("in order");
                let minute = u128::try_from(MINUTE_US).expect("positive");
                prop_assert!(sum * minute <= u128::from(rate) * (minute + passed));
            }
        }
    }

    #[test]
    fn what_is_given_back_was_never_taken(
        rate in 1..1000_u32,
        costs in prop::collection::vec((0..MINUTE_US / 10, 0..1000_u64), 1..20),
        cost in 0..1000_u64,
        wait in 0..MINUTE_US,
    ) {
        let mut bucket = Gcra::new(rate, 0);
        let mut now = 0;
        for (step, cost) in costs {
            now += step;
            let _ = bucket.check(now, cost, rate);
        }
        let mut other = bucket;
        if other.check(now, cost, rate).is_ok() {
            other.give_back(cost);
        }
        let full = u64::from(rate) + 1;
        prop_assert_eq!(bucket.check(now + wait, full, rate), Err(Refused::Never));
        prop_assert_eq!(other.check(now + wait, full, rate), Err(Refused::Never));
        prop_assert_eq!(bucket, other);
    }
}

fn rates(requests: Option<u32>, tokens: Option<u32>, concurrent: Option<u32>) -> Rates {
    let (requests_per_minute, tokens_per_minute) = (requests, tokens);
    Rates { model: None, requests_per_minute, tokens_per_minute, concurrent }
}

fn rule<'a>(key: &'a str, rates: &'a Rates) -> RateRule<'a> {
    RateRule { key, index: 0, rates, layer: "team research" }
}

#[test]
fn threads_together_get_exactly_the_limit() {
    for bounds in [
        rates(Some(997), None, None),
        rates(None, Some(997 * 3 + 2), None),
        rates(None, None, Some(997)),
        rates(Some(5000), Some(997 * 3), Some(4000)),
    ] {
        let (limits, start) = (Limits::default(), Barrier::new(8));
        let outer = rates(Some(1_000_000), Some(100_000_000), None);
        let all: Vec<_> = std::thread::scope(|threads| {
            let work = || {
                start.wait();
                let rules = [rule("everything", &outer), rule("team:a", &bounds)];
                let admit = |_| limits.admit(&rules, 3, 0).ok();
                (0..400).filter_map(admit).collect::<Vec<_>>()
            };
            let running: Vec<_> = (0..8).map(|_| threads.spawn(work)).collect();
            running.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(all.len(), 997, "{bounds:?}");
        // The layer above counted those that were let in, and no other.
        let next = limits.admit(&[rule("everything", &outer)], 0, 0).expect("there is room");
        assert_eq!(next.request_rate().map(|rate| rate.remaining), Some(1_000_000 - 998));
        assert_eq!(next.token_rate().map(|rate| rate.remaining), Some(100_000_000 - 997 * 3));
    }
}

#[test]
fn clocks_at_their_ends_do_not_break_the_table() {
    let (limits, bounds) = (Limits::default(), rates(Some(u32::MAX), Some(u32::MAX), Some(1)));
    for now in [0, i64::MIN, i64::MAX, -1, i64::MIN, i64::MAX, 0] {
        let mut admitted = limits.admit(&[rule("key:a", &bounds)], 5, now).expect("there is room");
        admitted.settle(u64::MAX / 2, now);
        admitted.settle(0, now);
        let denied = limits.admit(&[rule("key:a", &bounds)], 5, now).expect_err("one at once");
        assert_eq!(denied.rule, Rule::Concurrency);
    }
}
