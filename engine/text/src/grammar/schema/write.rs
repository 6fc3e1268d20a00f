//! Writes a solved schema in the few keywords that the compiler enforces.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::object::Object;
use super::shape::{Array, Shape, Text};
use super::solve::{Solved, goals};
use super::{DEPTH_MAX, OPTIONAL_COUNTED_MAX, OPTIONAL_MAX, SchemaError, WRITTEN_MAX, at_most};

/// The schema for the compiler.
pub(super) fn write(solved: &Solved) -> Result<Value, SchemaError> {
    let mut writer = Writer {
        solved,
        uses: uses(solved),
        written: HashMap::new(),
        definitions: Map::new(),
        depth: 0,
        count: 0,
    };
    let root = writer.node(0)?;
    let mut map = match root {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    if !writer.definitions.is_empty() {
        map.insert("$defs".to_owned(), Value::Object(writer.definitions));
    }
    Ok(Value::Object(map))
}

/// The least and the largest number of properties.
type Counts = (Option<u64>, Option<u64>);

/// How often each node stands in others.
fn uses(solved: &Solved) -> Vec<u32> {
    let mut uses = vec![0; solved.nodes.len()];
    uses[0] = 1;
    for goal in solved.nodes.iter().flat_map(|node| node.shapes.iter()).flat_map(goals) {
        uses[solved.node(goal)] += 1;
    }
    uses
}

struct Writer<'a> {
    solved: &'a Solved,
    uses: Vec<u32>,
    /// Nodes that have a definition.
    written: HashMap<usize, String>,
    definitions: Map<String, Value>,
    depth: usize,
    /// Schemas so far.
    count: usize,
}

impl Writer<'_> {
    /// A node: itself, or a reference to it.
    fn node(&mut self, id: usize) -> Result<Value, SchemaError> {
        let node = &self.solved.nodes[id];
        self.count += node.shapes.len().max(1);
        if self.count > WRITTEN_MAX {
            let why = format!("has more than {WRITTEN_MAX} parts when it is put together");
            return Err(SchemaError::whole("", why));
        }
        if !node.inhabited {
            return Ok(Value::Bool(false));
        }
        if node.shapes.iter().any(Shape::is_any) {
            return Ok(json!({}));
        }
        let small = node.shapes.iter().all(Shape::is_small);
        if self.uses[id] < 2 || small {
            return self.body(id);
        }
        let name = match self.written.get(&id) {
            Some(name) => name.clone(),
            None => {
                let name = format!("n{id}");
                self.written.insert(id, name.clone());
                let body = self.body(id)?;
                self.definitions.insert(name.clone(), body);
                name
            }
        };
        Ok(json!({"$ref": format!("#/$defs/{name}")}))
    }

    fn body(&mut self, id: usize) -> Result<Value, SchemaError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let why = format!("is nested more than {DEPTH_MAX} levels deep, references included");
            return Err(SchemaError::whole(&self.solved.nodes[id].path, why));
        }
        let solved = self.solved;
        let objects = solved.nodes[id].shapes.iter().filter_map(|shape| shape.object.as_ref());
        if objects.map(|object| self.longest_run(object) + 1).sum::<usize>() > OPTIONAL_MAX {
            let what = "has optional properties and choices of objects whose number";
            let why = format!("{what} {}", at_most(OPTIONAL_MAX));
            return Err(SchemaError::whole(&solved.nodes[id].path, why));
        }
        let mut options = Vec::new();
        for shape in solved.nodes[id].shapes.iter() {
            self.shape(id, shape, &mut options)?;
        }
        self.depth -= 1;
        Ok(match options.len() {
            1 => options.remove(0),
            _ => json!({"anyOf": options}),
        })
    }

    /// One schema for each type.
    fn shape(
        &mut self,
        id: usize,
        shape: &Shape,
        options: &mut Vec<Value>,
    ) -> Result<(), SchemaError> {
        let solved = self.solved;
        let path = &solved.nodes[id].path;
        if shape.null {
            options.push(json!({"type": "null"}));
        }
        match (shape.yes, shape.no) {
            (true, true) => options.push(json!({"type": "boolean"})),
            (false, false) => {}
            (yes, _) => options.push(json!({"const": yes})),
        }
        if let Some(number) = &shape.number {
            options.push(number.write().map_err(|why| SchemaError::whole(path, why))?);
        }
        options.extend(shape.text.as_ref().map(text_schema));
        if let Some(array) = shape.array.as_ref().filter(|array| self.solved.array_fits(array)) {
            options.push(self.array(array)?);
        }
        if let Some(object) = shape.object.as_ref().filter(|it| self.solved.object_fits(it)) {
            options.push(self.object(id, object)?);
        }
        Ok(())
    }

    fn array(&mut self, array: &Array) -> Result<Value, SchemaError> {
        let mut written = json!({"type": "array"});
        let mut prefix = Vec::with_capacity(array.prefix.len());
        for goal in &array.prefix {
            prefix.push(self.node(self.solved.node(goal))?);
        }
        if !prefix.is_empty() {
            written["prefixItems"] = Value::Array(prefix);
        }
        if !array.rest.0.is_empty() {
            written["items"] = self.node(self.solved.node(&array.rest))?;
        }
        if array.min > 0 {
            written["minItems"] = json!(array.min);
        }
        if let Some(max) = array.max {
            written["maxItems"] = json!(max);
        }
        Ok(written)
    }

    fn object(&mut self, id: usize, object: &Object) -> Result<Value, SchemaError> {
        let mut written = json!({"type": "object"});
        let path = &self.solved.nodes[id].path;
        let counts = self.counts(object);
        let (min, max) = counts.map_err(|(keyword, why)| SchemaError::new(path, keyword, why))?;
        for (name, members) in
            [("properties", &object.properties), ("patternProperties", &object.patterns)]
        {
            let mut map = Map::new();
            for (key, goal) in members {
                map.insert(key.clone(), self.node(self.solved.node(goal))?);
            }
            if !map.is_empty() {
                written[name] = Value::Object(map);
            }
        }
        if !object.rest.0.is_empty() {
            written["additionalProperties"] = self.node(self.solved.node(&object.rest))?;
        }
        if !object.required.is_empty() {
            written["required"] = json!(object.required);
        }
        if let Some(min) = min {
            written["minProperties"] = json!(min);
        }
        if let Some(max) = max {
            written["maxProperties"] = json!(max);
        }
        Ok(written)
    }

    /// Optional properties in a row, at most.
    fn longest_run(&self, object: &Object) -> usize {
        let required: HashSet<&String> = object.required.iter().collect();
        let runs = object.properties.split(|(name, _)| required.contains(name));
        runs.map(<[_]>::len).max().unwrap_or(0)
    }

    /// Counts of properties that still say something. The compiler counts members that are not
    /// named, where all that are named are required; and it may write one name of theirs twice.
    fn counts(&self, object: &Object) -> Result<Counts, (&'static str, String)> {
        let lives = |goal| self.solved.nodes[self.solved.node(goal)].inhabited;
        let required = object.required.len() as u64;
        let named = object.properties.iter().filter(|(_, goal)| lives(goal)).count() as u64;
        let open = lives(&object.rest) || object.patterns.iter().any(|(_, goal)| lives(goal));
        let min = Some(object.min).filter(|min| *min > required);
        let max = object.max.filter(|max| open || *max < named);
        let optional = named - required;
        if min.is_none() && max.is_none() {
            return Ok((None, None));
        }
        if min.is_some_and(|min| min > named && !open) {
            return Err(("minProperties", "asks for more properties than there are".to_owned()));
        }
        let one = |count: Option<u64>| count.is_none_or(|count| count == required + 1);
        let held = match (optional, open) {
            // "One of them", "at most one", "at least one".
            (1.., false) if optional > OPTIONAL_COUNTED_MAX as u64 => false,
            (1.., false) => one(min) && one(max) && object.patterns.is_empty(),
            (1.., true) => false,
            (0, _) => one(min),
        };
        if held {
            return Ok((min, max));
        }
        let keyword = if min.is_some() { "minProperties" } else { "maxProperties" };
        Err((keyword, "cannot be enforced here: optional properties are not counted".to_owned()))
    }
}

fn text_schema(text: &Text) -> Value {
    let mut written = json!({"type": "string"});
    if let Some(only) = &text.only {
        written["enum"] = json!(only);
    }
    if text.min > 0 {
        written["minLength"] = json!(text.min);
    }
    if let Some(max) = text.max {
        written["maxLength"] = json!(max);
    }
    let patterns = text.patterns.iter().map(|it| json!({"type": "string", "pattern": it}));
    let formats = text.formats.iter().map(|it| json!({"type": "string", "format": it}));
    let parts: Vec<Value> = patterns.chain(formats).collect();
    if !parts.is_empty() {
        written["allOf"] = Value::Array(parts);
    }
    written
}
