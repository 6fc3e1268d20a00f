//! Reads keywords that hold values: bounds, patterns, types, and the values of `enum`.

use serde_json::{Map, Number as Json, Value};

use super::number::{self, Bound, Number};
use super::object::Object;
use super::pattern::{self, Names};
use super::read::Raws;
use super::shape::{Array, Goal, Shape, Text};
use super::{
    ENUM_MAX, ENUM_OTHER_MAX, LENGTH_MAX, LITERAL_MAX, NESTING_MAX, PATTERN_MAX, SchemaError,
    at_most,
};

/// A keyword, and why it is refused.
pub(super) type Wrong<'a> = (&'a str, String);

type Keywords = Map<String, Value>;

fn wrong<T>(keyword: &'static str, why: &str) -> Result<T, Wrong<'static>> {
    Err((keyword, why.to_owned()))
}

/// `type`.
pub(super) fn types(map: &Keywords) -> Result<Shape, Wrong<'static>> {
    let names = match map.get("type") {
        None => return Ok(Shape::any()),
        Some(Value::Array(names)) if !names.is_empty() => &names[..],
        Some(name @ Value::String(_)) => std::slice::from_ref(name),
        Some(_) => return wrong("type", "must be a string or an array of strings"),
    };
    let mut shape = Shape::none();
    let mut integer = false;
    for name in names {
        match name.as_str() {
            Some("null") => shape.null = true,
            Some("boolean") => (shape.yes, shape.no) = (true, true),
            Some("integer") => integer = true,
            Some("number") => shape.number = Some(Number::default()),
            Some("string") => shape.text = Some(Text::default()),
            Some("array") => shape.array = Some(Array::default()),
            Some("object") => shape.object = Some(Object::default()),
            _ => return wrong("type", "must name types of JSON Schema"),
        }
    }
    if integer && shape.number.is_none() {
        shape.number = Some(Number { integer, ..Number::default() });
    }
    Ok(shape)
}

fn numeric<'a>(map: &'a Keywords, name: &'static str) -> Result<Option<&'a Json>, Wrong<'static>> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number)),
        Some(_) => wrong(name, "must be a number"),
    }
}

/// Bounds of numbers. In draft 4 an exclusive bound is a remark on the other one.
pub(super) fn numbers(
    number: Option<&mut Number>,
    map: &Keywords,
    draft4: bool,
) -> Result<(), Wrong<'static>> {
    let mut read = Number::default();
    for (name, exclusive, lower) in
        [("minimum", "exclusiveMinimum", true), ("maximum", "exclusiveMaximum", false)]
    {
        let mut set = |json: &Json, open: bool, name: &'static str| {
            let Some(value) = number::bound(json, lower) else {
                return wrong(name, "is not a number that can be held to");
            };
            let bound = Bound { value, open };
            if lower {
                read.raise(bound);
            } else {
                read.lower(bound);
            }
            Ok(())
        };
        let mut open = false;
        match map.get(exclusive) {
            Some(Value::Bool(remark)) if draft4 => open = *remark,
            _ => {
                if let Some(json) = numeric(map, exclusive)? {
                    set(json, true, exclusive)?;
                }
            }
        }
        match numeric(map, name)? {
            Some(json) => set(json, open, name)?,
            None if open => return wrong(exclusive, "must be a number"),
            None => {}
        }
    }
    if let Some(json) = numeric(map, "multipleOf")? {
        read.step = Some(number::step(json).map_err(|why| ("multipleOf", why))?);
    }
    if let Some(number) = number {
        read.integer = number.integer;
        *number = read;
    }
    Ok(())
}

/// Bounds that a format of numbers sets.
pub(super) fn range(number: &mut Number, (min, max): (f64, f64)) {
    number.raise(Bound { value: min, open: false });
    number.lower(Bound { value: max, open: false });
}

fn count(map: &Keywords, name: &'static str, limit: u64) -> Result<Option<u64>, Wrong<'static>> {
    let Some(value) = map.get(name) else { return Ok(None) };
    let whole = value.as_f64().filter(|value| *value >= 0.0 && value.fract() == 0.0);
    match whole {
        None => wrong(name, "must be a whole number, not negative"),
        Some(whole) if whole > limit as f64 => Err((name, at_most(limit))),
        Some(whole) => Ok(Some(whole as u64)),
    }
}

/// Two counts.
pub(super) fn bounds(
    map: &Keywords,
    min: &'static str,
    max: &'static str,
    limit: u64,
) -> Result<(u64, Option<u64>), Wrong<'static>> {
    Ok((count(map, min, limit)?.unwrap_or(0), count(map, max, limit)?))
}

/// Lengths and patterns of strings.
pub(super) fn texts(text: Option<&mut Text>, map: &Keywords) -> Result<(), Wrong<'static>> {
    let (min, max) = bounds(map, "minLength", "maxLength", LENGTH_MAX)?;
    let patterns = match map.get("pattern") {
        None => Vec::new(),
        Some(Value::String(written)) => pattern(written).map_err(|why| ("pattern", why))?,
        Some(_) => return wrong("pattern", "must be a string"),
    };
    if let Some(text) = text {
        (text.min, text.max, text.patterns) = (min, max, patterns);
    }
    Ok(())
}

/// A pattern of the schema.
pub(super) fn pattern(written: &str) -> Result<Vec<String>, String> {
    if written.len() > PATTERN_MAX {
        return Err(format!("has a length that {}", at_most(PATTERN_MAX)));
    }
    pattern::translate(written)
}

/// `required`.
pub(super) fn required(map: &Keywords) -> Result<Vec<String>, Wrong<'static>> {
    let must = "must be an array of strings";
    let Some(value) = map.get("required") else { return Ok(Vec::new()) };
    let Some(values) = value.as_array() else { return wrong("required", must) };
    let names: Option<Vec<String>> =
        values.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    names.map_or_else(|| wrong("required", must), Ok)
}

/// Bounds of one schema that leave nothing are a mistake, even where nothing may stand.
pub(super) fn contradictions(own: &Shape, map: &Keywords) -> Result<(), Wrong<'static>> {
    if own.number.as_ref().is_some_and(Number::is_empty) {
        let names = ["minimum", "exclusiveMinimum", "format"];
        let name = names.into_iter().find(|name| map.contains_key(*name)).unwrap_or("maximum");
        return wrong(name, "leaves no number with the rest of the schema");
    }
    if own.text.as_ref().is_some_and(Text::is_empty) {
        return wrong("minLength", "is above what the rest of the schema allows");
    }
    if own.array.as_ref().is_some_and(Array::is_empty) {
        return wrong("minItems", "is above 'maxItems'");
    }
    if own.object.as_ref().is_some_and(Object::is_empty) {
        return wrong("maxProperties", "is below the number of properties that must be there");
    }
    Ok(())
}

/// `enum`.
pub(super) fn enumeration(value: &Value) -> Result<&[Value], Wrong<'static>> {
    let Some(values) = value.as_array() else { return wrong("enum", "must be an array") };
    match values.len() {
        0 => return wrong("enum", "is empty"),
        1..=ENUM_MAX => {}
        _ => return Err(("enum", format!("has a size that {}", at_most(ENUM_MAX)))),
    }
    if values.iter().filter(|value| !value.is_string()).count() > ENUM_OTHER_MAX {
        let what = format_args!("{ENUM_OTHER_MAX} values that are no strings");
        return Err(("enum", format!("has a size that {}", at_most(what))));
    }
    Ok(values)
}

/// Single values: null, booleans, numbers and strings as a shape, and the rest.
pub(super) fn split(values: &[Value]) -> Result<(Shape, Vec<&Value>), String> {
    let mut shape = Shape::none();
    let mut complex = Vec::new();
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for value in values {
        match value {
            Value::Null => shape.null = true,
            Value::Bool(true) => shape.yes = true,
            Value::Bool(false) => shape.no = true,
            Value::Number(json) => match number::exact(json) {
                Some(number) => numbers.push(number),
                None => return Err("has a number with too many digits to be held to".to_owned()),
            },
            Value::String(text) => {
                let unwritten = |c: char| (c < ' ' && !"\n\r\t\x08\x0C".contains(c)) || c == '\x7F';
                if text.contains(unwritten) {
                    return Err("has a control character that cannot be written".to_owned());
                }
                if text.len() > LITERAL_MAX {
                    return Err(format!("has a text whose length {}", at_most(LITERAL_MAX)));
                }
                texts.push(text.clone());
            }
            Value::Array(_) | Value::Object(_) => complex.push(value),
        }
    }
    if !numbers.is_empty() {
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        shape.number = Some(Number { only: Some(numbers), ..Number::default() });
    }
    if !texts.is_empty() {
        super::object::unique(&mut texts);
        shape.text = Some(Text { only: Some(texts), ..Text::default() });
    }
    Ok((shape, complex))
}

/// A schema that this value alone meets.
pub(super) fn value(
    raws: &mut Raws,
    parent: u32,
    keyword: &str,
    value: &Value,
    nesting: usize,
) -> Result<u32, SchemaError> {
    let failed = |raws: &Raws, why: String| SchemaError::new(&raws.path(parent), keyword, why);
    if nesting > NESTING_MAX {
        return Err(failed(raws, format!("is nested more than {NESTING_MAX} levels deep")));
    }
    let id = raws.push(parent, keyword.to_owned())?;
    let never = Goal::one(raws.never);
    let mut shape = Shape::none();
    match value {
        Value::Array(values) => {
            let mut prefix = Vec::with_capacity(values.len());
            for item in values {
                prefix.push(Goal::one(self::value(raws, id, keyword, item, nesting + 1)?));
            }
            let count = prefix.len() as u64;
            shape.array = Some(Array { prefix, rest: never, min: count, max: Some(count) });
        }
        Value::Object(members) => {
            let mut properties = Vec::with_capacity(members.len());
            for (name, member) in members {
                let goal = Goal::one(self::value(raws, id, keyword, member, nesting + 1)?);
                properties.push((name.clone(), goal));
            }
            let required = members.keys().cloned().collect();
            let rest = never;
            shape.object = Some(Object { properties, rest, required, ..Object::default() });
        }
        scalar => {
            let one = std::slice::from_ref(scalar);
            (shape, _) = split(one).map_err(|why| failed(raws, why))?;
        }
    }
    raws.list[id as usize].own = shape;
    Ok(id)
}

impl Object {
    /// A required name whose schema is plainly `never`.
    pub(super) fn forbidden(&self, never: &Goal, names: &mut Names) -> Option<String> {
        let mut named = Self { required: self.required.clone(), ..self.clone() };
        named.name_required(names);
        let index = named.index();
        let found = named.required.iter().find(|name| index.get(name.as_str()) == Some(&never));
        found.cloned()
    }
}
