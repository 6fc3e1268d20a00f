//! Packing compiled once for each of the formats that most files are in: with the format known,
//! taking a block apart is a few vector instructions.

use kernels::{Format, Group};

use super::rows::{Row, RowBlock};

/// Whose format is known to the compiler, or is looked up row by row.
pub(super) trait Take: Copy {
    /// The format of a row that is packed.
    fn of(self, row: &Row<'_>) -> Format;
}

/// Entry `F` of [`COMMON`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Common<const F: usize>;

impl<const F: usize> Take for Common<F> {
    #[inline(always)]
    fn of(self, _: &Row<'_>) -> Format {
        COMMON[F]
    }
}

/// Any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Any;

impl Take for Any {
    #[inline(always)]
    fn of(self, row: &Row<'_>) -> Format {
        row.format
    }
}

/// Formats with code of their own.
pub(super) const COMMON: [Format; 13] = [
    Format::Q4_0,
    Format::Q8_0,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq4Xs,
    Format::Mxfp4,
    Format::U4(Group::G32),
    Format::U4(Group::G64),
    Format::U4(Group::G128),
    Format::U8(Group::G128),
    Format::Nf4,
];

/// Work that is compiled per format.
pub(super) trait Job {
    /// Does it.
    fn run<T: Take>(self, take: T);
}

/// Runs a job in its version for the format of these rows, if they are of one.
pub(super) fn dispatch(rows: &RowBlock<'_>, job: impl Job) {
    let mut formats = rows.iter().flatten().map(|row| row.format);
    let first = formats.next();
    let format = first.filter(|first| formats.all(|format| format == *first));
    macro_rules! versions {
        ($($at:literal)*) => {
            match COMMON.iter().position(|&common| Some(common) == format) {
                $(Some($at) => job.run(Common::<$at>),)*
                _ => job.run(Any),
            }
        };
    }
    versions!(0 1 2 3 4 5 6 7 8 9 10 11 12);
}
