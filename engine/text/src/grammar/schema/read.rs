//! Reads a schema into numbered pieces: what each says by itself, and which others must hold too.
//!
//! Here every keyword is understood or refused. What the pieces mean together is `solve`'s.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::format::{self, Format};
use super::object::unique;
use super::pattern::Names;
use super::shape::{Goal, Shape};
use super::values::{self, Wrong};
use super::{
    LITERAL_MAX, NAME_PATTERNS_MAX, NESTING_MAX, SUBSCHEMAS_MAX, SchemaError, at_most, keywords,
    object, refs,
};

/// Characters of a name that a path shows.
const SHOWN: usize = 60;

/// One schema within the schema.
pub(super) struct Raw {
    parent: u32,
    /// Its place in the parent.
    segment: String,
    /// What its own keywords say.
    pub(super) own: Shape,
    /// Schemas that hold too: `allOf`, `$ref`.
    pub(super) all: Vec<u32>,
    /// They come before its own properties.
    pub(super) all_first: bool,
    /// Of each, one schema holds too: `anyOf`, `oneOf`.
    pub(super) choices: Vec<Choice>,
    /// `propertyNames`.
    pub(super) names: Option<u32>,
    pub(super) reference: Option<String>,
}

/// Schemas of which at least one holds.
pub(super) struct Choice {
    pub(super) options: Vec<u32>,
    /// Exactly one.
    pub(super) exclusive: bool,
}

/// A whole schema, read.
pub(super) struct Raws {
    pub(super) list: Vec<Raw>,
    /// The schema that nothing meets.
    pub(super) never: u32,
    pub(super) names: Names,
}

impl Raws {
    /// From the root, in the syntax of error fields.
    pub(super) fn path(&self, mut id: u32) -> String {
        let mut segments = Vec::new();
        while id != ROOT {
            let raw = &self.list[id as usize];
            segments.push(raw.segment.as_str());
            id = raw.parent;
        }
        segments.reverse();
        segments.join(".")
    }

    pub(super) fn push(&mut self, parent: u32, segment: String) -> Result<u32, SchemaError> {
        if self.list.len() >= SUBSCHEMAS_MAX {
            let why = format!("has more than {SUBSCHEMAS_MAX} parts");
            return Err(SchemaError::whole("", why));
        }
        let id = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Raw {
            parent,
            segment,
            own: Shape::any(),
            all: Vec::new(),
            all_first: false,
            choices: Vec::new(),
            names: None,
            reference: None,
        });
        Ok(id)
    }
}

/// The number of the whole schema.
pub(super) const ROOT: u32 = 0;

/// Reads a schema.
pub(super) fn read(schema: &Value) -> Result<Raws, SchemaError> {
    let raws = Raws { list: Vec::new(), never: 0, names: Names::default() };
    let mut reader =
        Reader { raws, places: HashMap::new(), anchors: HashMap::new(), old: None, base: None };
    reader.raws.push(ROOT, String::new())?;
    reader.raws.never = reader.raws.push(ROOT, "false".to_owned())?;
    reader.raws.list[1].own = Shape::none();
    reader.fill(ROOT, schema, 0)?;
    let Reader { mut raws, places, anchors, base, .. } = reader;
    refs::link(&mut raws, schema, &places, &anchors, base)?;
    Ok(raws)
}

struct Reader<'a> {
    raws: Raws,
    /// Schemas by their place in memory.
    places: HashMap<*const Value, u32>,
    anchors: HashMap<&'a str, u32>,
    /// The draft that `$schema` names is before 2020-12. None: it names none.
    old: Option<bool>,
    base: Option<&'a str>,
}

type Keywords = Map<String, Value>;

impl<'a> Reader<'a> {
    fn child(
        &mut self,
        parent: u32,
        segment: String,
        value: &'a Value,
        nesting: usize,
    ) -> Result<u32, SchemaError> {
        let id = self.raws.push(parent, segment)?;
        self.fill(id, value, nesting + 1)?;
        Ok(id)
    }

    fn goal(
        &mut self,
        parent: u32,
        segment: String,
        value: &'a Value,
        nesting: usize,
    ) -> Result<Goal, SchemaError> {
        if value == &Value::Bool(false) {
            self.places.insert(std::ptr::from_ref(value), self.raws.never);
            return Ok(Goal::one(self.raws.never));
        }
        Ok(Goal::one(self.child(parent, segment, value, nesting)?))
    }

    fn fill(&mut self, id: u32, value: &'a Value, nesting: usize) -> Result<(), SchemaError> {
        if nesting > NESTING_MAX {
            let why = format!("is nested more than {NESTING_MAX} levels deep");
            return Err(SchemaError::whole(&self.raws.path(id), why));
        }
        self.places.insert(std::ptr::from_ref(value), id);
        match value {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) => {
                self.raws.list[id as usize].own = Shape::none();
                Ok(())
            }
            Value::Object(map) => self.map(id, map, nesting),
            _ => {
                let path = self.raws.path(id);
                Err(SchemaError::whole(&path, "must be an object or a boolean"))
            }
        }
    }

    fn map(&mut self, id: u32, map: &'a Keywords, nesting: usize) -> Result<(), SchemaError> {
        self.identity(id, map)?;
        for (name, value) in map {
            self.check(name, value).map_err(|why| self.wrong(id, (name, why)))?;
        }
        let mut own = values::types(map).map_err(|wrong| self.wrong(id, wrong))?;
        let has_types = !own.is_none();
        self.scalars(&mut own, map).map_err(|wrong| self.wrong(id, wrong))?;
        self.array(id, &mut own, map, nesting)?;
        self.object(id, &mut own, map, nesting)?;
        values::contradictions(&own, map).map_err(|wrong| self.wrong(id, wrong))?;
        own.prune();
        self.raws.list[id as usize].own = own;
        self.literals(id, map)?;
        if map.get("not").is_some_and(|not| trivial(not) == Some(true)) {
            self.raws.list[id as usize].own = Shape::none();
        } else if has_types && self.raws.list[id as usize].own.is_none() {
            let keyword = if map.contains_key("const") { "const" } else { "enum" };
            return Err(self.wrong(id, (keyword, "has no value that fits the rest".to_owned())));
        }
        self.parts(id, map, nesting)?;
        self.definitions(id, map, nesting)
    }

    fn wrong(&self, id: u32, (keyword, reason): Wrong) -> SchemaError {
        SchemaError::new(&self.raws.path(id), keyword, reason)
    }

    /// `$schema`, `$id`, anchors.
    fn identity(&mut self, id: u32, map: &'a Keywords) -> Result<(), SchemaError> {
        for name in ["$schema", "$id", "id", "$anchor", "$dynamicAnchor"] {
            let Some(value) = map.get(name) else { continue };
            let Some(text) = value.as_str() else {
                return Err(self.wrong(id, (name, "must be a string".to_owned())));
            };
            match name {
                "$anchor" | "$dynamicAnchor" => {
                    self.anchors.insert(text, id);
                }
                _ if id != ROOT => {
                    let why = "can be honoured at the schema's root only".to_owned();
                    return Err(self.wrong(id, (name, why)));
                }
                "$schema" => {
                    let old = refs::is_old(text).map_err(|why| self.wrong(id, (name, why)))?;
                    self.old = Some(old);
                }
                _ => self.base = Some(text),
            }
        }
        Ok(())
    }

    /// Keywords that are read nowhere else.
    fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        let cannot = || Err("cannot be enforced".to_owned());
        let emptied = |value: &Value| match value {
            Value::Object(map) => map.values().all(|it| it == &Value::Array(Vec::new())),
            _ => false,
        };
        match name {
            "nullable" if value == &Value::Bool(false) => Ok(()),
            "nullable" => Err("is not JSON Schema; let 'type' hold \"null\" instead".to_owned()),
            // An array of one item has no two that are equal; `array` reads it.
            "uniqueItems" if value.is_boolean() => Ok(()),
            "not" if trivial(value).is_some() => Ok(()),
            "unevaluatedItems" | "unevaluatedProperties" if trivial(value) == Some(true) => Ok(()),
            "dependentRequired" if emptied(value) => Ok(()),
            "dependentSchemas" if value.as_object().is_some_and(Map::is_empty) => Ok(()),
            "uniqueItems"
            | "not"
            | "unevaluatedItems"
            | "unevaluatedProperties"
            | "dependentRequired"
            | "dependentSchemas" => cannot(),
            _ if keywords::KNOWN.contains(&name) => Ok(()),
            _ => keywords::other(name),
        }
    }

    fn scalars(&mut self, own: &mut Shape, map: &'a Keywords) -> Result<(), Wrong<'a>> {
        let draft4 = self.old != Some(false);
        values::numbers(own.number.as_mut(), map, draft4)?;
        values::texts(own.text.as_mut(), map)?;
        let Some(format) = map.get("format") else { return Ok(()) };
        let wrong = |why: &str| Err(("format", why.to_owned()));
        let Some(name) = format.as_str() else { return wrong("must be a string") };
        if let Some(range) = format::number(name) {
            match (&mut own.number, range) {
                (None, _) => return wrong("is one of numbers, which are not allowed here"),
                (Some(number), Some(range)) => values::range(number, range),
                (Some(_), None) => {}
            }
            return Ok(());
        }
        let patterned = map.contains_key("pattern")
            || map
                .get("allOf")
                .and_then(Value::as_array)
                .is_some_and(|parts| parts.iter().any(|part| part.get("pattern").is_some()));
        let known = format::text(name, patterned);
        let Some(known) = known else {
            let shown: String = name.chars().take(SHOWN).collect();
            return Err(("format", format!("'{shown}' cannot be enforced")));
        };
        let Some(text) = &mut own.text else {
            return wrong("is one of strings, which are not allowed here");
        };
        match known {
            Format::Any => {}
            Format::Pattern(pattern) => text.patterns.push(pattern),
            Format::Compiler(name, longest) => {
                text.formats.push(name);
                text.max = object::lesser(text.max, longest);
                if name == "email" {
                    text.patterns.push(format::LOCAL_PART.to_owned());
                }
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        id: u32,
        own: &mut Shape,
        map: &'a Keywords,
        nesting: usize,
    ) -> Result<(), SchemaError> {
        let legacy = map.get("items").is_some_and(Value::is_array);
        let wrong = |name: &'static str, why: &str| Err((name, why.to_owned()));
        let checked = match (legacy, self.old) {
            (true, Some(false)) => wrong("items", "must be a schema in this draft"),
            (true, _) if map.contains_key("prefixItems") => {
                wrong("items", "must be a schema beside 'prefixItems'")
            }
            (false, Some(true)) if map.contains_key("prefixItems") => {
                wrong("prefixItems", "is not a keyword of this draft")
            }
            (false, _) if map.contains_key("additionalItems") => {
                wrong("additionalItems", "has no effect without an array of 'items'")
            }
            _ => Ok(()),
        };
        checked.map_err(|wrong| self.wrong(id, wrong))?;
        let (first, rest) =
            if legacy { ("items", "additionalItems") } else { ("prefixItems", "items") };
        let mut prefix = Vec::new();
        if let Some(value) = map.get(first) {
            let Some(values) = value.as_array() else {
                return Err(self.wrong(id, (first, "must be an array of schemas".to_owned())));
            };
            for (at, value) in values.iter().enumerate() {
                prefix.push(self.goal(id, format!("{first}[{at}]"), value, nesting)?);
            }
        }
        let rest = match map.get(rest) {
            Some(value) => self.goal(id, rest.to_owned(), value, nesting)?,
            None => Goal::default(),
        };
        let bounds = values::bounds(map, "minItems", "maxItems", super::ITEMS_MAX);
        let (min, max) = bounds.map_err(|wrong| self.wrong(id, wrong))?;
        if map.get("uniqueItems") == Some(&Value::Bool(true))
            && own.array.is_some()
            && max.is_none_or(|max| max > 1)
        {
            return Err(self.wrong(id, ("uniqueItems", "cannot be enforced".to_owned())));
        }
        if let Some(array) = &mut own.array {
            (array.prefix, array.rest, array.min, array.max) = (prefix, rest, min, max);
        }
        Ok(())
    }

    fn schemas(
        &mut self,
        id: u32,
        name: &'static str,
        map: &'a Keywords,
        nesting: usize,
    ) -> Result<Vec<(String, Goal)>, SchemaError> {
        let Some(value) = map.get(name) else { return Ok(Vec::new()) };
        let Some(members) = value.as_object() else {
            return Err(self.wrong(id, (name, "must be an object of schemas".to_owned())));
        };
        let mut goals = Vec::with_capacity(members.len());
        for (key, value) in members {
            let shown: String = key.chars().take(SHOWN).collect();
            if key.len() > LITERAL_MAX {
                let why = format!("has a name whose length {}", at_most(LITERAL_MAX));
                return Err(self.wrong(id, (name, why)));
            }
            goals.push((key.clone(), self.goal(id, format!("{name}.{shown}"), value, nesting)?));
        }
        Ok(goals)
    }

    fn object(
        &mut self,
        id: u32,
        own: &mut Shape,
        map: &'a Keywords,
        nesting: usize,
    ) -> Result<(), SchemaError> {
        let mut properties = self.schemas(id, "properties", map, nesting)?;
        let mut patterns: Vec<(String, Goal)> = Vec::new();
        let written = self.schemas(id, "patternProperties", map, nesting)?;
        if written.len() > NAME_PATTERNS_MAX {
            let why = format!("has a size that {}", at_most(NAME_PATTERNS_MAX));
            return Err(self.wrong(id, ("patternProperties", why)));
        }
        for (written, goal) in written {
            let wrong = |why| self.wrong(id, ("patternProperties", why));
            let translated = values::pattern(&written).map_err(wrong)?;
            let [pattern] = &translated[..] else {
                return Err(wrong("has a look-ahead, which cannot be enforced".to_owned()));
            };
            for (other, _) in &patterns {
                let disjoint = self.raws.names.disjoint(other, pattern);
                disjoint.map_err(|why| self.wrong(id, ("patternProperties", why)))?;
            }
            for (name, property) in &mut properties {
                if self.raws.names.matches(pattern, name) {
                    *property = property.and(&goal);
                }
            }
            patterns.push((pattern.clone(), goal));
        }
        let rest = match map.get("additionalProperties") {
            Some(value) => self.goal(id, "additionalProperties".to_owned(), value, nesting)?,
            None => Goal::default(),
        };
        let mut required = values::required(map).map_err(|wrong| self.wrong(id, wrong))?;
        unique(&mut required);
        let bounds = values::bounds(map, "minProperties", "maxProperties", super::ITEMS_MAX);
        let (min, max) = bounds.map_err(|wrong| self.wrong(id, wrong))?;
        if let Some(object) = &mut own.object {
            *object = object::Object { properties, patterns, rest, required, min, max };
            let never = Goal::one(self.raws.never);
            if let Some(name) = object.forbidden(&never, &mut self.raws.names) {
                let why = format!("names '{name}', which the rest of the schema forbids");
                return Err(self.wrong(id, ("required", why)));
            }
        }
        if let Some(value) = map.get("propertyNames") {
            let names = self.child(id, "propertyNames".to_owned(), value, nesting)?;
            self.raws.list[id as usize].names = Some(names);
        }
        Ok(())
    }

    /// `const` and `enum`.
    fn literals(&mut self, id: u32, map: &'a Keywords) -> Result<(), SchemaError> {
        let mut groups: Vec<(&'static str, &'a [Value])> = Vec::new();
        if let Some(value) = map.get("const") {
            groups.push(("const", std::slice::from_ref(value)));
        }
        if let Some(value) = map.get("enum") {
            let values = values::enumeration(value).map_err(|wrong| self.wrong(id, wrong))?;
            groups.push(("enum", values));
        }
        for (keyword, values) in groups {
            let (scalars, complex) =
                values::split(values).map_err(|why| self.wrong(id, (keyword, why)))?;
            if complex.is_empty() {
                let raw = &mut self.raws.list[id as usize];
                raw.own = raw.own.only(&scalars);
                continue;
            }
            let mut options = Vec::new();
            if !scalars.is_none() {
                options.push(self.raws.push(id, keyword.to_owned())?);
                self.raws.list[options[0] as usize].own = scalars;
            }
            for value in complex {
                options.push(values::value(&mut self.raws, id, keyword, value, 0)?);
            }
            let own = &self.raws.list[id as usize].own;
            let fits = |value: &&Value| match value {
                Value::Array(_) => own.array.is_some(),
                Value::Object(_) => own.object.is_some(),
                _ => !own.only_scalars().is_none(),
            };
            if !values.iter().any(|value| fits(&value)) {
                let why = "has no value that fits the rest".to_owned();
                return Err(self.wrong(id, (keyword, why)));
            }
            let choice = Choice { options, exclusive: false };
            self.raws.list[id as usize].choices.push(choice);
        }
        Ok(())
    }

    /// `allOf`, `anyOf`, `oneOf`, `$ref`.
    fn parts(&mut self, id: u32, map: &'a Keywords, nesting: usize) -> Result<(), SchemaError> {
        for (name, exclusive) in [("allOf", None), ("anyOf", Some(false)), ("oneOf", Some(true))] {
            let Some(value) = map.get(name) else { continue };
            let Some(values) = value.as_array().filter(|values| !values.is_empty()) else {
                let why = "must be an array of schemas, at least one".to_owned();
                return Err(self.wrong(id, (name, why)));
            };
            let mut parts = Vec::with_capacity(values.len());
            for (at, value) in values.iter().enumerate() {
                parts.push(self.child(id, format!("{name}[{at}]"), value, nesting)?);
            }
            let raw = &mut self.raws.list[id as usize];
            match exclusive {
                None => raw.all = parts,
                Some(exclusive) => raw.choices.push(Choice { options: parts, exclusive }),
            }
        }
        let raw = &mut self.raws.list[id as usize];
        raw.all_first = map.keys().find_map(|name| match name.as_str() {
            "properties" => Some(false),
            "allOf" | "$ref" => Some(true),
            _ => None,
        }) == Some(true);
        match map.get("$ref") {
            None => {}
            Some(Value::String(text)) => raw.reference = Some(text.clone()),
            Some(_) => return Err(self.wrong(id, ("$ref", "must be a string".to_owned()))),
        }
        Ok(())
    }

    fn definitions(
        &mut self,
        id: u32,
        map: &'a Keywords,
        nesting: usize,
    ) -> Result<(), SchemaError> {
        for name in ["$defs", "definitions"] {
            let Some(value) = map.get(name) else { continue };
            let Some(members) = value.as_object() else {
                return Err(self.wrong(id, (name, "must be an object of schemas".to_owned())));
            };
            for (key, value) in members {
                let shown: String = key.chars().take(SHOWN).collect();
                self.child(id, format!("{name}.{shown}"), value, nesting)?;
            }
        }
        Ok(())
    }
}

/// Whether a schema is met by everything, or by nothing. None: neither is plain.
fn trivial(schema: &Value) -> Option<bool> {
    match schema {
        Value::Bool(any) => Some(*any),
        Value::Object(map) if map.is_empty() => Some(true),
        _ => None,
    }
}
