//! What the pieces of a schema mean together.
//!
//! A goal (pieces that hold together) becomes a list of shapes: what its pieces say is met, and
//! each `anyOf` multiplies. Goals inside of arrays and objects are solved by themselves, once
//! each, so recursion ends. Then it is found which goals have any finite instance.

mod disjoint;
mod instances;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::read::{ROOT, Raws};
use super::shape::{Goal, Shape};
use super::{STEPS_MAX, SUBSCHEMAS_MAX, SchemaError};

/// Choices within choices, before a value begins: each costs some KiB of stack.
const CHOSEN_MAX: usize = 64;

/// A schema, solved.
pub(super) struct Solved {
    pub(super) nodes: Vec<Node>,
    index: HashMap<Goal, u32>,
    aliases: Vec<Option<u32>>,
    never: u32,
}

/// A goal, solved.
pub(super) struct Node {
    pub(super) path: String,
    pub(super) shapes: Rc<Vec<Shape>>,
    /// Some finite value meets it, as far as can be told without its patterns.
    pub(super) inhabited: bool,
}

impl Solved {
    /// The node of a goal that stands in a shape.
    pub(super) fn node(&self, goal: &Goal) -> usize {
        self.index[&canonical(goal, &self.aliases, self.never)] as usize
    }
}

/// Goals inside of a shape, in the order in which they are written.
pub(super) fn goals(shape: &Shape) -> impl Iterator<Item = &Goal> {
    let array = shape.array.iter().flat_map(|array| array.prefix.iter().chain([&array.rest]));
    let object = shape.object.iter().flat_map(|object| {
        let properties = object.properties.iter().chain(&object.patterns).map(|(_, goal)| goal);
        properties.chain([&object.rest])
    });
    array.chain(object)
}

/// The same goal, in as few pieces as can be.
fn canonical(goal: &Goal, aliases: &[Option<u32>], never: u32) -> Goal {
    let mut pieces: Vec<u32> = goal.0.iter().filter_map(|id| aliases[*id as usize]).collect();
    pieces.sort_unstable();
    pieces.dedup();
    if pieces.contains(&never) { Goal::one(never) } else { Goal(pieces) }
}

/// For each piece the one that says the same; none where it says nothing.
fn aliases(raws: &Raws) -> Vec<Option<u32>> {
    let alias = |mut id: u32| loop {
        let raw = &raws.list[id as usize];
        let plain = raw.own.is_any() && raw.choices.is_empty() && raw.names.is_none();
        match &raw.all[..] {
            [] if plain => return None,
            [one] if plain => id = *one,
            _ => return Some(id),
        }
    };
    (0..raws.list.len()).map(|id| alias(u32::try_from(id).unwrap_or(u32::MAX))).collect()
}

/// Solves a schema. An error if no value meets it.
pub(super) fn solve(raws: Raws) -> Result<Solved, SchemaError> {
    let aliases = aliases(&raws);
    let never = raws.never;
    let mut solver = Solver {
        raws,
        aliases,
        shapes: HashMap::new(),
        exclusive: HashSet::new(),
        steps: 0,
        nesting: 0,
    };
    let mut solved =
        Solved { nodes: Vec::new(), index: HashMap::new(), aliases: Vec::new(), never };
    let root = solver.canonical(&Goal::one(ROOT));
    let mut open = vec![root.clone()];
    solved.index.insert(root, 0);
    let mut next = 0;
    while next < open.len() {
        let shapes = solver.expand(&open[next])?;
        for goal in shapes.iter().flat_map(goals) {
            let goal = solver.canonical(goal);
            if solved.index.contains_key(&goal) {
                continue;
            }
            if open.len() >= SUBSCHEMAS_MAX {
                let why = format!("has more than {SUBSCHEMAS_MAX} parts when it is put together");
                return Err(SchemaError::whole("", why));
            }
            solved.index.insert(goal.clone(), u32::try_from(open.len()).unwrap_or(u32::MAX));
            open.push(goal);
        }
        let path = open[next].0.first().map_or_else(String::new, |id| solver.raws.path(*id));
        solved.nodes.push(Node { path, shapes, inhabited: false });
        next += 1;
    }
    solved.aliases = solver.aliases;
    instances::find(&mut solved)?;
    Ok(solved)
}

struct Solver {
    raws: Raws,
    aliases: Vec<Option<u32>>,
    shapes: HashMap<Goal, Rc<Vec<Shape>>>,
    /// `oneOf`s, by schema and place, whose options exclude each other.
    exclusive: HashSet<(u32, usize)>,
    steps: usize,
    nesting: usize,
}

/// What has been put together so far.
#[derive(Clone)]
struct Partial {
    shape: Shape,
    seen: HashSet<u32>,
    /// `anyOf`s and `oneOf`s to choose from: schema and place.
    choices: Vec<(u32, usize)>,
    /// Options chosen.
    chosen: usize,
}

/// What to put in next.
#[derive(Clone, Copy)]
enum Part {
    /// A schema with all that holds with it.
    All(u32),
    /// What it says by itself.
    Own(u32),
}

impl Solver {
    fn canonical(&self, goal: &Goal) -> Goal {
        canonical(goal, &self.aliases, self.raws.never)
    }

    /// Counts work on a shape.
    fn step(&mut self, shape: &Shape) -> Result<(), SchemaError> {
        self.steps += 1 + shape.weight() / 4;
        if self.steps > STEPS_MAX || self.raws.names.exhausted() {
            let why = "takes too many steps to put together: it combines too many choices, or \
                       patterns and texts";
            return Err(SchemaError::whole("", why));
        }
        Ok(())
    }

    /// The shapes of a goal.
    fn expand(&mut self, goal: &Goal) -> Result<Rc<Vec<Shape>>, SchemaError> {
        let goal = self.canonical(goal);
        if let Some(known) = self.shapes.get(&goal) {
            return Ok(Rc::clone(known));
        }
        let start =
            Partial { shape: Shape::any(), seen: HashSet::new(), choices: Vec::new(), chosen: 0 };
        let parts = goal.0.iter().map(|id| Part::All(*id)).collect();
        let mut found = Vec::new();
        self.combine(start, parts, true, &mut found)?;
        self.finish(&goal.0, &mut found)?;
        let shapes = Rc::new(found);
        self.shapes.insert(goal, Rc::clone(&shapes));
        Ok(shapes)
    }

    /// Puts parts together, choosing in all ways. `checked`: that options of each `oneOf` exclude
    /// each other.
    fn combine(
        &mut self,
        mut so_far: Partial,
        mut parts: Vec<Part>,
        checked: bool,
        found: &mut Vec<Shape>,
    ) -> Result<(), SchemaError> {
        parts.reverse();
        while let Some(part) = parts.pop() {
            match part {
                Part::All(id) if so_far.seen.insert(id) => {
                    let raw = &self.raws.list[id as usize];
                    let mut next: Vec<Part> = raw.all.iter().map(|id| Part::All(*id)).collect();
                    next.insert(if raw.all_first { next.len() } else { 0 }, Part::Own(id));
                    parts.extend(next.into_iter().rev());
                    so_far.choices.extend((0..raw.choices.len()).map(|at| (id, at)));
                }
                Part::All(_) => {}
                Part::Own(id) => {
                    let own = self.own(id)?;
                    self.step(&so_far.shape)?;
                    let met = so_far.shape.meet(&own, &mut self.raws.names);
                    so_far.shape = met.map_err(|why| self.whole(id, why))?;
                    if so_far.shape.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        let Some((id, at)) = so_far.choices.pop() else {
            found.push(so_far.shape);
            return Ok(());
        };
        if checked && self.raws.list[id as usize].choices[at].exclusive {
            self.check_exclusive(id, at, &so_far.shape)?;
        }
        let options = self.raws.list[id as usize].choices[at].options.clone();
        for option in options {
            self.step(&so_far.shape)?;
            let mut next = so_far.clone();
            next.chosen += 1;
            if next.chosen > CHOSEN_MAX {
                let why = format!("chooses from 'anyOf' in one place more than {CHOSEN_MAX} times");
                return Err(self.whole(id, why));
            }
            self.combine(next, vec![Part::All(option)], checked, found)?;
        }
        Ok(())
    }

    /// Names what is required, and sifts texts by their patterns.
    fn finish(&mut self, pieces: &[u32], found: &mut Vec<Shape>) -> Result<(), SchemaError> {
        for shape in found.iter_mut() {
            if let Some(object) = &mut shape.object {
                object.name_required(&mut self.raws.names);
            }
            if let Some(text) = &mut shape.text {
                let id = pieces.first().copied().unwrap_or(ROOT);
                text.finish(&mut self.raws.names).map_err(|why| self.whole(id, why))?;
            }
            shape.prune();
        }
        found.retain(|shape| !shape.is_none());
        self.step(&Shape::none())
    }

    fn whole(&self, id: u32, why: impl Into<String>) -> SchemaError {
        SchemaError::whole(&self.raws.path(id), why)
    }

    /// What a schema says by itself, `propertyNames` among it.
    fn own(&mut self, id: u32) -> Result<Shape, SchemaError> {
        let raw = &self.raws.list[id as usize];
        let mut own = raw.own.clone();
        let Some(names) = raw.names else { return Ok(own) };
        let refused = "can be held to the names of an 'enum' only";
        let refused =
            |solver: &Self| SchemaError::new(&solver.raws.path(id), "propertyNames", refused);
        if self.nesting > 2 {
            return Err(refused(self));
        }
        self.nesting += 1;
        let shapes = self.expand(&Goal::one(names));
        self.nesting -= 1;
        let mut allowed: Vec<String> = Vec::new();
        for text in shapes?.iter().filter_map(|shape| shape.text.as_ref()) {
            match &text.only {
                _ if text.is_any() => return Ok(own),
                Some(only) if text.patterns.is_empty() && text.formats.is_empty() => {
                    allowed.extend(only.iter().cloned());
                }
                _ => return Err(refused(self)),
            }
        }
        super::object::unique(&mut allowed);
        let Raws { names, never, .. } = &mut self.raws;
        if let Some(object) = &mut own.object {
            object.only_names(&allowed, *never, names);
        }
        Ok(own)
    }
}
