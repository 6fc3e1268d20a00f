//! What loading refuses, what it claims, which layout numbers get, and how fast it packs.

use std::time::Instant;

use kernels::{Error, Format, Group, MatrixPart, Precision};

use super::{Layout, Matrix, Offset, matrix_bytes, parts_bytes};
use crate::emulator::Emulator;
use crate::tensor::Kind;
use crate::upload::Upload;

fn load(parts: &[MatrixPart<'_>], precision: Precision) -> Result<Matrix, Error> {
    let mut gpu = Emulator::new(1);
    let mut upload = Upload::new(&mut gpu)?;
    let matrix = Matrix::load(&mut gpu, &mut upload, parts, precision);
    upload.finish(&mut gpu)?;
    matrix
}

fn part(format: Format, rows: usize, cols: usize, bytes: &[u8]) -> MatrixPart<'_> {
    MatrixPart { format, rows, cols, bytes, order: None }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for format in Format::ALL {
        let (cols, precision) = (2 * format.block_len(), Precision::Bfloat16);
        let bytes = vec![0; 3 * format.row_bytes(cols)];
        let good = part(format, 3, cols, &bytes);
        assert!(load(&[good], precision).is_ok(), "{format:?}");
        let lengths = [0, bytes.len() - 1];
        for len in lengths {
            let found = load(&[MatrixPart { bytes: &bytes[..len], ..good }], precision).err();
            assert_eq!(found, Some(Error::MatrixBytes { wanted: bytes.len(), found: len }));
        }
        let mut wrong = vec![
            MatrixPart { rows: 0, ..good },
            MatrixPart { cols: 0, ..good },
            MatrixPart { rows: usize::MAX, ..good },
            MatrixPart { cols: usize::MAX / 256 * 256, ..good },
        ];
        if format.is_quantized() {
            wrong.push(MatrixPart { cols: cols + 1, ..good });
        }
        for wrong in wrong {
            let shape = (wrong.rows, wrong.cols);
            assert!(load(&[wrong], precision).is_err(), "{format:?} {shape:?}");
        }
    }
    assert!(load(&[], Precision::Float32).is_err());
    let bytes = [0; 64];
    let (wide, narrow) = (part(Format::F32, 1, 16, &bytes), part(Format::F32, 2, 8, &bytes));
    assert!(load(&[wide, narrow], Precision::Float32).is_err());
}

#[test]
fn orders_that_are_no_permutation_are_refused() {
    let bytes = vec![0; 64 * 4 * 3];
    let load = |order: &[u32]| {
        let part = MatrixPart { order: Some(order), ..part(Format::F32, 3, 64, &bytes) };
        load(&[part], Precision::Float32)
    };
    let good: Vec<u32> = (0..64).rev().collect();
    let loaded = load(&good).expect("a permutation");
    assert_eq!(loaded.bytes(), matrix_bytes(Format::F32, 3, 64, Precision::Float32) + 256);
    let spoils: [fn(&mut Vec<u32>); 4] =
        [|o| o.truncate(63), |o| o.push(64), |o| o[5] = o[6], |o| o[5] = 64];
    for spoil in spoils {
        let mut order = good.clone();
        spoil(&mut order);
        assert!(load(&order).is_err(), "{order:?}");
    }
}

/// Blocks of `U4` with these scales and zero points.
fn u4(blocks: &[(f32, u16)]) -> Vec<u8> {
    let block = |&(scale, zero): &(f32, u16)| {
        let mut block = vec![0x5a; 8 + 16];
        block[..4].copy_from_slice(&scale.to_le_bytes());
        block[4..8].copy_from_slice(&u32::from(zero).to_le_bytes());
        block
    };
    blocks.iter().flat_map(block).collect()
}

#[test]
fn numbers_that_layouts_cannot_hold_are_refused_by_name() {
    let check = |format: Format, bytes: &[u8], says: &str| {
        let found = load(&[part(format, 2, format.block_len(), bytes)], Precision::Bfloat16);
        let text = found.map_or_else(|error| error.to_string(), |_| "loaded".to_owned());
        assert!(text.contains(says), "{text}, not {says}");
    };
    let group = Format::U4(Group::G32);
    check(group, &u4(&[(1.0, 8), (1e-6, 8)]), "loaded");
    check(group, &u4(&[(1.0, 8), (1e-20, 8)]), "more than 16-bit floats span");
    check(group, &u4(&[(1.0, 8), (0.0, 256)]), "loaded");
    check(group, &u4(&[(1.0, 8), (1.0, 257)]), "a zero point of 257");
    check(group, &u4(&[(f32::NAN, 8), (f32::INFINITY, 8)]), "loaded");
    check(group, &u4(&[(1e38, 8), (1e32, 8)]), "loaded");
    check(group, &u4(&[(1e-38, 8), (1e-42, 8)]), "loaded");
    let mut floats = vec![0; 2 * 36];
    floats[36..40].copy_from_slice(&1e36_f32.to_le_bytes());
    check(Format::F8E4M3(Group::G32), &floats, "a scale of 1");
}

#[test]
fn numbers_choose_among_layouts() {
    let layout = |format: Format, precision, rows, bytes: &[u8]| {
        let part = part(
            format,
            rows,
            bytes.len() / rows / format.block_bytes() * format.block_len(),
            bytes,
        );
        load(&[part], precision).expect("it loads").parts[0].layout
    };
    let offset = |zeros: [u16; 2]| {
        let bytes = u4(&zeros.map(|zero| (0.5, zero)));
        match layout(Format::U4(Group::G32), Precision::Float16, 2, &bytes) {
            Layout::Codes(codes) => (codes.offset, codes.bias, codes.factor),
            other => panic!("{other:?}"),
        }
    };
    let factor = 1.0 / 32768.0;
    assert_eq!(offset([8, 8]), (Offset::None, 8.0, factor));
    assert_eq!(offset([8, 7]), (Offset::Zero, 0.0, factor));
    let mut floats = vec![0x30; 4 * 36];
    let f8 = |bytes: &[u8]| layout(Format::F8E4M3(Group::G32), Precision::Bfloat16, 2, bytes);
    assert_eq!(f8(&floats), Layout::F8 { block: 64 });
    floats[36] = 0;
    assert_eq!(f8(&floats), Layout::F8 { block: 32 });
    let numbers = [1e4_f32, 7e4, f32::INFINITY].map(|x| half::bf16::from_f32(x).to_le_bytes());
    let bf16 = |bytes: &[u8]| layout(Format::Bf16, Precision::Float16, 1, bytes);
    assert_eq!(bf16(&numbers.as_flattened()[..2]), Layout::Plain(Kind::F16));
    assert_eq!(bf16(&numbers.as_flattened()[4..]), Layout::Plain(Kind::F16));
    assert_eq!(bf16(numbers.as_flattened()), Layout::Plain(Kind::F32));
}

#[test]
fn sizes_are_counted_or_said_to_be_too_large() {
    for format in Format::ALL {
        let cols = 64 * format.block_len();
        let bytes = |rows, cols| matrix_bytes(format, rows, cols, Precision::Bfloat16);
        assert_eq!(bytes(usize::MAX, cols), usize::MAX, "{format:?}");
        assert_eq!(bytes(usize::MAX / 64, usize::MAX / 256 * 256), usize::MAX, "{format:?}");
        let two = parts_bytes(&[(format, 64), (format, 64)], cols, Precision::Bfloat16);
        assert_eq!(two, bytes(128, cols), "neighbours that lie alike are one");
    }
    let (rows, cols) = (4096, 4096);
    let bytes = |format| matrix_bytes(format, rows, cols, Precision::Bfloat16);
    assert_eq!(bytes(Format::Q4_0), rows * cols / 2 + rows * cols / 32 * 2);
    assert_eq!(bytes(Format::Q4K), rows * cols / 2 + rows * cols / 32 * 4);
    assert_eq!(bytes(Format::Q6K), rows * cols + rows * cols / 16 * 2);
    let halves = [Format::F16, Format::Bf16];
    assert_eq!(halves.map(bytes), [2 * rows * cols; 2]);
}

/// What goes up piece by piece is what would go up at once.
#[test]
fn pieces_are_the_whole() {
    use super::{Codes, Run, floats, plain, scales, size, tiles};
    let check = |what: &str, (len, unit): (usize, usize), fill: &dyn Fn(usize, &mut [u8])| {
        let (mut whole, mut pieces) = (vec![0xcc; len], vec![0x33; len]);
        fill(0, &mut whole);
        pieces.chunks_mut(unit).enumerate().for_each(|(i, out)| fill(i * unit, out));
        assert!(whole == pieces, "{what}");
    };
    let (cols, precision) = (512, Precision::Bfloat16);
    for format in Format::ALL {
        let mut seed = 7_u32;
        let mut byte = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Small enough that no field is a NaN or a zero point beyond 256.
            (seed >> 24) as u8 & 0x3b
        };
        let mut bytes: Vec<u8> = (0..40 * format.row_bytes(cols)).map(|_| byte()).collect();
        if matches!(format, Format::U2(_) | Format::U3(_) | Format::U4(_) | Format::U8(_)) {
            bytes.chunks_exact_mut(format.block_bytes()).for_each(|block| block[5] = 0);
        }
        let mut run = Run::new(size::layout(format, precision), None, cols);
        // Two parts, whose border is inside a row block.
        let at = 21 * format.row_bytes(cols);
        run.rows.push(part(format, 21, cols, &bytes[..at]));
        run.rows.push(part(format, 19, cols, &bytes[at..]));
        run.refine().expect("numbers that can be held");
        match &run.layout {
            Layout::Codes(codes) => {
                let Codes { factor, .. } = *codes;
                assert!(factor.is_normal(), "{format:?}");
                let (tiles, groups) = size::of_row(codes, cols);
                let unit = tiles * size::TILE;
                check("tiles", (3 * unit, unit), &|from, out| {
                    tiles::fill(&run.rows, codes, from / unit, out);
                });
                let (unit, lost) = (groups * 16 * size::entries(codes), scales::Lost::none());
                check("scales", (3 * unit, unit), &|from, out| {
                    scales::fill(&run.rows, codes, &lost, from / unit, out);
                });
            }
            Layout::F8 { block } => {
                check("codes", (40 * cols, 3 * cols), &|from, out| {
                    floats::codes(&run.rows, from / cols, out);
                });
                check("f32", (cols / block * 40 * 4, 28), &|from, out| {
                    floats::scales(&run.rows, false, from / 4, out);
                });
            }
            Layout::Plain(kind) => {
                check("plain", (40 * cols * kind.bytes(), 60), &|from, out| {
                    plain::fill(format, &bytes, *kind, from, out);
                });
            }
        }
    }
}

/// Run by hand, in release: bytes of the file a second on one thread.
#[test]
#[ignore = "a measurement"]
fn packing_speed() {
    use super::{Run, floats, plain, scales, size, tiles};
    let (rows, cols) = (32, 4096);
    let formats = [
        Format::Q4_0,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
        Format::Q8_0,
        Format::Q3K,
        Format::U4(Group::G128),
        Format::Mxfp4,
        Format::Nf4,
        Format::F8E4M3(Group::G128),
        Format::Bf16,
        Format::F16,
        Format::Iq2Xs,
        Format::Q2K,
    ];
    for format in formats {
        // Small positive scales in whatever field they are, zero points that differ.
        let mut bytes = vec![0x14; rows * format.row_bytes(cols)];
        if matches!(format, Format::U4(_)) {
            let blocks = bytes.chunks_exact_mut(format.block_bytes()).enumerate();
            blocks.for_each(|(i, block)| block[4..6].copy_from_slice(&[i as u8 % 15, 0]));
        }
        let precision = Precision::Bfloat16;
        let mut run = Run::new(size::layout(format, precision), None, cols);
        run.rows.push(part(format, rows, cols, &bytes));
        let mut out = vec![0_u8; rows * cols * 4];
        let mut best = f64::INFINITY;
        for _ in 0..200 {
            let start = Instant::now();
            run.refine().expect("numbers that can be held");
            // Shares below what a second thread is worth.
            for block in 0..rows / 16 {
                match &run.layout {
                    Layout::Codes(codes) => {
                        let (tiles, groups) = size::of_row(codes, cols);
                        tiles::fill(&run.rows, codes, block, &mut out[..tiles * size::TILE]);
                        let len = groups * 16 * size::entries(codes);
                        let lost = scales::Lost::none();
                        scales::fill(&run.rows, codes, &lost, block, &mut out[..len]);
                    }
                    Layout::F8 { .. } => {
                        floats::codes(&run.rows, block * 16, &mut out[..16 * cols]);
                        let len = rows * cols / 128 / 16 * 4;
                        floats::scales(&run.rows, false, block * len / 4, &mut out[..len]);
                    }
                    Layout::Plain(kind) => {
                        let len = 16 * cols * kind.bytes();
                        plain::fill(format, &bytes, *kind, block * len, &mut out[..len]);
                    }
                }
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{:8} {:6.2} GB/s", format.name(), bytes.len() as f64 / best / 1e9);
    }
}
