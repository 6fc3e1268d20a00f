//! The metadata values of a GGUF file, read without copying: strings and arrays stay ranges of
//! the file until somebody asks for them.
//!
//! Source: the GGUF specification (ggml, `docs/gguf.md`). Errors here are plain text; the reader
//! of the whole file adds its name.

use std::ops::Range;

use super::shown;

/// Arrays in arrays are allowed by the format and used by nobody.
const DEPTH_MAX: u32 = 4;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array { kind: Kind, count: usize, place: Range<usize> },
}

impl Value {
    /// For messages.
    pub(super) fn describe(&self, file: &[u8]) -> String {
        match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Text(place) => {
                format!("{:?}", shown(&String::from_utf8_lossy(&file[place.clone()])))
            }
            Self::Array { count, .. } => format!("a list of {count}"),
        }
    }

    /// Any number or flag as f64; integers beyond 2^53 lose their last bits.
    pub(super) fn number(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(number) => Some(number as f64),
            Self::Signed(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            Self::Bool(flag) => Some(f64::from(u8::from(flag))),
            _ => None,
        }
    }

    /// A whole number from 0.
    pub(super) fn whole(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(number) => Some(number),
            Self::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }
}

/// Types of values, by their number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_number(number: u32) -> Result<Self, String> {
        const ALL: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        let known = ALL.get(number as usize).copied();
        known.ok_or_else(|| format!("value type {number} is not defined"))
    }

    /// Bytes of a value; `None` where they vary.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A place in the file that only moves forward and never past the end.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let left = &self.bytes[self.at..];
        let Some(taken) = left.get(..len) else {
            return Err(format!(
                "cut off: {len} bytes are wanted at offset {}, {} are left",
                self.at,
                left.len()
            ));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length or count, which must fit the address space.
    fn size(&mut self) -> Result<usize, String> {
        let size = self.u64()?;
        usize::try_from(size).map_err(|_| format!("length {size} is absurd"))
    }

    /// The range of a string's bytes.
    fn text_place(&mut self) -> Result<Range<usize>, String> {
        let len = self.size()?;
        let start = self.at;
        self.take(len)?;
        Ok(start..self.at)
    }

    /// A string.
    pub(super) fn text(&mut self) -> Result<&'a str, String> {
        let place = self.text_place()?;
        let start = place.start;
        std::str::from_utf8(&self.bytes[place])
            .map_err(|_| format!("the string at offset {start} is not UTF-8"))
    }

    /// A value with the number of its type before it.
    pub(super) fn value(&mut self) -> Result<Value, String> {
        let kind = Kind::from_number(self.u32()?)?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: Kind, depth: u32) -> Result<Value, String> {
        Ok(match kind {
            Kind::U8 => Value::Unsigned(self.array::<1>()?[0].into()),
            Kind::I8 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            Kind::U16 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            Kind::I16 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            Kind::U32 => Value::Unsigned(self.u32()?.into()),
            Kind::I32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            Kind::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            Kind::Bool => match self.array::<1>()?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(format!("{other} is neither true nor false")),
            },
            Kind::Text => Value::Text(self.text_place()?),
            Kind::Array => self.list(depth)?,
            Kind::U64 => Value::Unsigned(self.u64()?),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
        })
    }

    fn list(&mut self, depth: u32) -> Result<Value, String> {
        let kind = Kind::from_number(self.u32()?)?;
        let count = self.size()?;
        if depth == DEPTH_MAX {
            return Err(format!("lists in lists, {DEPTH_MAX} deep"));
        }
        let start = self.at;
        if let Some(size) = kind.size() {
            let bytes = count.checked_mul(size);
            self.take(bytes.ok_or_else(|| format!("a list of {count} values is absurd"))?)?;
        } else {
            // Every element takes 8 bytes at least, so a false count ends at the file's end.
            for _ in 0..count {
                self.value_of(kind, depth + 1)?;
            }
        }
        Ok(Value::Array { kind, count, place: start..self.at })
    }

    /// The elements of a checked array, one by one.
    pub(super) fn elements(
        &mut self,
        kind: Kind,
        count: usize,
    ) -> impl Iterator<Item = Result<Value, String>> {
        (0..count).map(move |_| self.value_of(kind, DEPTH_MAX))
    }
}
