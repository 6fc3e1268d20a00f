//! What formats and orders of columns ask of the products beside plain sums: bits, numbers that
//! are none, refusals, and the products of groups and of heads.

use super::{ALL, Case, PRECISIONS, Seed};
use crate::compute::HeadBlocks;
use crate::cpu::isa::Isa;
use crate::cpu::matmul::diagonal::diagonal;
use crate::cpu::matmul::{Scratch, grouped};
use crate::cpu::matrix::{Matrix, packed_bytes};
use crate::cpu::pool::Pool;
use crate::reference::dequant;
use crate::{Error, Format, Group, Precision};

/// A permutation.
fn shuffled(cols: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..cols as u32).collect();
    let mut seed = Seed(seed);
    for i in (1..cols).rev() {
        order.swap(i, seed.next() as usize % (i + 1));
    }
    order
}

#[test]
fn columns_in_an_order_of_their_own() {
    let pool = Pool::new(2);
    let parts = [
        (Format::U4(Group::G128), 33),
        (Format::F8E4M3(Group::G64), 70),
        (Format::U4(Group::G32), 20),
        (Format::Bf16, 5),
        (Format::U8(Group::G64), 7),
    ];
    for m in [1, 6, 40] {
        let mut case = Case::new(9, &parts, 384, m);
        // The third is as the first, the last as it comes.
        case.orders = [1, 2, 1, 3].map(|seed| shuffled(384, seed)).to_vec();
        for precision in PRECISIONS {
            Isa::available().for_each(|isa| case.check(precision, isa, &pool));
        }
        let parts = case.parts();
        let matrix = Matrix::pack(&parts, Precision::Float32, Isa::detect(), &pool).expect("packs");
        let orders = 3 * 384 * 4;
        let packed = parts.iter().map(|p| packed_bytes(p.format, p.rows, p.cols));
        assert_eq!(matrix.bytes(), packed.sum::<usize>() + orders);
        let (mut found, mut stored) = (vec![0.0; 384], vec![0.0; 384]);
        matrix.row(40, &mut found);
        dequant::row(parts[1].format, &parts[1].bytes[7 * 408..8 * 408], &mut stored);
        let order = parts[1].order.expect("it has one");
        let wanted = |k: u32| stored[order.iter().position(|&o| o == k).expect("a permutation")];
        assert_eq!(found, (0..384).map(wanted).collect::<Vec<_>>());
    }
}

/// Rows of the identity make a product give back the weights.
#[test]
fn every_instruction_set_widens_to_the_same_bits() {
    let pool = Pool::new(1);
    for format in ALL {
        let cols = format.block_len().max(128);
        let mut case = Case::new(17, &[(format, 70)], cols, cols);
        case.bias.fill(0.0);
        case.x = (0..cols * cols).map(|i| f32::from(u8::from(i / cols == i % cols))).collect();
        let row_bytes = format.row_bytes(cols);
        let row = |r: usize| r * row_bytes..(r + 1) * row_bytes;
        for (r, e) in [0, 1, 2, 250, 251].into_iter().enumerate() {
            let bytes = &mut case.parts[0].2[row(r)];
            match format {
                Format::Mxfp4 => bytes[0] = e,
                Format::U2(_) | Format::U3(_) | Format::U4(_) | Format::U8(_) => {
                    bytes[4..6].copy_from_slice(&(u16::from(e) * 257).to_le_bytes());
                }
                _ => {}
            }
        }
        let mut wanted = vec![0.0; cols];
        for isa in Isa::available() {
            let out = case.run(Precision::Float32, isa, &pool);
            for r in 0..70 {
                dequant::row(format, &case.parts[0].2[row(r)], &mut wanted);
                let found: Vec<f32> = (0..cols).map(|k| out[k * 70 + r]).collect();
                assert_eq!(found, wanted, "{} {} row {r}", format.name(), isa.name());
            }
        }
    }
}

#[test]
fn codes_that_are_not_numbers_reach_the_output() {
    let pool = Pool::new(1);
    for m in [1, 5, 20] {
        for code in [0x7f, 0xff] {
            let mut case = Case::new(23, &[(Format::F8E4M3(Group::G32), 20)], 64, m);
            case.parts[0].2[3 * 72 + 4 + 36 + 7] = code;
            for isa in Isa::available() {
                let out = case.run(Precision::Float32, isa, &pool);
                let nan: Vec<usize> = (0..out.len()).filter(|&i| out[i].is_nan()).collect();
                assert_eq!(nan, (0..m).map(|r| 20 * r + 3).collect::<Vec<_>>(), "{}", isa.name());
            }
        }
    }
}

#[test]
fn orders_that_are_no_permutation_and_scales_without_bounds_are_refused() {
    let pool = Pool::new(1);
    let pack = |case: &Case| {
        let matrix = Matrix::pack(&case.parts(), Precision::Float32, Isa::detect(), &pool);
        matrix.map(|_| ()).map_err(|e| matches!(e, Error::Unsupported(_)))
    };
    let orders: [fn(&mut Vec<u32>); 4] =
        [|o| o.truncate(63), |o| o.push(64), |o| o[5] = o[6], |o| o[5] = 64];
    for spoil in orders {
        let mut case = Case::new(1, &[(Format::U4(Group::G64), 3)], 64, 1);
        case.orders = vec![shuffled(64, 1)];
        assert_eq!(pack(&case), Ok(()));
        spoil(&mut case.orders[0]);
        assert_eq!(pack(&case), Err(true), "{:?}", case.orders);
    }
    let mut case = Case::new(1, &[(Format::F8E4M3(Group::G64), 3)], 64, 1);
    case.parts[0].2[..4].copy_from_slice(&1e36_f32.to_le_bytes());
    assert_eq!(pack(&case), Err(true));
}

/// Panels of 64 rows and orders of columns, also where blocks begin inside a panel.
#[test]
fn heads_and_groups_of_small_floats_in_orders_of_their_own() {
    let pool = Pool::new(2);
    let (cols, heads, rows) = (64, 3, 5);
    for (format, block_out) in
        [(Format::F8E4M3(Group::G32), 64), (Format::Nf4, 20), (Format::U3(Group::G64), 20)]
    {
        let mut case = Case::new(31, &[(format, heads * block_out)], cols, rows * heads);
        case.orders = vec![shuffled(cols, 4)];
        case.bias.fill(0.0);
        for isa in Isa::available() {
            let matrix =
                Matrix::pack(&case.parts(), Precision::Bfloat16, isa, &pool).expect("packs");
            let whole = case.run_packed(&matrix, &pool, &case.x);
            let width = heads * block_out;
            let blocks = HeadBlocks { heads, x_stride: cols, out_stride: block_out };
            let mut scratch = Scratch::default();
            scratch.reserve(rows, cols).expect("memory");
            let mut out = vec![f32::NAN; rows * width];
            let x = (&case.x[..], heads * cols);
            diagonal(&pool, &mut scratch, x, &matrix, blocks, (&mut out, width));
            for (i, found) in out.chunks_exact(block_out).enumerate() {
                let wanted = &whole[i * width + i % heads * block_out..][..block_out];
                assert_eq!(found, wanted, "{} {} head {i}", format.name(), isa.name());
            }
            // Groups: the same matrix twice, and one without an order between.
            let plain = Case { orders: Vec::new(), ..Case::new(31, &[(format, width)], cols, 1) };
            let pack = |case: &Case| Matrix::pack(&case.parts(), Precision::Bfloat16, isa, &pool);
            let matrices = [&case, &plain, &case].map(|case| pack(case).expect("packs"));
            let starts = [0, 6, 8, 15];
            let from: Vec<u32> = (0..15).rev().collect();
            let mut scratch = grouped::Scratch::default();
            scratch.reserve_rows(15, 15).expect("memory");
            scratch.reserve_matrices(&matrices).expect("memory");
            let mut out = vec![f32::NAN; 15 * width];
            let groups = grouped::Groups {
                x: &case.x,
                from: Some(&from),
                starts: &starts,
                matrices: &matrices,
                bias: None,
            };
            groups.multiply(&pool, &mut scratch, &mut out);
            let unordered = case.run_packed(&matrices[1], &pool, &case.x);
            for (row, found) in out.chunks_exact(width).enumerate() {
                let whole = if (6..8).contains(&row) { &unordered } else { &whole };
                let wanted = &whole[(14 - row) * width..][..width];
                assert_eq!(found, wanted, "{} {} row {row}", format.name(), isa.name());
            }
        }
    }
}
