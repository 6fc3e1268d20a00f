//! Values that two shapes both allow.

use super::object::lesser;
use super::pattern::Names;
use super::shape::{Array, Shape, Text};

impl Shape {
    /// What both allow, type by type. Where that cannot be said, why not.
    pub(super) fn meet(&self, other: &Self, names: &mut Names) -> Result<Self, String> {
        let number = match (&self.number, &other.number) {
            (Some(mine), Some(theirs)) => {
                let met = mine.meet(theirs);
                Some(met.ok_or("has steps of numbers without a common one that can be held to")?)
            }
            _ => None,
        };
        let object = match (&self.object, &other.object) {
            (Some(mine), Some(theirs)) => Some(mine.meet(theirs, names)?),
            _ => None,
        };
        let mut met = Self {
            null: self.null && other.null,
            yes: self.yes && other.yes,
            no: self.no && other.no,
            number,
            text: self.text.as_ref().zip(other.text.as_ref()).map(|(mine, it)| mine.meet(it)),
            array: self.array.as_ref().zip(other.array.as_ref()).map(|(mine, it)| mine.meet(it)),
            object,
        };
        met.prune();
        Ok(met)
    }

    /// What is also one of the scalars.
    pub(super) fn only(&self, scalars: &Self) -> Self {
        let number = self.number.as_ref().zip(scalars.number.as_ref());
        let mut met = Self {
            null: self.null && scalars.null,
            yes: self.yes && scalars.yes,
            no: self.no && scalars.no,
            // Single numbers have no step, so there is always a common one.
            number: number.and_then(|(mine, theirs)| mine.meet(theirs)),
            text: self.text.as_ref().zip(scalars.text.as_ref()).map(|(mine, it)| mine.meet(it)),
            array: None,
            object: None,
        };
        met.prune();
        met
    }

    /// Without arrays and objects.
    pub(super) fn only_scalars(&self) -> Self {
        Self { array: None, object: None, ..self.clone() }
    }
}

impl Text {
    fn meet(&self, other: &Self) -> Self {
        let mut met = self.clone();
        met.min = self.min.max(other.min);
        met.max = lesser(self.max, other.max);
        for pattern in &other.patterns {
            if !met.patterns.contains(pattern) {
                met.patterns.push(pattern.clone());
            }
        }
        for format in &other.formats {
            if !met.formats.contains(format) {
                met.formats.push(format);
            }
        }
        met.only = match (met.only.take(), &other.only) {
            (Some(mut mine), Some(theirs)) => {
                let theirs: std::collections::HashSet<&String> = theirs.iter().collect();
                mine.retain(|text| theirs.contains(text));
                Some(mine)
            }
            (mine, theirs) => mine.or_else(|| theirs.clone()),
        };
        met.sift();
        met
    }
}

impl Array {
    fn meet(&self, other: &Self) -> Self {
        let length = self.prefix.len().max(other.prefix.len());
        Self {
            prefix: (0..length).map(|at| self.item(at).and(other.item(at))).collect(),
            rest: self.rest.and(&other.rest),
            min: self.min.max(other.min),
            max: lesser(self.max, other.max),
        }
    }
}
