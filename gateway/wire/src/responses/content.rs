//! Parts of an item's content, as texts and images.

use serde_json::Value;

use super::beyond::Beyond;
use super::policy;
use crate::fields::{Fault, Fields, Parsed, short};
use crate::request::{Content, Detail, Image, Part};

/// Parts of one item.
const PARTS_MAX: usize = 4096;

/// A text, or parts in the field `name`. `at` is the item's path. One text is one text, however it
/// was written: templates take it best.
pub(super) fn parse(
    fields: Fields<'_>,
    name: &str,
    at: &str,
    beyond: &mut Beyond,
) -> Parsed<Content> {
    match fields.get(name) {
        None => Err(Fault::missing(name)),
        Some(Value::String(text)) => Ok(Content::Text(text.clone())),
        Some(Value::Array(_)) => {
            let mut index = 0..;
            let mut parts = fields.each(name, PARTS_MAX, |value| {
                let at = format!("{at}.{name}[{}]", index.next().unwrap_or(PARTS_MAX));
                part(Fields::of(value)?, &at, beyond)
            })?;
            Ok(match (parts.pop(), parts.is_empty()) {
                (None, _) => Content::Absent,
                (Some(Part::Text(text)), true) => Content::Text(text),
                (Some(last), _) => {
                    parts.push(last);
                    Content::Parts(parts)
                }
            })
        }
        Some(other) => Err(Fault::kind(name, "a string or an array of parts", other)),
    }
}

fn part(fields: Fields<'_>, at: &str, beyond: &mut Beyond) -> Parsed<Part> {
    match fields.required_string("type")? {
        "input_text" | "output_text" | "text" => {
            beyond.fields(fields, at, policy::WORDS)?;
            fields.required_string("text").map(|text| Part::Text(text.to_owned()))
        }
        // What the model said in place of an answer.
        "refusal" => {
            beyond.fields(fields, at, policy::REFUSAL)?;
            fields.required_string("refusal").map(|text| Part::Text(text.to_owned()))
        }
        "input_image" => image(fields, at, beyond).map(Part::Image),
        kind @ ("input_file" | "input_audio" | "computer_screenshot") => {
            Err(Fault::unsupported("type", format!("'{kind}' parts cannot be read by this model")))
        }
        other => {
            let why = format!("'{}' is not a known kind of part", short(other));
            Err(Fault::value("type", why))
        }
    }
}

/// Whether the model can look at it is not known here.
fn image(fields: Fields<'_>, at: &str, beyond: &mut Beyond) -> Parsed<Image> {
    beyond.fields(fields, at, policy::IMAGE)?;
    let url = fields.required_string("image_url")?.to_owned();
    let detail = match fields.string("detail")? {
        None => Detail::Auto,
        // As many tokens as it has.
        Some("original") => Detail::High,
        Some(name) => {
            let known = Detail::ALL.into_iter().find(|detail| detail.name() == name);
            let all = "expected 'auto', 'low', 'high' or 'original'";
            known.ok_or_else(|| Fault::value("detail", all))?
        }
    };
    Ok(Image { url, detail })
}

/// The texts of a list of parts of one kind, `kind` or plain `text`.
pub(super) fn texts(fields: Fields<'_>, name: &str, kind: &str) -> Parsed<Vec<String>> {
    fields.each(name, PARTS_MAX, |value| {
        let part = Fields::of(value)?;
        part.only(&["type", "text"])?;
        let given = part.required_string("type")?;
        if given != kind && given != "text" {
            return Err(Fault::value("type", format!("expected '{kind}'")));
        }
        part.required_string("text").map(str::to_owned)
    })
}
