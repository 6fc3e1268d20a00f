//! Which schemas have a finite instance: the least fixed point of "all that is required has one".

use std::collections::HashSet;

use super::Solved;
use crate::grammar::schema::SchemaError;
use crate::grammar::schema::object::Object;
use crate::grammar::schema::shape::{Array, Shape};

/// What one part of a node waits for: all of these nodes, of which some are known.
struct Wait {
    node: usize,
    needs: Vec<usize>,
    known: usize,
}

/// Marks the nodes that have an instance. An error if the whole has none.
pub(super) fn find(solved: &mut Solved) -> Result<(), SchemaError> {
    let mut ready: Vec<Wait> = Vec::new();
    for (id, node) in solved.nodes.iter().enumerate() {
        for shape in node.shapes.iter() {
            let parts = needs(solved, shape).into_iter();
            ready.extend(parts.map(|needs| Wait { node: id, needs, known: 0 }));
        }
    }
    // Each waits at the first node that is not known to have one.
    let mut waiting: Vec<Vec<Wait>> = solved.nodes.iter().map(|_| Vec::new()).collect();
    while let Some(mut wait) = ready.pop() {
        while wait.needs.get(wait.known).is_some_and(|need| solved.nodes[*need].inhabited) {
            wait.known += 1;
        }
        match wait.needs.get(wait.known) {
            Some(need) => waiting[*need].push(wait),
            None => {
                solved.nodes[wait.node].inhabited = true;
                ready.append(&mut waiting[wait.node]);
            }
        }
    }
    if solved.nodes[0].inhabited { Ok(()) } else { Err(blame(solved)) }
}

/// For each type that a shape allows, the nodes that must have an instance.
fn needs(solved: &Solved, shape: &Shape) -> Vec<Vec<usize>> {
    let mut parts = Vec::new();
    if !shape.only_scalars().is_none() {
        parts.push(Vec::new());
    }
    parts.extend(shape.array.as_ref().map(|array| array_needs(solved, array)));
    parts.extend(shape.object.as_ref().map(|object| object_needs(solved, object)));
    parts
}

fn array_needs(solved: &Solved, array: &Array) -> Vec<usize> {
    let needed = usize::try_from(array.min).unwrap_or(usize::MAX).min(array.prefix.len() + 1);
    (0..needed).map(|at| solved.node(array.item(at))).collect()
}

fn object_needs(solved: &Solved, object: &Object) -> Vec<usize> {
    let index = object.index();
    object.required.iter().map(|name| solved.node(index[name.as_str()])).collect()
}

impl Solved {
    /// Whether an array has an instance.
    pub(in crate::grammar::schema) fn array_fits(&self, array: &Array) -> bool {
        array_needs(self, array).into_iter().all(|id| self.nodes[id].inhabited)
    }

    /// Whether an object has an instance.
    pub(in crate::grammar::schema) fn object_fits(&self, object: &Object) -> bool {
        object_needs(self, object).into_iter().all(|id| self.nodes[id].inhabited)
    }
}

/// Where it is that nothing fits.
fn blame(solved: &Solved) -> SchemaError {
    let mut at = 0;
    let mut seen = HashSet::new();
    let mut path = String::new();
    loop {
        if !seen.insert(at) {
            return SchemaError::whole(&path, "requires itself without end: no finite value fits");
        }
        let node = &solved.nodes[at];
        if !node.path.is_empty() && node.path != "false" {
            path.clone_from(&node.path);
        }
        let mut all = node.shapes.iter().flat_map(|shape| needs(solved, shape)).flatten();
        match all.find(|id| !solved.nodes[*id].inhabited) {
            Some(next) => at = next,
            None => return SchemaError::whole(&path, "contradicts itself: no value fits"),
        }
    }
}
