//! What each keyword is to us: enforced, without effect, or refused.
//!
//! JSON Schema lets an implementation ignore what it does not know. A misspelt keyword would then
//! hold nothing, silently, so unknown names are refused.

/// Keywords that are enforced, or that only say where schemas stand.
pub(super) const KNOWN: [&str; 42] = [
    "$anchor",
    "$defs",
    "$dynamicAnchor",
    "$id",
    "$ref",
    "$schema",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "definitions",
    "dependentRequired",
    "dependentSchemas",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "id",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// Keywords of the specification that cannot be enforced.
const REFUSED: [&str; 12] = [
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "contains",
    "dependencies",
    "else",
    "if",
    "maxContains",
    "minContains",
    "then",
    "extends",
];

/// Says something to people and tools, nothing about values. The last ones are `OpenAPI`'s.
const ANNOTATIONS: [&str; 15] = [
    "$comment",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
    "discriminator",
    "example",
    "externalDocs",
    "xml",
];

/// A keyword that nothing is done for: without effect, or why it is refused.
pub(super) fn other(name: &str) -> Result<(), String> {
    if ANNOTATIONS.contains(&name) || name.starts_with("x-") {
        return Ok(());
    }
    if REFUSED.contains(&name) {
        return Err("cannot be enforced".to_owned());
    }
    let shown: String = name.chars().take(60).collect();
    let all = KNOWN.iter().chain(&REFUSED).chain(&ANNOTATIONS);
    let near = all.map(|known| (distance(known, &shown), known)).min();
    match near {
        Some((1..=2, known)) => Err(format!("is not a keyword; did you mean '{known}'?")),
        _ => Err("is not a keyword; names beginning with 'x-' are ignored".to_owned()),
    }
}

/// Changes of one letter that make one name of the other; a change of case is none.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase().into_bytes(), b.to_lowercase().into_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    // Equal but for case: still a misspelling.
    row[b.len()].max(1)
}
