//! One part of a content: what it says, checked, before it is known which message it belongs to.

use serde_json::{Map, Value};

use super::policy::{self, Beyond};
use super::seal::{self, Signed};
use crate::fields::{Fault, Fields, Parsed, short};
use crate::request::{Content, Detail, Image, Part};

/// Fields of a part that say something; each part has one of them.
const KINDS: [&str; 5] = ["text", "inlineData", "fileData", "functionCall", "functionResponse"];

/// Names of a level of detail.
const LEVELS: [(&str, Detail); 4] = [
    ("MEDIA_RESOLUTION_UNSPECIFIED", Detail::Auto),
    ("MEDIA_RESOLUTION_LOW", Detail::Low),
    ("MEDIA_RESOLUTION_MEDIUM", Detail::Auto),
    ("MEDIA_RESOLUTION_HIGH", Detail::High),
];

/// What a part says.
pub(super) enum Says {
    Text(String),
    Thought(String),
    Image(Image),
    Call { id: Option<String>, name: String, arguments: String },
    Result { id: Option<String>, name: String, content: Content },
}

/// Reads a part, and what it is signed with. `detail` is how closely images are looked at that
/// say nothing of it themselves.
pub(super) fn parse(value: &Value, detail: Detail) -> Parsed<(Says, Option<Signed>)> {
    let fields = Fields::of(value)?;
    Beyond::Refused.table("", fields, policy::PART)?;
    let signed = fields.string("thoughtSignature")?.map_or(Ok(None), seal::parse)?;
    let mut kinds = KINDS.into_iter().filter(|kind| fields.get(kind).is_some());
    let kind = kinds.next();
    if let Some(second) = kinds.next() {
        let why = format!("the part has '{}' already", kind.unwrap_or_default());
        return Err(Fault::value(second, why));
    }
    let thought = fields.boolean("thought", false)?;
    if thought && !matches!(kind, None | Some("text")) {
        return Err(Fault::value("thought", "only a text is a thought"));
    }
    let detail = part_detail(fields)?.unwrap_or(detail);
    let inner = |name: &str| Fields::of(&value[name]);
    let says = match kind {
        // A signature may stand alone.
        None if signed.is_none() && !thought => return Err(Fault::missing("text")),
        None | Some("text") => {
            let text = fields.string("text")?.unwrap_or_default().to_owned();
            if thought { Ok(Says::Thought(text)) } else { Ok(Says::Text(text)) }
        }
        Some("inlineData") => inner("inlineData").and_then(|f| inline(f, detail)).map(Says::Image),
        Some("fileData") => inner("fileData").and_then(|f| file(f, detail)).map(Says::Image),
        Some("functionCall") => inner("functionCall").and_then(call),
        _ => inner("functionResponse").and_then(|f| result(f, detail)),
    };
    let says = says.map_err(|fault: Fault| fault.under(kind.unwrap_or_default()))?;
    Ok((says, signed))
}

/// How closely images are looked at, by Google's name.
pub(super) fn detail(fields: Fields<'_>, name: &str) -> Parsed<Option<Detail>> {
    let Some(level) = fields.string(name)? else { return Ok(None) };
    let known = LEVELS.into_iter().find(|(known, _)| *known == level);
    let all = || LEVELS.map(|(known, _)| known).join("', '");
    known
        .map(|(_, detail)| Some(detail))
        .ok_or_else(|| Fault::value(name, format!("expected one of '{}'", all())))
}

fn part_detail(fields: Fields<'_>) -> Parsed<Option<Detail>> {
    let Some(inner) = fields.object("mediaResolution")? else { return Ok(None) };
    let read = || inner.only(&["level"]).and_then(|()| detail(inner, "level"));
    read().map_err(|fault: Fault| fault.under("mediaResolution"))
}

/// An image in base64, in either of its two alphabets.
fn inline(fields: Fields<'_>, detail: Detail) -> Parsed<Image> {
    fields.only(&["mimeType", "data", "displayName"])?;
    let mime = mime(fields)?.ok_or_else(|| Fault::missing("mimeType"))?;
    let data = fields.required_string("data")?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(&b);
    if !data.bytes().all(letter) {
        return Err(Fault::value("data", "expected base64"));
    }
    let data = if data.contains(['-', '_']) {
        data.replace('-', "+").replace('_', "/")
    } else {
        data.to_owned()
    };
    Ok(Image { url: format!("data:{mime};base64,{data}"), detail })
}

fn file(fields: Fields<'_>, detail: Detail) -> Parsed<Image> {
    fields.only(&["mimeType", "fileUri", "displayName"])?;
    mime(fields)?;
    let url = fields.required_string("fileUri")?;
    if !url.starts_with("https://") && !url.starts_with("http://") {
        let why = "files of another service cannot be read; send 'inlineData'";
        return Err(Fault::unsupported("fileUri", why));
    }
    Ok(Image { url: url.to_owned(), detail })
}

fn mime<'a>(fields: Fields<'a>) -> Parsed<Option<&'a str>> {
    let mime = fields.string("mimeType")?;
    let strange = |mime: &str| {
        !mime.starts_with("image/")
            || mime.bytes().any(|b| b.is_ascii_control() || b";, ".contains(&b))
    };
    match mime.filter(|mime| strange(mime)) {
        Some(mime) => {
            let why = format!("'{}' cannot be read; parts are texts and images", short(mime));
            Err(Fault::unsupported("mimeType", why))
        }
        None => Ok(mime),
    }
}

fn id(fields: Fields<'_>) -> Parsed<Option<String>> {
    Ok(fields.string("id")?.filter(|id| !id.is_empty()).map(str::to_owned))
}

fn call(fields: Fields<'_>) -> Parsed<Says> {
    fields.only(&["id", "name", "args"])?;
    fields.object("args")?;
    let arguments = fields.get("args").map_or_else(|| "{}".to_owned(), Value::to_string);
    Ok(Says::Call { id: id(fields)?, name: fields.required_string("name")?.to_owned(), arguments })
}

/// A function's result. `{"output": TEXT}` is the text, as the reference has it; any other object
/// is told as it is.
fn result(fields: Fields<'_>, detail: Detail) -> Parsed<Says> {
    fields.only(&["id", "name", "response", "parts", "scheduling", "willContinue"])?;
    for name in ["scheduling", "willContinue"] {
        if fields.get(name).is_some_and(|value| *value != Value::Bool(false)) {
            return Err(Fault::unsupported(name, "an answer waits for its functions"));
        }
    }
    fields.object("response")?;
    let response = fields.get("response").and_then(Value::as_object);
    let text = response.map_or_else(String::new, output);
    let images = fields.each("parts", 4096, |value| {
        let part = Fields::of(value)?;
        part.only(&["inlineData", "fileData", "mediaResolution"])?;
        let detail = part_detail(part)?.unwrap_or(detail);
        let read = |name: &str, read: fn(Fields<'_>, Detail) -> Parsed<Image>| {
            let inner = part.object(name)?;
            inner.map(|inner| read(inner, detail).map_err(|fault| fault.under(name))).transpose()
        };
        let image = read("inlineData", inline)?.or(read("fileData", file)?);
        image.map(Part::Image).ok_or_else(|| Fault::missing("inlineData"))
    })?;
    let content = if images.is_empty() {
        Content::Text(text)
    } else {
        // An empty object beside images only says that there is no more.
        let says = !text.is_empty() && response.is_some_and(|response| !response.is_empty());
        let text = says.then_some(Part::Text(text));
        Content::Parts(text.into_iter().chain(images).collect())
    };
    Ok(Says::Result { id: id(fields)?, name: fields.required_string("name")?.to_owned(), content })
}

fn output(response: &Map<String, Value>) -> String {
    match response.get("output") {
        Some(Value::String(text)) if response.len() == 1 => text.clone(),
        Some(value) if response.len() == 1 => value.to_string(),
        _ => Value::Object(response.clone()).to_string(),
    }
}
