//! Bytes to a JSON value, with errors a person can act on, and values to bytes. Depth is bounded by
//! the parser's own recursion limit (128), so that neither parsing nor dropping can exhaust a
//! stack.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ErrorKind};

/// Parses a request body.
///
/// # Errors
/// Not UTF-8, not JSON, or nested too deeply.
pub(crate) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(body).map_err(|e| {
        let at = e.valid_up_to();
        let message = format!("The body is not valid UTF-8: the byte at offset {at} is wrong.");
        ApiError::new(ErrorKind::Invalid, "invalid_utf8", message)
    })?;
    if text.trim_ascii().is_empty() {
        let message = "The body is empty; a JSON object is expected.";
        return Err(ApiError::new(ErrorKind::Invalid, "invalid_json", message));
    }
    serde_json::from_str(text).map_err(|e| {
        let message = format!("The body is not valid JSON: {e}.");
        ApiError::new(ErrorKind::Invalid, "invalid_json", message)
    })
}

/// Appends a value as JSON. Writing to memory cannot fail.
pub(crate) fn put(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "strings and numbers can be written");
}

/// Appends a list, each item as `each` writes it.
pub(crate) fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

/// Sets a field.
pub(crate) fn set(out: &mut Map<String, Value>, name: &str, value: impl Serialize) {
    out.insert(name.into(), json!(value));
}
