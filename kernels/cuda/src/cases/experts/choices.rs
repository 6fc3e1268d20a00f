//! Which experts rows choose, and how routed rows are ordered.

use kernels::reference::experts::Choice;
use kernels::{Compute, Error, Precision, RouterGroups, RouterScore};

use super::super::activation::relative;
use super::super::{Bench, Numbers, Open, Outcome, config};
use super::{Chosen, plain, route, wanted};
use crate::device::Cuda;
use crate::gpu::Gpu;

/// Rows, experts, and how many of them a row chooses: one, all, odd numbers, padded buckets, as
/// many as there can be.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (3, 8, 2),
    (5, 8, 8),
    (2, 33, 4),
    (70, 128, 8),
    (9, 256, 8),
    (3, 512, 6),
    (33, 64, 32),
    (300, 40, 5),
];

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for (i, (rows, experts, top_k)) in SHAPES.into_iter().enumerate() {
        let mut numbers = Numbers::new(i as u64);
        let logits = numbers.list(rows * experts, 2.0);
        // Large enough to make many keys negative.
        let correction = numbers.list(experts, 0.5);
        let mut device = open(config(Precision::Float32, rows));
        for how in hows(experts, top_k, &correction) {
            out.extend(choice(&mut device, &logits, experts, &how));
        }
    }
    out.extend(ties(open));
    out.extend(nans(open));
    out.push(refused(open));
    out
}

/// Every way in which rows choose.
fn hows(experts: usize, top_k: usize, correction: &[f32]) -> Vec<Choice> {
    let groups = |count, kept, two_best| Some(RouterGroups { count, kept, two_best });
    let mut all = vec![plain(top_k)];
    for score in [RouterScore::Softmax, RouterScore::Sigmoid] {
        all.push(Choice { score, normalise: true, scale: 2.5, ..plain(top_k) });
        let corrected = Choice { score, correction: Some(correction.to_vec()), ..plain(top_k) };
        all.push(corrected.clone());
        if experts.is_multiple_of(8) && experts > 8 && 3 * experts / 8 >= top_k {
            let (one, two) = (groups(8, 3, false), groups(8, 4, true));
            all.push(Choice { score, groups: one, normalise: true, ..plain(top_k) });
            all.push(Choice { groups: two, scale: 16.0, ..corrected.clone() });
            all.push(Choice { groups: groups(8, 8, true), ..corrected.clone() });
            all.push(Choice { groups: groups(experts, top_k, true), ..corrected.clone() });
            all.push(Choice { groups: groups(1, 1, true), ..corrected });
        }
    }
    all
}

/// Experts exactly, their order as promised, weights nearly.
fn choice<G: Gpu>(
    device: &mut Cuda<G>,
    logits: &[f32],
    experts: usize,
    how: &Choice,
) -> [Outcome; 2] {
    let rows = logits.len() / experts;
    let routes = route(device, (logits, rows), how);
    device.finish();
    let chosen = Chosen::read(device, &routes, rows);
    let (ids, weights) = wanted(logits, experts, how);
    let mut got: Vec<f32> = chosen.experts.iter().map(|&expert| expert as f32).collect();
    got.push(f32::from(u8::from(chosen.in_order(how.top_k))));
    let ids: Vec<f32> = ids.into_iter().chain([1.0]).collect();
    let Choice { top_k, score, ref correction, groups, normalise, .. } = *how;
    let corrected = correction.is_some();
    let name = format!(
        "route {rows}, {top_k} of {experts}, {score:?}, {groups:?}, {normalise} {corrected}"
    );
    // Powers lose some ulp, and their sum as many again.
    let limit = 32.0 * f32::EPSILON;
    [
        Outcome::of(name.clone(), &got, &ids, 1.0, 0.0),
        relative(format!("{name}: weights"), (&chosen.weights, &weights), 1e-6, limit),
    ]
}

/// Ties go to the smaller number; no expert of a group that was not kept is chosen, however low
/// the rest are.
fn ties<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let groups = Some(RouterGroups { count: 4, kept: 2, two_best: true });
    let grouped = Choice { score: RouterScore::Sigmoid, groups, ..plain(3) };
    let mut logits = vec![0.5; 16];
    let mut device = open(config(Precision::Float32, 1));
    let device = &mut device;
    let mut out: Vec<_> = [plain(3), grouped.clone()]
        .iter()
        .flat_map(|how| choice(device, &logits, 16, how))
        .collect();
    (logits[9], logits[15]) = (0.75, 0.75);
    out.extend(choice(device, &logits, 16, &grouped));
    // Group 1 has the best sum; its others are negative and below all of group 0. A key of -0 is
    // one of 0.
    let correction = Some(vec![0.0, 0.0, 0.0, 0.0, 9.0, 9.0, -9.0, -9.0]);
    let groups = Some(RouterGroups { count: 2, kept: 1, two_best: true });
    let low = Choice { correction, groups, ..plain(4) };
    out.extend(choice(device, &[0.0; 8], 8, &low));
    let zeros = Some(vec![-0.125, -0.125, 0.0, -0.125, -0.125, 0.0, -0.125, -0.125]);
    out.extend(choice(device, &[0.0; 8], 8, &Choice { correction: zeros, ..plain(5) }));
    out
}

/// A row with a NaN chooses, too, and gets weights that are NaN; no other row does.
fn nans<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for score in [RouterScore::Softmax, RouterScore::Sigmoid] {
        let mut logits = Numbers::new(4).list(3 * 24, 1.0);
        logits[24 + 17] = f32::NAN;
        logits[48..].fill(f32::NAN);
        let how = Choice { score, normalise: true, ..plain(2) };
        let mut device = open(config(Precision::Float32, 3));
        let routes = route(&mut device, (&logits, 3), &how);
        device.finish();
        let chosen = Chosen::read(&mut device, &routes, 3);
        let lost = |x: &f32| f32::from(u8::from(x.is_nan()));
        let mut got: Vec<f32> = chosen.weights.iter().map(lost).collect();
        got.push(f32::from(u8::from(chosen.in_order(2))));
        let name = format!("route {score:?}, rows with NaNs");
        outcomes.push(Outcome::of(name, &got, &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0], 1.0, 0.0));
    }
    outcomes
}

/// What the kernels do not take is refused by name.
fn refused<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let mut device = open(config(Precision::Float32, 1));
    let mut named = |top_k, experts| {
        let routes = device.routes(1, top_k, experts);
        matches!(routes, Err(Error::Unsupported(text)) if text.contains("512"))
    };
    let failed = f32::from(u8::from(!(named(8, 513) && named(33, 64))));
    Outcome::of("route, what is refused".into(), &[failed], &[0.0], 1.0, 0.0)
}
