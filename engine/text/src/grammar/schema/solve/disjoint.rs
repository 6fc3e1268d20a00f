//! That the options of a `oneOf` exclude each other: a grammar cannot say "exactly one".

use std::collections::{HashMap, HashSet};

use super::{Part, Partial, Solver};
use crate::grammar::schema::SchemaError;
use crate::grammar::schema::shape::{Goal, Shape};

/// How deep in required properties and items it is looked for what two options disagree on.
const DEPTH_MAX: usize = 3;

impl Solver {
    /// That at most one option can hold; `base` is what holds besides.
    pub(super) fn check_exclusive(
        &mut self,
        id: u32,
        at: usize,
        base: &Shape,
    ) -> Result<(), SchemaError> {
        if self.exclusive.contains(&(id, at)) {
            return Ok(());
        }
        let own = self.raws.list[id as usize].own.clone();
        let options = self.raws.list[id as usize].choices[at].options.clone();
        if self.discriminated(&options, &own)? || self.each_pair(&options, &own)?.is_none() {
            // Of what the schema says by itself, so it holds wherever it stands.
            self.exclusive.insert((id, at));
            return Ok(());
        }
        let Some((a, b)) = self.each_pair(&options, base)? else { return Ok(()) };
        let why = format!(
            "cannot be enforced: options {a} and {b} are not seen to exclude each other \
             (use 'anyOf', or give each a required property with a 'const' of its own)"
        );
        Err(SchemaError::new(&self.raws.path(id), "oneOf", why))
    }

    /// The shapes of some schemas and a shape together.
    fn together(&mut self, pieces: &[u32], base: &Shape) -> Result<Vec<Shape>, SchemaError> {
        let start =
            Partial { shape: base.clone(), seen: HashSet::new(), choices: Vec::new(), chosen: 0 };
        let mut found = Vec::new();
        let parts = pieces.iter().map(|id| Part::All(*id)).collect();
        self.combine(start, parts, false, &mut found)?;
        self.finish(pieces, &mut found)?;
        Ok(found)
    }

    /// Two options that may both hold.
    fn each_pair(
        &mut self,
        options: &[u32],
        base: &Shape,
    ) -> Result<Option<(usize, usize)>, SchemaError> {
        for (b, second) in options.iter().enumerate() {
            for (a, first) in options[..b].iter().enumerate() {
                let both = self.together(&[*first, *second], base)?;
                if !self.all_empty(&both, DEPTH_MAX)? {
                    return Ok(Some((a, b)));
                }
            }
        }
        Ok(None)
    }

    fn all_empty(&mut self, shapes: &[Shape], depth: usize) -> Result<bool, SchemaError> {
        for shape in shapes {
            if !self.is_empty(shape, depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_empty(&mut self, shape: &Shape, depth: usize) -> Result<bool, SchemaError> {
        if !shape.only_scalars().is_none() {
            return Ok(false);
        }
        if let Some(array) = &shape.array {
            let needed = usize::try_from(array.min).unwrap_or(usize::MAX);
            let looked = needed.min(array.prefix.len() + 1);
            if !self.any_never((0..looked).map(|at| array.item(at)), depth)? {
                return Ok(false);
            }
        }
        if let Some(object) = &shape.object {
            let index = object.index();
            let needed = object.required.iter().filter_map(|name| index.get(name.as_str()));
            if !self.any_never(needed.copied(), depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether one of the goals has no instance, plainly.
    fn any_never<'a>(
        &mut self,
        goals: impl Iterator<Item = &'a Goal>,
        depth: usize,
    ) -> Result<bool, SchemaError> {
        for goal in goals {
            let goal = self.canonical(goal);
            if depth == 0 || goal.0.is_empty() {
                continue;
            }
            let shapes = self.together(&goal.0, &Shape::any())?;
            if self.all_empty(&shapes, depth - 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether one required property has other single values in each option. It is what most have,
    /// and takes no look at each pair.
    fn discriminated(&mut self, options: &[u32], base: &Shape) -> Result<bool, SchemaError> {
        let mut objects = Vec::with_capacity(options.len());
        for option in options {
            let mut shapes = self.together(&[*option], base)?;
            let plain = shapes.len() == 1 && shapes[0].array.is_none();
            let scalars = shapes.first().is_none_or(|it| !it.only_scalars().is_none());
            match shapes.pop().and_then(|shape| shape.object) {
                Some(object) if plain && !scalars => objects.push(object),
                _ => return Ok(false),
            }
        }
        for name in objects.first().map_or(&[][..], |first| &first.required[..]).to_vec() {
            let mut seen: HashMap<String, usize> = HashMap::new();
            let mut apart = true;
            for (at, object) in objects.iter().enumerate() {
                let goal = object.index().get(name.as_str()).map(|goal| self.canonical(goal));
                let goal = goal.filter(|_| object.required.contains(&name));
                let Some(values) = self.values(goal)? else {
                    apart = false;
                    break;
                };
                apart &= values.into_iter().all(|it| *seen.entry(it).or_insert(at) == at);
            }
            if apart {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The texts and numbers that a goal allows, if it allows nothing else.
    fn values(&mut self, goal: Option<Goal>) -> Result<Option<Vec<String>>, SchemaError> {
        let Some(goal) = goal.filter(|goal| !goal.0.is_empty()) else { return Ok(None) };
        let mut values = Vec::new();
        for shape in self.together(&goal.0, &Shape::any())? {
            let rest = Shape { text: None, number: None, ..shape.clone() };
            let texts = shape.text.map(|text| text.only);
            let numbers = shape.number.map(|number| number.only);
            if !rest.is_none() || texts == Some(None) || numbers == Some(None) {
                return Ok(None);
            }
            values.extend(texts.flatten().into_iter().flatten().map(|text| format!("\"{text}")));
            values.extend(numbers.flatten().into_iter().flatten().map(|it| it.to_string()));
        }
        Ok(Some(values))
    }
}
