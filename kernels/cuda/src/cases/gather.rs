//! Rows picked by number: embeddings out of tables of several layouts, positions, selections.

use kernels::{Compute, Format, Group, Kept};

use super::matrix::{files, load, numbers_of};
use super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config, rounded};
use crate::device::Cuda;
use crate::gpu::{Address, Gpu};
use crate::ops::gather::Gather;
use crate::ops::{LATE, NONE, Rows};
use crate::record::Record;

/// A list on the device.
fn list<G: Gpu>(device: &mut Cuda<G>, entries: &[u32]) -> Address {
    device.load_vector(bytemuck::cast_slice(entries)).expect("memory").address
}

/// Formats and rows of a table, and its columns: each layout alone, odd widths, parts.
const TABLES: [(&[(Format, usize)], usize); 12] = [
    (&[(Format::F32, 9)], 33),
    (&[(Format::F16, 9)], 64),
    (&[(Format::Bf16, 20)], 130),
    (&[(Format::F8E4M3(Group::G32), 18)], 96),
    (&[(Format::Q4_0, 40)], 32),
    (&[(Format::Q6K, 33)], 512),
    (&[(Format::Q4K, 18)], 256),
    (&[(Format::U4(Group::G64), 17)], 192),
    (&[(Format::U8(Group::G32), 17)], 96),
    (&[(Format::Iq4Nl, 5)], 160),
    (&[(Format::Nf4, 31)], 64),
    (&[(Format::Q8_0, 7), (Format::Q4K, 17), (Format::F32, 3)], 256),
];

/// A permutation.
fn shuffled(numbers: &mut Numbers, n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    (1..n).rev().for_each(|i| order.swap(i, numbers.below(i + 1)));
    order
}

fn tables<G: Gpu>(open: Open<'_, G>, ordered: bool, out: &mut Vec<Outcome>) {
    let mut devices = PRECISIONS.map(|(precision, _)| open(config(precision, 8)));
    for (i, (parts, cols)) in TABLES.into_iter().enumerate() {
        let (precision, unit) = PRECISIONS[i % 3];
        let device = &mut devices[i % 3];
        let mut numbers = Numbers::new(i as u64);
        let mut files = files(i as u64, parts, cols);
        if ordered {
            files[0].order = Some(shuffled(&mut numbers, cols));
        }
        let matrix = load(device, &files, cols).expect("it loads");
        let table: Vec<Vec<f32>> = files
            .iter()
            .flat_map(|file| {
                let stored = numbers_of(file.format, &file.bytes, cols);
                let place = |k: usize| file.order.as_ref().map_or(k, |order| order[k] as usize);
                let row = |row: &[f32]| {
                    let mut out = vec![0.0; cols];
                    row.iter().enumerate().for_each(|(k, &value)| out[place(k)] = value);
                    out
                };
                stored.chunks(cols).map(row).collect::<Vec<_>>()
            })
            .collect();
        let last = table.len() as u32 - 1;
        let (ids, late) = ([0, last, last / 2, LATE, 0, 1], 3);
        let rows = Rows {
            rows: 6,
            count: 0,
            tokens: list(device, &ids),
            positions: 0,
            slots: list(device, &[0, 1, 1, 2, NONE, 0]),
            sequences: 0,
            adapters: 0,
        };
        let drawn = list(device, &[0, 0, late, 0]);
        let found = device.blank(6, cols, Kept::Rounded);
        let gather = Gather::load(device.gpu()).expect("kernels");
        let mut record = Record::default();
        gather.embed(&mut record, &rows, drawn, (&matrix, 0.5), &found);
        let more = [last, 0, 1, 1, 0, last];
        let more_list = list(device, &more);
        gather.embed_add(&mut record, 6, more_list, &matrix, &found);
        record.queue(device.gpu());
        device.gpu().synchronize().expect("no fault");
        let got = device.get(&found, 6);
        let zeros = vec![0.0; cols];
        let row = |i: usize| match ids[i] {
            LATE => &table[late as usize],
            _ if i == 4 => &zeros,
            id => &table[id as usize],
        };
        let want: Vec<f32> = (0..6)
            .flat_map(|i| row(i).iter().zip(&table[more[i] as usize]).map(|(a, b)| 0.5 * a + b))
            .collect();
        let scale = table.iter().flatten().fold(1e-3_f32, |a, b| a.max(b.abs()));
        let name = format!("embed {parts:?} {cols} ordered {ordered} {precision:?}");
        // Scales are f16; the sum is rounded twice. A table of minima is made of larger numbers.
        let limit = 4.0 * unit.max(1.0 / 1024.0);
        out.push(Outcome::of(name, &got, &want, scale, limit));
    }
}

fn selections<G: Gpu>(open: Open<'_, G>, out: &mut Vec<Outcome>) {
    for (precision, _) in PRECISIONS {
        let mut device = open(config(precision, 8));
        for (from, to) in [
            (Kept::Exact, Kept::Rounded),
            (Kept::Rounded, Kept::Exact),
            (Kept::Exact, Kept::Exact),
            (Kept::Rounded, Kept::Rounded),
        ] {
            for width in [1, 7, 32, 1020] {
                let x = Numbers::new(width as u64).list(5 * width, 1.0);
                let kept = device.put(5, &x, from);
                let found = device.blank(4, width, to);
                let picked = [4, 0, 0, 2];
                let picked_list = list(&mut device, &picked);
                let gather = Gather::load(device.gpu()).expect("kernels");
                let mut record = Record::default();
                gather.select(&mut record, 4, picked_list, &kept, &found);
                record.queue(device.gpu());
                device.gpu().synchronize().expect("no fault");
                let want: Vec<f32> = picked
                    .iter()
                    .flat_map(|&row| all_rounded(kept.kind, &x[row as usize * width..][..width]))
                    .map(|value| rounded(found.kind, value))
                    .collect();
                let name = format!("select {width} {:?} to {:?}", kept.kind, found.kind);
                let got = device.get(&found, 4);
                out.push(Outcome::of(name, &got, &want, 1.0, 0.0));
            }
        }
    }
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    tables(open, false, &mut out);
    tables(open, true, &mut out);
    selections(open, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn equal_the_reference() {
        check(super::cases);
    }
}
