//! What a request says of itself in texts: of whom it is, and its notes.

use serde_json::Value;

/// The first of these that is a text.
pub(super) fn text_of<const N: usize>(all: [Option<&Value>; N]) -> Option<String> {
    let mut texts = all.into_iter().filter_map(|value| value?.as_str());
    texts.find(|text| !text.is_empty()).map(str::to_owned)
}

/// Notes that are texts.
pub(super) fn notes(metadata: Option<&Value>) -> Vec<(String, String)> {
    let map = metadata.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}
