//! The arguments of a call, one by one, for formats that do not write them as one JSON object.
//!
//! Works on schemas that `grammar::schema::prepare` wrote: a list of options, one type each, with
//! references to `$defs` only.

use serde_json::{Map, Value, json};

use crate::grammar::schema::SchemaError;

/// What the arguments may be: one of these lists.
pub(super) struct Members<'a> {
    definitions: Option<&'a Map<String, Value>>,
    pub(super) lists: Vec<List<'a>>,
}

/// Arguments in the schema's order.
pub(super) struct List<'a> {
    pub(super) members: Vec<Member<'a>>,
    /// What further arguments may be.
    pub(super) open: bool,
}

/// One argument.
pub(super) struct Member<'a> {
    pub(super) key: &'a str,
    pub(super) required: bool,
    schema: &'a Value,
}

/// Values of an argument, by their type.
#[derive(Default)]
pub(super) struct Kinds {
    pub(super) null: bool,
    pub(super) yes: bool,
    pub(super) no: bool,
    /// Schemas of strings.
    pub(super) texts: Vec<Value>,
    /// Schemas of numbers, arrays and objects.
    pub(super) others: Vec<Value>,
}

static ANYTHING: Value = Value::Bool(true);

/// Reads prepared parameters.
///
/// # Errors
/// Keywords that speak about the arguments as a whole, and cannot be held to one by one.
pub(super) fn members(prepared: &Value) -> Result<Members<'_>, SchemaError> {
    let definitions = prepared.get("$defs").and_then(Value::as_object);
    let mut lists = Vec::new();
    for option in options(prepared, definitions) {
        if option.get("type").is_some_and(|kind| kind != "object") || option.get("const").is_some()
        {
            continue;
        }
        for keyword in ["patternProperties", "minProperties", "maxProperties"] {
            if option.get(keyword).is_some() {
                return Err(SchemaError {
                    path: String::new(),
                    keyword: Some(keyword.to_owned()),
                    reason: "cannot be held to in the way this model writes arguments".to_owned(),
                });
            }
        }
        lists.push(list(option));
    }
    Ok(Members { definitions, lists })
}

fn list(option: &Value) -> List<'_> {
    let named = option.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = option
        .get("required")
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |keys| keys.iter().filter_map(Value::as_str).collect());
    let further = option.get("additionalProperties").unwrap_or(&ANYTHING);
    let mut members: Vec<Member<'_>> = Vec::new();
    for (key, schema) in named.into_iter().flatten() {
        if schema != &Value::Bool(false) {
            members.push(Member { key, required: required.contains(&key.as_str()), schema });
        }
    }
    for key in required {
        if named.is_none_or(|named| !named.contains_key(key)) {
            members.push(Member { key, required: true, schema: further });
        }
    }
    List { members, open: further != &Value::Bool(false) }
}

/// Schemas of one type each.
fn options<'a>(schema: &'a Value, definitions: Option<&'a Map<String, Value>>) -> Vec<&'a Value> {
    let name = schema.get("$ref").and_then(Value::as_str);
    let name = name.and_then(|name| name.strip_prefix("#/$defs/"));
    let meant = name.and_then(|name| definitions?.get(name)).unwrap_or(schema);
    match meant.get("anyOf").and_then(Value::as_array) {
        Some(options) => options.iter().collect(),
        None => vec![meant],
    }
}

impl Members<'_> {
    /// The values that an argument may have.
    pub(super) fn kinds(&self, member: &Member<'_>) -> Kinds {
        let mut kinds = Kinds::default();
        for option in options(member.schema, self.definitions) {
            kinds.add(option);
        }
        kinds
    }

    /// One of these schemas, with the definitions that they lead to. None for none.
    pub(super) fn json(&self, mut options: Vec<Value>) -> Option<Value> {
        let mut schema = match options.len() {
            0 => return None,
            1 => options.remove(0),
            _ => json!({"anyOf": options}),
        };
        let carried = self.carried(&schema);
        if !carried.is_empty() {
            schema["$defs"] = Value::Object(carried);
        }
        Some(schema)
    }

    fn carried(&self, schema: &Value) -> Map<String, Value> {
        let mut carried = Map::new();
        let Some(definitions) = self.definitions else { return carried };
        let mut open = vec![schema];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(values) => open.extend(values),
                Value::Object(map) => open.extend(map.values()),
                Value::String(text) => {
                    // A text that only looks like a reference carries a definition too many.
                    let name = text.strip_prefix("#/$defs/").unwrap_or_default();
                    let meant = definitions.get(name).filter(|_| !carried.contains_key(name));
                    if let Some(meant) = meant {
                        carried.insert(name.to_owned(), meant.clone());
                        open.push(meant);
                    }
                }
                _ => {}
            }
        }
        carried
    }
}

impl Kinds {
    fn add(&mut self, option: &Value) {
        let kind = option.get("type").and_then(Value::as_str);
        match (kind, option.get("const"), option.get("enum")) {
            (None, Some(Value::Bool(yes)), _) => {
                self.yes |= *yes;
                self.no |= !*yes;
            }
            (None, None, None) => {
                (self.null, self.yes, self.no) = (true, true, true);
                self.texts.push(json!({"type": "string"}));
                let others = ["number", "array", "object"];
                self.others.extend(others.map(|kind| json!({"type": kind})));
            }
            (Some("null"), ..) => self.null = true,
            (Some("boolean"), ..) => (self.yes, self.no) = (true, true),
            (Some("string"), ..) => self.texts.push(option.clone()),
            _ => self.others.push(option.clone()),
        }
    }
}
