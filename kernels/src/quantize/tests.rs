//! Written blocks, read back by `reference::dequant`: not worse than plain rounding, exact on the
//! grid, sane on the edges.

use super::*;
use crate::reference::dequant;

const COLS: usize = 4096;

fn back(format: Format, values: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xa5; format.row_bytes(values.len())];
    row(format, values, &mut bytes);
    let mut out = vec![f32::NAN; values.len()];
    dequant::row(format, &bytes, &mut out);
    out
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

/// Values in [0, 1) from a counter (splitmix64).
fn uniform(n: u64) -> f64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Normal values; with `heavy` divided by the root of a gamma value, which makes them Student's
/// with four degrees of freedom.
fn random(heavy: bool) -> Vec<f32> {
    let normal = |n: u64| {
        let (radius, angle) = (uniform(2 * n + 1).max(1e-12), uniform(2 * n + 2));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    };
    let value = |n: u64| {
        let chi = (1..5).map(|k| normal(5 * n + k + (1 << 40)).powi(2)).sum::<f64>();
        0.02 * normal(n) / if heavy { (chi / 4.0).sqrt() } else { 1.0 }
    };
    (0..COLS as u64).map(|n| value(n) as f32).collect()
}

/// Scale (and minimum) from the extremes, nothing searched; group scales rounded as stored.
fn plain(format: Format, values: &[f32]) -> Vec<f32> {
    let stored = |value: f32| f16::from_f32(value).to_f32();
    let extreme = |values: &[f32]| {
        values.iter().fold(0.0, |most: f32, &v| if v.abs() > most.abs() { v } else { most })
    };
    let (group, low, high, most) = match format {
        Format::Q4_0 => (32, -8.0, 7.0, None),
        Format::Q5_0 => (32, -16.0, 15.0, None),
        Format::Q8_0 => (32, -127.0, 127.0, None),
        Format::Q4_1 => (32, 0.0, 15.0, None),
        Format::Q5_1 => (32, 0.0, 31.0, None),
        Format::Q3K => (16, -4.0, 3.0, Some(32.0)),
        Format::Q6K => (16, -32.0, 31.0, Some(128.0)),
        Format::Q2K => (16, 0.0, 3.0, Some(15.0)),
        Format::Q4K => (32, 0.0, 15.0, Some(63.0)),
        Format::Q5K => (32, 0.0, 31.0, Some(63.0)),
        Format::Iq4Nl => (32, -127.0, 113.0, None),
        _ => (32, -127.0, 113.0, Some(32.0)),
    };
    let table = matches!(format, Format::Iq4Nl | Format::Iq4Xs);
    let level = |value: f32| {
        let levels = crate::format::grids::IQ4_LEVELS.map(f32::from);
        let near = |a: &f32, b: &f32| (a - value).abs().total_cmp(&(b - value).abs());
        match table {
            true => levels.into_iter().min_by(near).unwrap(),
            false => value.round().clamp(low, high),
        }
    };
    let line = |values: &[f32]| {
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let least = if most.is_some() { least.min(0.0) } else { least };
        let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if low < 0.0 { [extreme(values) / low, 0.0] } else { [(highest - least) / high, least] }
    };
    let block = |values: &[f32]| -> Vec<f32> {
        let lines: Vec<_> = values.chunks(group).map(line).collect();
        let unit = |n: usize| {
            let all: Vec<f32> = lines.iter().map(|line| line[n]).collect();
            most.map_or(0.0, |most| stored(extreme(&all) / most))
        };
        let units = [unit(0), unit(1)];
        let number = |n: usize, value: f32| match most {
            None => stored(value),
            Some(_) if units[n] == 0.0 => 0.0,
            Some(_) => (value / units[n]).round() * units[n],
        };
        let groups = values.chunks(group).zip(&lines).flat_map(|(values, line)| {
            let (scale, shift) = (number(0, line[0]), number(1, line[1]));
            values.iter().map(move |value| scale * level((value - shift) / scale) + shift)
        });
        groups.collect()
    };
    values.chunks(format.block_len()).flat_map(block).collect()
}

fn blocks() -> impl Iterator<Item = Format> {
    FORMATS.into_iter().filter(|format| format.is_quantized())
}

#[test]
fn a_search_is_not_worse_than_plain_rounding() {
    for format in blocks() {
        for heavy in [false, true] {
            let values = random(heavy);
            let found = rms(&values, &back(format, &values));
            let plain = rms(&values, &plain(format, &values));
            let ratio = found / plain;
            println!("{:7} heavy {heavy:5} {found:.3e}, of plain {ratio:.4}", format.name());
            assert!(found <= plain, "{} heavy {heavy}: {found} over {plain}", format.name());
        }
    }
}

/// Blocks that were read once are written as they were: what a scale search must not lose. In
/// super-blocks a group's whole scale may be another one the second time, which moves values by a
/// fraction of the format's own error.
#[test]
fn values_on_the_grid_come_back() {
    for format in FORMATS {
        for heavy in [false, true] {
            let values = random(heavy);
            let once = back(format, &values);
            let twice = back(format, &once);
            let size = rms(&once, &vec![0.0; COLS]);
            let moved = rms(&once, &twice) / size;
            println!("{:7} heavy {heavy:5} moved {moved:.2e}", format.name());
            let own = rms(&values, &once) / size;
            let most = if format.block_len() == 256 { own / 2.0 } else { 0.0 };
            assert!(moved <= most, "{} heavy {heavy}: moved by {moved:.1e}", format.name());
        }
    }
}

#[test]
fn edges_stay_finite() {
    let zero = vec![0.0; 256];
    let alternating = |size: f32| -> Vec<f32> {
        (0..256).map(|i| if i % 3 == 0 { -size } else { size * (i as f32 / 256.0) }).collect()
    };
    for format in FORMATS {
        assert_eq!(back(format, &zero), zero, "{}", format.name());
        assert_eq!(back(format, &[-0.0; 256]), zero, "{}", format.name());
        for size in [f32::MIN_POSITIVE / 4.0, 1e-30, 1e-9, 1e-6, 1.0, 6e4, 1e9, f32::MAX] {
            let found = back(format, &alternating(size));
            assert!(found.iter().all(|v| v.is_finite()), "{} at {size:e}", format.name());
            if size == 1.0 {
                let error = rms(&found, &alternating(size));
                assert!(error < 0.3, "{} at {size:e}: {error}", format.name());
            }
        }
        // One value among zeros: no candidate may divide by nothing.
        let mut single = zero.clone();
        single[77] = 3.5;
        let found = back(format, &single);
        assert!((found[77] - 3.5).abs() < 0.12, "{}: {}", format.name(), found[77]);
    }
}
