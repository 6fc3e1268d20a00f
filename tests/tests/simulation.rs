//! The scheduler under seeded faults. A failure names its seed; replay it with
//! `SEED=123 cargo test -p hearth-tests --test simulation replay -- --nocapture`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hearth_tests::simulation::bed::{self, Bed};
use hearth_tests::simulation::engine::{Defect, POISON};
use hearth_tests::simulation::{Report, Sabotage, run};
use scheduler::{Command, Config, RequestId};

/// About ten seconds unoptimised on one core.
const SEEDS: u64 = 2000;

fn run_caught(seed: u64, sabotage: Option<Sabotage>) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, sabotage))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

#[test]
fn replay() {
    let Ok(seed) = std::env::var("SEED") else { return };
    let seed = seed.parse().expect("SEED is a number");
    println!("{:#?}", run(seed, None).expect("the seed passes"));
}

#[test]
fn many_seeds() {
    let mut failures = Vec::new();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        match run_caught(seed, None) {
            Ok(report) => count(&mut seen, &report),
            Err(what) => failures.push(format!("SEED={seed}: {what:.600}")),
        }
    }
    println!("{seen:?}");
    assert!(
        failures.is_empty(),
        "{} of {SEEDS} seeds fail\n{}",
        failures.len(),
        failures[..failures.len().min(5)].join("\n")
    );
    // A swarm that never meets a case proves nothing about it.
    let met = |what: &str| seen.get(what).copied().unwrap_or_default();
    for (what, least) in [
        ("well", 20 * SEEDS),
        ("preemptions", SEEDS),
        ("evictions", 10 * SEEDS),
        ("prefix tokens hit", 100 * SEEDS),
        ("late rows", 50 * SEEDS),
        ("faults", SEEDS),
        ("engine", SEEDS / 4),
        ("deadline", SEEDS / 4),
        ("overloaded", SEEDS),
        ("invalid", SEEDS / 2),
        ("resumed", SEEDS),
        ("page changes", 20 * SEEDS),
        ("accepted", 10 * SEEDS),
        ("refused", 10 * SEEDS),
    ] {
        assert!(met(what) >= least, "{what}: met {} times, not {least}", met(what));
    }
}

fn count(seen: &mut BTreeMap<&'static str, u64>, report: &Report) {
    let stats = &report.stats;
    let counts = [
        ("preemptions", stats.preemptions),
        ("evictions", stats.evictions),
        ("prefix tokens hit", stats.prefix_tokens_hit),
        ("late rows", report.late_rows),
        ("faults", report.faults),
        ("steps", stats.steps),
        ("resumed", report.resumed),
        ("page changes", report.page_changes),
        ("drafted", stats.tokens_drafted),
        ("accepted", stats.tokens_accepted),
        ("refused", stats.tokens_drafted - stats.tokens_accepted),
    ];
    for (what, times) in counts.into_iter().chain(report.ends.iter().map(|(k, n)| (*k, *n))) {
        *seen.entry(what).or_default() += times;
    }
}

#[test]
fn a_seed_replays_to_the_same_events() {
    for seed in (0..SEEDS).step_by(20) {
        let [first, second] = [run_caught(seed, None), run_caught(seed, None)];
        let (first, second) = (first.expect("passes"), second.expect("passes"));
        assert_eq!(first.hash, second.hash, "SEED={seed} depends on something but its seed");
        assert_eq!(first.stats, second.stats, "SEED={seed}");
    }
}

/// An oracle that cannot fail proves nothing: each defect must be found.
#[test]
fn defects_are_found() {
    for sabotage in [
        Sabotage::Engine(Defect::SkipWrite),
        Sabotage::Engine(Defect::WrongToken),
        Sabotage::Engine(Defect::CorruptPage),
        Sabotage::Engine(Defect::TakeDraft),
        Sabotage::DropEvent,
        Sabotage::RepeatEvent,
        Sabotage::SwapEvents,
    ] {
        let (mut acted, mut found) = (0, 0);
        for seed in 0..400 {
            if acted == 40 {
                break;
            }
            match run_caught(seed, Some(sabotage)) {
                Ok(report) => acted += u64::from(report.sabotages > 0),
                Err(_) => {
                    acted += 1;
                    found += 1;
                }
            }
        }
        // A corrupt page may be one that nobody reads again, and a lost write may be made good
        // by a recomputation; everything else is seen at once.
        let harmless = match sabotage {
            Sabotage::Engine(Defect::CorruptPage | Defect::SkipWrite) => acted / 4,
            _ => 0,
        };
        println!("{sabotage:?}: {found} of {acted}");
        assert!(acted >= 30, "{sabotage:?} acted in {acted} runs only");
        assert!(found + harmless >= acted, "{sabotage:?} found in {found} of {acted} runs");
    }
}

/// Two tenants that always have more to do, one with prompts ten times as long: each gets half of
/// the device's time.
#[test]
fn saturating_tenants_share_the_device() {
    for depth in [1, 2] {
        let config = Config { waiting_max: 4000, ..Config::new(6, 2000, 4000) };
        let mut bed = Bed::new(&config, depth);
        for id in 0..3900_u64 {
            let tenant = u64::from(!id.is_multiple_of(13));
            let (prompt, made) = if tenant == 0 { (600, 60) } else { (60, 6) };
            let mut request = bed::request(id, prompt, made);
            request.tenant = tenant;
            request.sampling.seed = tenant << 56;
            bed.submit(request);
        }
        for _ in 0..1500 {
            bed.tick();
        }
        let left = |tenant| {
            let mine = |id: &u64| u64::from(!id.is_multiple_of(13)) == tenant;
            (0..3900).filter(mine).filter(|&id| bed.usage(id).is_none()).count()
        };
        assert!(left(0) > 20 && left(1) > 20, "both must have more: {} {}", left(0), left(1));
        let served = &bed.scheduler.engine().served;
        let share = served[&0] as f64 / (served[&0] + served[&1]) as f64;
        println!("depth {depth}: first tenant's share {share:.3}");
        assert!((0.45..0.55).contains(&share), "depth {depth}: {share}");
    }
}

/// A burst of one tenant does not delay another tenant's single request for long.
#[test]
fn a_burst_does_not_bury_others() {
    let config = Config::new(4, 400, 1000);
    let mut bed = Bed::new(&config, 2);
    for id in 0..300 {
        bed.submit(bed::request(id, 50, 20));
    }
    for _ in 0..50 {
        bed.tick();
    }
    let mut other = bed::request(999, 50, 20);
    other.tenant = 7;
    bed.submit(other);
    let sent = bed.now;
    for _ in 0..60 {
        bed.tick();
    }
    let first = bed.tokens(999, 0).first().expect("served long before the burst ends").0;
    println!("first token after {} us", first - sent);
    bed.drain();
}

/// An urgent request takes the row of a less urgent one, which later goes on as if nothing had
/// happened (the oracle compares its tokens).
#[test]
fn the_urgent_go_first() {
    for depth in [1, 2] {
        let mut bed = Bed::new(&Config::new(2, 100, 1000), depth);
        for id in 0..6 {
            let mut request = bed::request(id, 40, 200);
            request.priority = 3;
            bed.submit(request);
        }
        for _ in 0..40 {
            bed.tick();
        }
        let urgent = bed::request(100, 40, 5);
        bed.submit(urgent);
        for _ in 0..12 {
            bed.tick();
        }
        assert_eq!(bed.tokens(100, 0).len(), 5, "depth {depth}: done within twelve ticks");
        bed.drain();
        let preempted = (0..6).filter(|&id| bed.usage(id).expect("ends").preemptions > 0);
        assert_eq!(preempted.count(), 1, "one row was wanted");
    }
}

/// Long prompts beside decoding rows: steps keep to the target once costs are known, and the
/// prompts still make progress.
#[test]
fn long_prompts_keep_the_inter_token_latency() {
    let config = Config {
        target_itl_us: 15_000,
        step_tokens_max: 4096,
        prefill_tokens_min: 16,
        ..Config::new(16, 4000, 8000)
    };
    let mut bed = Bed::new(&config, 2);
    for id in 0..8 {
        bed.submit(bed::request(id, 30, 1500));
    }
    for id in 10..14 {
        bed.submit(bed::request(id, 300, 5));
    }
    for _ in 0..200 {
        bed.tick();
    }
    bed.scheduler.engine_mut().longest_mixed_us = 0;
    for id in 20..26 {
        bed.submit(bed::request(id, 6000, 5));
    }
    for _ in 0..400 {
        bed.tick();
    }
    let longest = bed.scheduler.engine().longest_mixed_us;
    println!("longest step {longest} us, {:?}", bed.scheduler.stats().cost);
    assert!((10_000..18_000).contains(&longest), "{longest}");
    bed.drain();
}

/// A short prompt is not held up until a long one before it is computed.
#[test]
fn short_prompts_pass_long_ones() {
    let config = Config { step_tokens_max: 256, target_itl_us: 0, ..Config::new(8, 4000, 9000) };
    let mut bed = Bed::new(&config, 2);
    bed.submit(bed::request(1, 8000, 4));
    bed.tick();
    bed.submit(bed::request(2, 60, 4));
    bed.drain();
    let (long, short) = (bed.tokens(1, 0)[0].0, bed.tokens(2, 0)[0].0);
    assert!(short * 5 < long, "short after {short} us, long after {long} us");
}

/// What a conversation's next turn shares, what choices share, and what a prompt that lies in the
/// cache to its last token still computes.
#[test]
fn prefixes_are_shared() {
    let mut bed = Bed::new(&Config::new(8, 400, 1000), 2);
    bed.submit(bed::request(1, 100, 60));
    bed.drain();
    let made: Vec<u32> = bed.tokens(1, 0).iter().map(|(_, token)| *token).collect();
    let mut turn = bed::request(2, 100, 5);
    turn.prompt = [bed::request(1, 100, 0).prompt, made, vec![1, 2, 3]].concat();
    bed.submit(turn);
    bed.drain();
    assert_eq!(bed.usage(2).expect("ends").cached_tokens, 144, "made tokens, whole pages");
    let mut again = bed::request(3, 96, 5);
    again.prompt = bed::request(1, 100, 0).prompt[..96].to_vec();
    bed.submit(again);
    bed.drain();
    assert_eq!(bed.usage(3).expect("ends").cached_tokens, 80, "the last token is computed");

    let computed = |bed: &Bed| {
        let stats = bed.scheduler.stats();
        stats.tokens_prefill + stats.tokens_decode
    };
    let before = computed(&bed);
    let mut several = bed::request(4, 330, 1);
    several.choices = 8;
    bed.submit(several);
    bed.drain();
    // 330 for the first, the ten behind the last whole page for each of the others.
    assert_eq!(computed(&bed) - before, 330 + 7 * 10);
}

/// A request that breaks every step is found and refused; its neighbours end well.
#[test]
fn one_poisoned_request_ends_alone() {
    for depth in [1, 2] {
        let mut bed = Bed::new(&Config::new(32, 1000, 1000), depth);
        for id in 0..32 {
            let mut request = bed::request(id, 40, 30);
            if id == 13 {
                request.prompt[7] = POISON;
            }
            bed.submit(request);
        }
        bed.drain();
        let well: Vec<u64> = (0..32).filter(|&id| bed.usage(id).is_some()).collect();
        assert_eq!(well.len(), 31, "depth {depth}");
        assert!(!well.contains(&13));
    }
}

/// The allowance ends a choice at the exact token, and an extension in time does not interrupt it.
#[test]
fn allowances_are_exact_and_extensions_seamless() {
    for depth in [1, 2] {
        let mut bed = Bed::new(&Config::new(4, 100, 1000), depth);
        for id in 1..=2 {
            let mut request = bed::request(id, 20, 50);
            request.allowance = 10;
            bed.submit(request);
        }
        while bed.tokens(1, 0).len() < 8 {
            bed.tick();
        }
        bed.send(Command::Extend(RequestId(1), 30));
        bed.drain();
        let gaps: Vec<u64> =
            bed.tokens(1, 0).windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert_eq!((bed.tokens(1, 0).len(), bed.tokens(2, 0).len()), (30, 10), "depth {depth}");
        assert!(gaps.iter().all(|&gap| gap < 5000), "no token was late: {gaps:?}");
    }
}

/// A row that fails now and then is tried again each time: only failures without a token between
/// them count towards a refusal.
#[test]
fn transient_faults_do_not_add_up() {
    for depth in [1, 2] {
        let mut bed = Bed::new(&Config::new(2, 100, 1000), depth);
        bed.submit(bed::request(1, 40, 800));
        bed.tick();
        bed.scheduler.engine_mut().faults.step = 40;
        bed.drain();
        assert!(bed.scheduler.stats().step_faults > 10);
        assert_eq!(bed.tokens(1, 0).len(), 800, "depth {depth}");
    }
}

/// Pages that another sequence registered first are no end of a sequence's own chain: what it
/// makes afterwards is found by the next turn, also when the other's copies were evicted.
#[test]
fn equal_prompts_at_once_are_all_cached_for_their_next_turns() {
    let mut bed = Bed::new(&Config::new(4, 100, 1000), 2);
    for id in 1..=3 {
        let mut request = bed::request(1, 64, 40 * id);
        (request.id, request.sampling.seed) = (RequestId(u64::from(id)), u64::from(id));
        bed.submit(request);
    }
    bed.drain();
    for id in 1..=3 {
        let made = bed.tokens(id, 0).into_iter().map(|(_, token)| token);
        let mut turn = bed::request(10 + id, 1, 1);
        turn.prompt = bed::request(1, 64, 0).prompt.into_iter().chain(made).chain([5]).collect();
        // All but the page in which the last made token lies.
        let whole = (turn.prompt.len() - 2) / 16 * 16;
        bed.submit(turn);
        bed.drain();
        assert_eq!(bed.usage(10 + id).expect("ends").cached_tokens as usize, whole, "{id}");
    }
}
