//! The whole numbers of an object such as a provider's usage, and of the objects in it: all that is
//! read of one, without keeping the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Numbers with their names, those of inner objects with two.
#[derive(Debug, Default)]
pub(super) struct Numbers<'a>(Vec<(Path<'a>, u64)>);

type Path<'a> = [Cow<'a, str>; 2];

impl Numbers<'_> {
    /// The number at a path of one or two names.
    pub(super) fn at(&self, path: &[&str]) -> Option<u64> {
        let wanted = [path.first().copied()?, path.get(1).copied().unwrap_or_default()];
        // A name that stands twice counts the last time.
        self.0.iter().rev().find(|(own, _)| *own == wanted).map(|(_, number)| *number)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Numbers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(|read| match read {
            Read::Object(numbers) => Self(numbers),
            Read::Number(_) | Read::Other => Self::default(),
        })
    }
}

/// A value as far as it is read.
enum Read<'a> {
    Number(u64),
    Object(Vec<(Path<'a>, u64)>),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Read<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// A name, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Read<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Read::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(number).map_or(Read::Other, Read::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Read::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Read::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Read::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Read::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Read::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut numbers = Vec::with_capacity(8);
        while let Some((Name(name), value)) = map.next_entry()? {
            match value {
                Read::Number(number) => numbers.push(([name, Cow::Borrowed("")], number)),
                Read::Object(inner) => {
                    let here = |[own, deeper]: &Path<'_>| !own.is_empty() && deeper.is_empty();
                    let inner = inner.into_iter().filter(|(path, _)| here(path));
                    numbers.extend(inner.map(|([own, _], number)| ([name.clone(), own], number)));
                }
                Read::Other => {}
            }
        }
        Ok(Read::Object(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_name_or_two() {
        let text = r#"{"a":1,"b":{"c":2,"d":{"e":3},"":4},"\u0061b":5,"f":-1,"g":1.0,"h":"6",
            "i":[{"a":7}],"j":null,"k":true,"l":18446744073709551615,"a":8}"#;
        let read = |text| serde_json::from_str::<Numbers<'_>>(text);
        let numbers = read(text).expect("JSON");
        assert_eq!((numbers.at(&["a"]), numbers.at(&["b", "c"])), (Some(8), Some(2)));
        assert_eq!((numbers.at(&["ab"]), numbers.at(&["l"])), (Some(5), Some(u64::MAX)));
        for path in [&["b"][..], &["b", "d"], &["d", "e"], &["e"], &["f"], &["g"], &["h"], &[]] {
            assert_eq!(numbers.at(path), None, "{path:?}");
        }
        for nothing in ["5", "-5", "1.5", "\"x\"", "[1,2]", "true"] {
            assert_eq!(read(nothing).expect("JSON").at(&["a"]), None, "{nothing}");
        }
        for broken in ["{\"a\":}", "{\"a\":1", "[1,", "{1:2}"] {
            assert!(read(broken).is_err(), "{broken}");
        }
        let value = serde_json::json!({"a": 1, "b": {"c": 2}});
        let numbers = Numbers::deserialize(&value).expect("a value");
        assert_eq!((numbers.at(&["a"]), numbers.at(&["b", "c"])), (Some(1), Some(2)));
    }
}
