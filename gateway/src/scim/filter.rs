//! Filters: `userName eq "ann"`, joined by `and`; and how a name finds its value in a resource.
//! Names of attributes are compared without case, and so are texts, as SCIM says of most; ids and
//! external ids exactly.

use serde_json::Value;

use super::answer::Problem;

/// Longest filter, bytes.
const BYTES_MAX: usize = 4096;

/// Comparisons, all of which must hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter(pub(super) Vec<Comparison>);

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// As written: `emails.value`.
    pub(super) attribute: String,
    operator: Operator,
    pub(super) value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    Starts,
    Ends,
    Present,
}

fn wrong(text: &str) -> Problem {
    let shown: String = text.chars().take(100).collect();
    let why = "comparisons by eq, ne, co, sw, ew and pr, joined by 'and', are known";
    Problem::wrong("invalidFilter", format!("The filter '{shown}' cannot be used: {why}."))
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// It cannot be read, or asks for more than this knows.
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        if text.len() > BYTES_MAX {
            return Err(wrong(text));
        }
        let mut all = Vec::new();
        let mut rest = text.trim();
        loop {
            let (one, left) = comparison(rest).ok_or_else(|| wrong(text))?;
            all.push(one);
            rest = left.trim_start();
            if rest.is_empty() {
                return Ok(Self(all));
            }
            let (word, left) = word(rest).ok_or_else(|| wrong(text))?;
            if !word.eq_ignore_ascii_case("and") {
                return Err(wrong(text));
            }
            rest = left;
        }
    }

    /// The value of `attribute eq "text"`, where that is among what must hold.
    pub(super) fn wants(&self, attribute: &str) -> Option<&str> {
        let named = |one: &&Comparison| {
            one.operator == Operator::Equal && one.attribute.eq_ignore_ascii_case(attribute)
        };
        self.0.iter().find(named).and_then(|one| one.value.as_str())
    }

    /// Whether a resource passes.
    pub(super) fn passes(&self, resource: &Value) -> bool {
        self.0.iter().all(|one| one.passes(resource))
    }
}

impl Comparison {
    fn passes(&self, resource: &Value) -> bool {
        let found = values(resource, &self.attribute);
        let exact = ["id", "externalId"].iter().any(|id| self.attribute.eq_ignore_ascii_case(id));
        let holds = |value: &&Value| compare(value, self.operator, &self.value, exact);
        match self.operator {
            Operator::NotEqual => found.iter().all(holds),
            _ => found.iter().any(holds),
        }
    }
}

fn compare(found: &Value, operator: Operator, wanted: &Value, exact: bool) -> bool {
    if operator == Operator::Present {
        return !found.is_null();
    }
    let (Value::String(found), Value::String(wanted)) = (found, wanted) else {
        return (truth(found) == truth(wanted) && (truth(found).is_some() || found == wanted))
            == (operator == Operator::Equal);
    };
    let fold = |text: &str| if exact { text.to_owned() } else { text.to_lowercase() };
    let (found, wanted) = (fold(found), fold(wanted));
    match operator {
        Operator::Equal => found == wanted,
        Operator::NotEqual => found != wanted,
        Operator::Contains => found.contains(&wanted),
        Operator::Starts => found.starts_with(&wanted),
        Operator::Ends => found.ends_with(&wanted),
        Operator::Present => true,
    }
}

/// A truth value; Entra ID writes them as texts.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// All values of an attribute, which may lie in several places: `emails.value`.
fn values<'v>(resource: &'v Value, attribute: &str) -> Vec<&'v Value> {
    let mut found = vec![resource];
    for name in attribute.split('.') {
        let within = found.into_iter().flat_map(|value| match value {
            Value::Array(all) => all.iter().collect::<Vec<_>>(),
            one => vec![one],
        });
        found = within.filter_map(|value| member(value, name)).collect();
    }
    let flat = found.into_iter().flat_map(|value| match value {
        Value::Array(all) => all.iter().map(|one| member(one, "value").unwrap_or(one)).collect(),
        one => vec![one],
    });
    flat.collect()
}

/// A member of an object, whatever its case.
pub(super) fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    let any = || object.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
    object.get(name).or_else(|| any().map(|(_, value)| value))
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn comparison(text: &str) -> Option<(Comparison, &str)> {
    let (attribute, rest) = word(text)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-$:".contains(&b);
    if !attribute.bytes().all(plain) {
        return None;
    }
    // A name may be written whole.
    let attribute = attribute.rsplit(':').next().unwrap_or(attribute).to_owned();
    let (operator, rest) = word(rest)?;
    let operator = match operator.to_ascii_lowercase().as_str() {
        "eq" => Operator::Equal,
        "ne" => Operator::NotEqual,
        "co" => Operator::Contains,
        "sw" => Operator::Starts,
        "ew" => Operator::Ends,
        "pr" => {
            let one = Comparison { attribute, operator: Operator::Present, value: Value::Null };
            return Some((one, rest));
        }
        _ => return None,
    };
    let mut read = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let value = read.next()?.ok()?;
    let rest = rest.get(read.byte_offset()..)?;
    let simple = !value.is_object() && !value.is_array();
    simple.then_some((Comparison { attribute, operator, value }, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_are_read_and_hold() {
        let ann = json!({
            "id": "user_1", "userName": "Ann@Example.org", "active": true, "externalId": "00uA",
            "emails": [{ "type": "work", "value": "ann@example.org" }, { "value": "a@b" }],
            "meta": { "resourceType": "User" },
        });
        let check = |text: &str, expect: Option<bool>| {
            let read = Filter::read(text).ok();
            assert_eq!(read.map(|filter| filter.passes(&ann)), expect, "{text}");
        };
        check(r#"userName eq "ann@example.org""#, Some(true));
        check(r#"username Eq "ANN@example.org""#, Some(true));
        check(r#"userName eq "bob@example.org""#, Some(false));
        check(r#"externalId eq "00uA""#, Some(true));
        check(r#"externalId eq "00ua""#, Some(false));
        check(r#"emails.value eq "a@b""#, Some(true));
        check(r#"emails eq "a@b""#, Some(true));
        check(r#"userName sw "ann" and active eq true"#, Some(true));
        check(r#"userName sw "ann" and active eq "False""#, Some(false));
        check(r#"urn:ietf:params:scim:schemas:core:2.0:User:userName ew "org""#, Some(true));
        check(r#"meta.resourceType ne "Group""#, Some(true));
        check("title pr", Some(false));
        check("userName pr and id pr", Some(true));
        check(r#"userName eq "a\"b and c""#, Some(false));
        for wrong in [
            "",
            "userName",
            "userName eq",
            "userName eq ann",
            "a eq \"b\" or c pr",
            "userName gt \"a\"",
            "(userName pr)",
            "not (a pr)",
            "userName eq {}",
            "a eq \"b\" and",
        ] {
            check(wrong, None);
        }
    }
}
