//! The header of a safetensors file: which tensors it holds and where.
//!
//! Layout (huggingface/safetensors, format section of its README): 8 bytes of header length,
//! little endian; a JSON object from tensor name to `dtype`, `shape` and `data_offsets`; the data.
//! The parser is our own because it must bound every allocation by the file and name the tensor
//! in every error. It does not know which tensors a model needs.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use kernels::Format;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{LoadError, check_overlap, shape_text, shown};

/// The format's own limit of the header.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// More dimensions than any tensor of a decoder has.
const DIMS_MAX: usize = 8;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Element type as the file spells it: `BF16`.
    pub dtype: Element,
    /// Outermost dimension first.
    pub shape: Shape,
    /// Where its data lies, from the start of the file.
    pub place: Range<usize>,
}

/// Element types of the format, by their size. Only the floating point ones that the kernels
/// read have a [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// As the file spells it.
    pub name: &'static str,
    /// Size of one element in bits.
    pub bits: u64,
    /// The kernels' format for it.
    pub format: Option<Format>,
}

const fn plain(name: &'static str, bits: u64) -> Element {
    Element { name, bits, format: None }
}

/// All element types that the format defines.
const ELEMENTS: [Element; 20] = [
    Element { name: "F32", bits: 32, format: Some(Format::F32) },
    Element { name: "F16", bits: 16, format: Some(Format::F16) },
    Element { name: "BF16", bits: 16, format: Some(Format::Bf16) },
    plain("F64", 64),
    plain("F8_E4M3", 8),
    plain("F8_E5M2", 8),
    plain("F8_E8M0", 8),
    plain("F6_E2M3", 6),
    plain("F6_E3M2", 6),
    plain("F4", 4),
    plain("C64", 64),
    plain("BOOL", 8),
    plain("U8", 8),
    plain("I8", 8),
    plain("U16", 16),
    plain("I16", 16),
    plain("U32", 32),
    plain("I32", 32),
    plain("U64", 64),
    plain("I64", 64),
];

/// Dimensions without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    len: usize,
    dims: [u64; DIMS_MAX],
}

impl Shape {
    /// Outermost first.
    #[must_use]
    pub fn dims(&self) -> &[u64] {
        &self.dims[..self.len]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

/// Reads and checks the header of a whole file.
///
/// # Errors
/// Anything that does not fit the file: lengths, types, shapes, offsets, overlaps, names twice.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Entry>, LoadError> {
    let wrong = |problem: String| LoadError::new(file, problem);
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(wrong(format!("has {} bytes, too few for a safetensors file", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX || length > rest.len() as u64 {
        return Err(wrong(format!(
            "its header claims {length} bytes, the file has {}; it is cut off or not safetensors",
            bytes.len()
        )));
    }
    let (header, data) = rest.split_at(length as usize);
    let raw: Header = serde_json::from_slice(header)
        .map_err(|e| wrong(format!("the header is not what safetensors defines: {e}")))?;
    let mut entries = BTreeMap::new();
    for (name, tensor) in raw.0 {
        let entry = tensor
            .check(8 + header.len(), data.len())
            .map_err(|e| wrong(format!("tensor {}: {e}", shown(&name))))?;
        entries.insert(name, entry);
    }
    let place = |entry: &Entry| (entry.place.start as u64, entry.place.end as u64);
    let places = entries.iter().map(|(name, entry)| {
        let (start, end) = place(entry);
        (start, end, name.as_str())
    });
    check_overlap(file, places.collect())?;
    Ok(entries)
}

/// Header entries as spelled, each name once.
struct Header(BTreeMap<String, RawTensor>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Element,
    shape: Shape,
    data_offsets: [u64; 2],
}

impl RawTensor {
    fn check(self, data_start: usize, data_len: usize) -> Result<Entry, String> {
        let [start, end] = self.data_offsets;
        if start > end || end > data_len as u64 {
            return Err(format!(
                "data from {start} to {end} does not lie in the file's {data_len} bytes of data"
            ));
        }
        let dims = self.shape.dims();
        let elements = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let bits = elements.and_then(|elements| elements.checked_mul(self.dtype.bits));
        if bits != Some((end - start) * 8) {
            return Err(format!(
                "{} elements of {} do not take the {} bytes that it claims",
                shape_text(dims),
                self.dtype.name,
                end - start
            ));
        }
        let place = data_start + start as usize..data_start + end as usize;
        Ok(Entry { dtype: self.dtype, shape: self.shape, place })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tensor names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let tensor = map.next_value::<RawTensor>().map_err(|e| {
                        serde::de::Error::custom(format!("tensor {}: {e}", shown(&name)))
                    })?;
                    if tensors.contains_key(&name) {
                        let problem = format!("tensor {} occurs twice", shown(&name));
                        return Err(serde::de::Error::custom(problem));
                    }
                    tensors.insert(name, tensor);
                }
                Ok(Header(tensors))
            }
        }
        from.deserialize_map(Names)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an element type")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Element, E> {
                let known = ELEMENTS.iter().find(|element| element.name == name);
                known
                    .copied()
                    .ok_or_else(|| E::custom(format!("element type {} is not known", shown(name))))
            }
        }
        from.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {DIMS_MAX} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut shape = Shape { len: 0, dims: [0; DIMS_MAX] };
                while let Some(dim) = list.next_element()? {
                    if shape.len == DIMS_MAX {
                        return Err(serde::de::Error::invalid_length(DIMS_MAX + 1, &self));
                    }
                    shape.dims[shape.len] = dim;
                    shape.len += 1;
                }
                Ok(shape)
            }
        }
        from.deserialize_seq(Dims)
    }
}
