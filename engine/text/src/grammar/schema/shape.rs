//! What values a schema allows, by their type.
//!
//! Keywords speak about one type each, so a schema without choices is one [`Shape`]: for each type
//! what of it is allowed. Two shapes meet type by type (see `meet`); a schema with choices is a
//! list of shapes. What stands inside arrays and objects is a [`Goal`]: schemas by number that all
//! must hold. Meeting two of them is joining the numbers, so recursion needs no care here.

use super::number::Number;
use super::object::Object;
use super::pattern::Names;
use super::{ENUM_FORMAT_MAX, PATTERNS_MAX, at_most};

/// Schemas, by number, that hold together; sorted. None of them: anything goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Goal(pub(super) Vec<u32>);

impl Goal {
    pub(super) fn one(id: u32) -> Self {
        Self(vec![id])
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let mut all = [&self.0[..], &other.0[..]].concat();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }
}

/// Values, by type.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) null: bool,
    pub(super) yes: bool,
    pub(super) no: bool,
    pub(super) number: Option<Number>,
    pub(super) text: Option<Text>,
    pub(super) array: Option<Array>,
    pub(super) object: Option<Object>,
}

/// Strings.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    /// These only.
    pub(super) only: Option<Vec<String>>,
    /// Lengths in code points.
    pub(super) min: u64,
    pub(super) max: Option<u64>,
    /// In the compiler's syntax, anchored; all hold.
    pub(super) patterns: Vec<String>,
    /// Formats that the compiler knows; all hold.
    pub(super) formats: Vec<&'static str>,
}

/// Arrays.
#[derive(Debug, Clone, Default)]
pub(super) struct Array {
    pub(super) prefix: Vec<Goal>,
    pub(super) rest: Goal,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
}

impl Shape {
    pub(super) fn any() -> Self {
        Self {
            null: true,
            yes: true,
            no: true,
            number: Some(Number::default()),
            text: Some(Text::default()),
            array: Some(Array::default()),
            object: Some(Object::default()),
        }
    }

    pub(super) fn none() -> Self {
        Self {
            null: false,
            yes: false,
            no: false,
            number: None,
            text: None,
            array: None,
            object: None,
        }
    }

    pub(super) fn is_none(&self) -> bool {
        !(self.null || self.yes || self.no)
            && self.number.is_none()
            && self.text.is_none()
            && self.array.is_none()
            && self.object.is_none()
    }

    pub(super) fn is_any(&self) -> bool {
        let Self { null, yes, no, number, text, array, object } = self;
        *null
            && *yes
            && *no
            && number.as_ref().is_some_and(Number::is_any)
            && text.as_ref().is_some_and(Text::is_any)
            && array.as_ref().is_some_and(Array::is_any)
            && object.as_ref().is_some_and(Object::is_any)
    }

    /// About how much there is of it: names and single values.
    pub(super) fn weight(&self) -> usize {
        let object = self.object.as_ref();
        object.map_or(0, |it| it.properties.len() + it.required.len())
            + self.array.as_ref().map_or(0, |array| array.prefix.len())
            + self.text.as_ref().and_then(|it| it.only.as_ref()).map_or(0, Vec::len)
            + self.number.as_ref().and_then(|it| it.only.as_ref()).map_or(0, Vec::len)
    }

    /// So small that it may be written in many places.
    pub(super) fn is_small(&self) -> bool {
        let patterns = self.text.iter().flat_map(|text| &text.patterns).map(String::len);
        self.array.is_none()
            && self.object.is_none()
            && self.weight() <= 16
            && patterns.sum::<usize>() <= 256
    }

    /// Leaves out types of which nothing is left.
    pub(super) fn prune(&mut self) {
        self.number = self.number.take().filter(|number| !number.is_empty());
        self.text = self.text.take().filter(|text| !text.is_empty());
        self.array = self.array.take().filter(|array| !array.is_empty());
        self.object = self.object.take().filter(|object| !object.is_empty());
    }
}

impl Text {
    pub(super) fn is_any(&self) -> bool {
        self.only.is_none()
            && self.min == 0
            && self.max.is_none()
            && self.patterns.is_empty()
            && self.formats.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.max.is_some_and(|max| max < self.min) || self.only.as_ref().is_some_and(Vec::is_empty)
    }

    /// Leaves out values that the patterns do not match, and finds whether any string does.
    pub(super) fn finish(&mut self, names: &mut Names) -> Result<(), String> {
        if self.patterns.len() > PATTERNS_MAX {
            return Err(format!("has patterns of one text whose number {}", at_most(PATTERNS_MAX)));
        }
        if let Some(only) = &mut self.only {
            let patterns = std::mem::take(&mut self.patterns);
            only.retain(|text| patterns.iter().all(|pattern| names.matches(pattern, text)));
            (self.min, self.max) = (0, None);
            if !self.formats.is_empty() && only.len() > ENUM_FORMAT_MAX {
                let most = at_most(ENUM_FORMAT_MAX);
                return Err(format!("has values beside a format whose number {most}"));
            }
            return Ok(());
        }
        match names.no_text(&self.patterns, self.min, self.max) {
            Some(true) => self.only = Some(Vec::new()),
            Some(false) => {}
            None => {
                let why = "has a pattern that is too much work with other patterns or lengths";
                return Err(why.to_owned());
            }
        }
        Ok(())
    }

    /// Leaves out values whose length is not allowed.
    pub(super) fn sift(&mut self) {
        let (min, max) = (self.min, self.max.unwrap_or(u64::MAX));
        if let Some(only) = &mut self.only {
            only.retain(|text| (min..=max).contains(&(text.chars().count() as u64)));
        }
    }
}

impl Array {
    pub(super) fn is_any(&self) -> bool {
        let Self { prefix, rest, min, max } = self;
        prefix.is_empty() && rest.0.is_empty() && *min == 0 && max.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.max.is_some_and(|max| max < self.min)
    }

    /// The schema of the item at `index`.
    pub(super) fn item(&self, index: usize) -> &Goal {
        self.prefix.get(index).unwrap_or(&self.rest)
    }
}
