//! Every format, precision and instruction set of this machine against the plain loops.

use half::{bf16, f16};

use super::{Scratch, matmul, staging};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::{Matrix, packed_bytes};
use crate::cpu::pool::Pool;
use crate::reference::dequant;
use crate::{Error, Format, Group, MatrixPart, Precision};

mod formats;

const ALL: [Format; 42] = Format::ALL;
const PRECISIONS: [Precision; 3] = [Precision::Float32, Precision::Bfloat16, Precision::Float16];

/// A small generator, the same on every machine (xorshift).
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    /// File bytes of a matrix: any codes, scales of ordinary size.
    fn matrix(&mut self, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..rows * cols / format.block_len() {
            let x = self.unit();
            match format {
                Format::F32 => bytes.extend(x.to_le_bytes()),
                Format::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
                Format::Bf16 => bytes.extend(bf16::from_f32(x).to_le_bytes()),
                _ => {
                    let block = self.block(format);
                    bytes.extend(block);
                }
            }
        }
        bytes
    }

    fn block(&mut self, format: Format) -> Vec<u8> {
        let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| self.next() as u8).collect();
        for at in scales_at(format) {
            let scale = f16::from_f32(self.unit() / 64.0).to_le_bytes();
            block[*at..at + 2].copy_from_slice(&scale);
        }
        match format {
            Format::U2(_) | Format::U3(_) | Format::U4(_) | Format::U8(_) => {
                block[..4].copy_from_slice(&(self.unit() / 64.0).to_le_bytes());
                // Zero points up to 256, which GPTQ's first layout has.
                let zero = self.next() as u16 % 257;
                block[4..8].copy_from_slice(&u32::from(zero).to_le_bytes());
            }
            Format::F8E4M3(_) | Format::Nf4 | Format::Fp4 => {
                block[..4].copy_from_slice(&(self.unit() / 64.0).to_le_bytes());
                let not_nan = |code: u8| if code & 0x7f == 0x7f { code ^ 1 } else { code };
                let floats = matches!(format, Format::F8E4M3(_));
                block[4..].iter_mut().filter(|_| floats).for_each(|code| *code = not_nan(*code));
            }
            Format::Mxfp4 => block[0] = 118 + block[0] % 8,
            Format::Iq1M => {
                // Four bits of the scale in each short.
                let scale = f16::from_f32(self.unit() / 64.0).to_bits();
                for i in 0..4 {
                    let high = (scale >> (4 * i) & 15) << 4;
                    block[49 + 2 * i] = block[49 + 2 * i] & 15 | high as u8;
                }
            }
            _ => {}
        }
        block
    }
}

/// Where a block keeps its f16 numbers.
fn scales_at(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        Format::Tq1_0 => &[52],
        Format::Tq2_0 => &[64],
        Format::U2(_) | Format::U3(_) | Format::U4(_) | Format::U8(_) => &[],
        Format::F8E4M3(_) | Format::Nf4 | Format::Fp4 | Format::Mxfp4 | Format::Iq1M => &[],
        _ => &[0],
    }
}

/// One row of the activations that the product of this format and precision sees.
fn seen(format: Format, precision: Precision, x: &[f32]) -> Vec<f32> {
    match (format, precision) {
        (_, Precision::Float32) | (Format::F32 | Format::F16, _) => x.to_vec(),
        (Format::Bf16, Precision::Bfloat16) => {
            x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
        }
        (Format::Bf16 | Format::F8E4M3(_) | Format::Nf4 | Format::Fp4, _) => x.to_vec(),
        _ => staging::rounded(x),
    }
}

/// Sum in f64 and the sum of magnitudes, which bounds what f32 may lose.
fn dot(w: &[f32], x: &[f32]) -> (f64, f64) {
    let products = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
    products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

/// Packed size over the file's, at most.
fn growth_of(format: Format) -> f64 {
    match format {
        Format::Tq1_0 => 1.23,
        Format::Iq3S => 1.26,
        Format::Iq2S => 1.4,
        Format::Iq3Xxs => 1.41,
        Format::Iq1S => 1.48,
        Format::Iq1M | Format::Iq2Xs => 1.55,
        Format::Iq2Xxs => 1.61,
        _ => 1.045,
    }
}

struct Case {
    parts: Vec<(Format, usize, Vec<u8>)>,
    /// Orders of columns, one for each of the first parts.
    orders: Vec<Vec<u32>>,
    cols: usize,
    rows: usize,
    x: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(seed: u64, parts: &[(Format, usize)], cols: usize, rows: usize) -> Self {
        let mut seed = Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let x = seed.floats(rows * cols);
        let bias = seed.floats(parts.iter().map(|p| p.1).sum());
        let bytes = parts.iter().map(|&(f, n)| (f, n, seed.matrix(f, n, cols))).collect();
        Self { parts: bytes, orders: Vec::new(), cols, rows, x, bias }
    }

    fn parts(&self) -> Vec<MatrixPart<'_>> {
        let order = |i| self.orders.get(i).map(Vec::as_slice);
        let parts = self.parts.iter().enumerate();
        parts
            .map(|(i, &(format, rows, ref bytes))| MatrixPart {
                format,
                rows,
                cols: self.cols,
                bytes,
                order: order(i),
            })
            .collect()
    }

    fn run(&self, precision: Precision, isa: Isa, pool: &Pool) -> Vec<f32> {
        let matrix = Matrix::pack(&self.parts(), precision, isa, pool).expect("packs");
        self.run_packed(&matrix, pool, &self.x)
    }

    fn run_packed(&self, matrix: &Matrix, pool: &Pool, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.cols;
        let mut scratch = Scratch::default();
        scratch.reserve(rows, self.cols).expect("memory");
        let mut out = vec![f32::NAN; rows * matrix.rows()];
        matmul(pool, &mut scratch, x, rows, matrix, Some(&self.bias), &mut out);
        out
    }

    fn check(&self, precision: Precision, isa: Isa, pool: &Pool) {
        let out = self.run(precision, isa, pool);
        let features = self.bias.len();
        let mut w = vec![0.0; self.cols];
        let mut feature = 0;
        for (i, &(format, rows, ref bytes)) in self.parts.iter().enumerate() {
            let ordered = |x: &[f32]| match self.orders.get(i) {
                None => x.to_vec(),
                Some(order) => order.iter().map(|&k| x[k as usize]).collect(),
            };
            let x = self.x.chunks_exact(self.cols).map(ordered);
            let seen: Vec<_> = x.map(|x| seen(format, precision, &x)).collect();
            for bytes in bytes.chunks_exact(format.row_bytes(self.cols)).take(rows) {
                dequant::row(format, bytes, &mut w);
                for (r, seen) in seen.iter().enumerate() {
                    let (sum, size) = dot(&w, seen);
                    // Codes of formats with minima are larger than the weights that come out.
                    let steps = 8.0 * (self.cols as f64).sqrt();
                    let room = f64::from(f32::EPSILON) * steps * (size + 1.0);
                    let wanted = sum + f64::from(self.bias[feature]);
                    let found = f64::from(out[r * features + feature]);
                    assert!(
                        (found - wanted).abs() <= room,
                        "{format:?} {precision:?} {} row {r} of {} feature {feature}: \
                         {found}, not {wanted} +- {room}",
                        isa.name(),
                        self.rows
                    );
                }
                feature += 1;
            }
        }
    }
}

#[test]
fn all_formats_precisions_and_instruction_sets_agree_with_the_reference() {
    let pool = Pool::new(2);
    for (i, format) in ALL.into_iter().enumerate() {
        for (rows, cols, m) in
            [(1, 256, 1), (35, 256, 3), (16, 2816, 5), (50, 768, 17), (131, 512, 67)]
        {
            let case = Case::new(i as u64 + 1, &[(format, rows)], cols, m);
            for precision in PRECISIONS {
                Isa::available().for_each(|isa| case.check(precision, isa, &pool));
            }
        }
    }
}

#[test]
fn lengths_of_single_blocks_and_odd_lengths() {
    let pool = Pool::new(1);
    for format in ALL {
        let lengths: &[usize] = match format.block_len() {
            1 => &[1, 7, 33, 129, 289],
            32 => &[32, 288, 896],
            64 => &[64, 320, 448],
            128 => &[128, 384, 640],
            _ => &[256],
        };
        for &cols in lengths {
            for m in [1, 2, 9] {
                let case = Case::new(cols as u64, &[(format, 19)], cols, m);
                for precision in PRECISIONS {
                    Isa::available().for_each(|isa| case.check(precision, isa, &pool));
                }
            }
        }
    }
}

#[test]
fn parts_of_several_formats_in_one_matrix() {
    let pool = Pool::new(2);
    let parts = [
        (Format::Q4K, 33),
        (Format::Q6K, 5),
        (Format::Bf16, 20),
        (Format::F32, 1),
        (Format::F16, 48),
    ];
    for m in [1, 8, 40] {
        let case = Case::new(7, &parts, 512, m);
        for precision in PRECISIONS {
            Isa::available().for_each(|isa| case.check(precision, isa, &pool));
        }
    }
}

#[test]
fn every_tile_size_is_right() {
    let pool = Pool::new(1);
    for m in 1..=67 {
        for format in [Format::Q8_0, Format::Q4K, Format::Bf16, Format::F32] {
            let case = Case::new(m as u64, &[(format, 40)], 256, m);
            Isa::available().for_each(|isa| case.check(Precision::Bfloat16, isa, &pool));
        }
    }
}

#[test]
fn a_row_is_the_same_bits_alone_and_in_any_batch_on_any_threads() {
    let (one, three) = (Pool::new(1), Pool::new(3));
    for format in ALL {
        let case = Case::new(11, &[(format, 75)], 1280, 37);
        for precision in PRECISIONS {
            for isa in Isa::available() {
                let matrix = Matrix::pack(&case.parts(), precision, isa, &one).expect("packs");
                let whole = case.run_packed(&matrix, &three, &case.x);
                for take in [1, 2, 5, 8, 12, 16, 37] {
                    let x = &case.x[..take * case.cols];
                    let out = case.run_packed(&matrix, &one, x);
                    assert_eq!(out, whole[..out.len()], "{format:?} {precision:?} {take} rows");
                }
                let last = &case.x[36 * case.cols..];
                let out = case.run_packed(&matrix, &one, last);
                assert_eq!(out, whole[36 * 75..], "{format:?} {precision:?} last row alone");
            }
        }
    }
}

#[test]
fn rows_come_back_bit_for_bit_as_the_format_defines() {
    let pool = Pool::new(1);
    for format in ALL {
        let case = Case::new(3, &[(format, 21), (format, 18)], 512, 1);
        let matrix =
            Matrix::pack(&case.parts(), Precision::Float32, Isa::detect(), &pool).expect("packs");
        let file: usize = case.parts.iter().map(|p| p.2.len()).sum();
        // Two parts of 32 rows with padding, or of 64.
        let rows = if matches!(format, Format::F8E4M3(_) | Format::Nf4 | Format::Fp4) {
            128.0
        } else {
            64.0
        };
        let padded = file as f64 / 39.0 * rows;
        let growth = matrix.bytes() as f64 / padded;
        assert!(growth <= growth_of(format), "{}: {growth}", format.name());
        let planned: usize = [21, 18].map(|rows| packed_bytes(format, rows, 512)).iter().sum();
        assert_eq!(matrix.bytes(), planned, "{}", format.name());
        let (mut found, mut wanted) = (vec![0.0; 512], vec![0.0; 512]);
        let rows = case.parts.iter().flat_map(|p| p.2.chunks_exact(format.row_bytes(512)));
        for (r, bytes) in rows.enumerate() {
            matrix.row(r, &mut found);
            dequant::row(format, bytes, &mut wanted);
            assert_eq!(found, wanted, "{format:?} row {r}");
        }
    }
}

#[test]
fn activations_that_are_not_ordinary_numbers() {
    let pool = Pool::new(1);
    for isa in Isa::available() {
        for format in [Format::Q8_0, Format::Iq4Nl, Format::Mxfp4, Format::U4(Group::G64)] {
            let mut case = Case::new(5, &[(format, 16)], 64, 3);
            case.x[..64].fill(0.0);
            case.x[64..128].fill(1e-38);
            case.x[130] = f32::NAN;
            let out = case.run(Precision::Bfloat16, isa, &pool);
            assert_eq!(out[..16], case.bias, "zeros");
            assert_eq!(out[16..32], case.bias, "next to nothing");
            assert!(out[32..].iter().all(|x| x.is_nan()), "a NaN reaches the output");
        }
    }
}

#[test]
fn hostile_sizes_are_refused() {
    let pool = Pool::new(1);
    let pack = |format, rows, cols, bytes: &[u8]| {
        let part = MatrixPart { format, rows, cols, bytes, order: None };
        Matrix::pack(&[part], Precision::Float32, Isa::detect(), &pool).map(|_| ())
    };
    let bytes = [0; 64];
    assert_eq!(pack(Format::F32, 4, 5, &bytes), Err(Error::MatrixBytes { wanted: 80, found: 64 }));
    assert_eq!(
        pack(Format::F32, usize::MAX / 2, 8, &bytes),
        Err(Error::MatrixBytes { wanted: usize::MAX, found: 64 })
    );
    for (format, rows, cols) in
        [(Format::Q4K, 1, 255), (Format::F32, 0, 4), (Format::F32, 4, 0), (Format::Q8_0, 1, 33)]
    {
        let refused = pack(format, rows, cols, &bytes);
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{format:?} {rows} x {cols}");
    }
}
