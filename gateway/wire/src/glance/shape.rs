//! Whether a request holds its answer to a shape, by the field that says so in each dialect.

use super::scan::Scan;

/// Goes past a field's value: whether it holds the answer to a shape.
pub(super) fn held(scan: &mut Scan<'_>, name: &str) -> bool {
    match name {
        "response_format" | "output_format" => format(scan),
        // Of Responses, and of Messages.
        "text" | "output_config" => {
            let mut held = false;
            scan.fields(|scan, name| match &*name {
                "format" => held |= format(scan),
                _ => {
                    scan.value();
                }
            });
            held
        }
        "structured_outputs" | "guided_json" | "guided_regex" | "guided_choice"
        | "guided_grammar" => scan.value() != "null",
        _ => {
            scan.value();
            false
        }
    }
}

/// The same of Google's configuration.
pub(super) fn held_by_google(scan: &mut Scan<'_>, name: &str) -> bool {
    match name {
        "responseSchema" | "responseJsonSchema" | "_responseJsonSchema" => scan.value() != "null",
        "responseMimeType" => scan.words().is_some_and(|kind| kind != "text/plain"),
        _ => {
            scan.value();
            false
        }
    }
}

/// A format that is more than text.
fn format(scan: &mut Scan<'_>) -> bool {
    let mut held = scan.peek() == b'{';
    scan.fields(|scan, name| match &*name {
        "type" => held = scan.words().is_some_and(|kind| kind != "text"),
        _ => {
            scan.value();
        }
    });
    held
}

#[cfg(test)]
mod tests {
    use super::super::found::Found;

    #[test]
    fn shapes_of_all_dialects() {
        for (google, field, expect) in [
            (false, r#""response_format":{"type":"json_schema","json_schema":{}}"#, true),
            (false, r#""response_format":{"type":"json_object"}"#, true),
            (false, r#""response_format":{"type":"text"}"#, false),
            (false, r#""response_format":null"#, false),
            (
                false,
                r#""text":{"format":{"type":"json_schema","schema":{}},"verbosity":"low"}"#,
                true,
            ),
            (false, r#""text":{"format":{"type":"text"}}"#, false),
            (false, r#""text":{"verbosity":"low"}"#, false),
            (false, r#""output_format":{"type":"json_schema","schema":{}}"#, true),
            (false, r#""output_config":{"effort":"low","format":{"type":"json_schema"}}"#, true),
            (false, r#""output_config":{"effort":"low"}"#, false),
            (false, r#""guided_json":{"type":"object"}"#, true),
            (false, r#""structured_outputs":{"regex":"a"}"#, true),
            (false, r#""guided_choice":null"#, false),
            (false, r#""messages":[{"response_format":{"type":"json_object"}}]"#, false),
            (true, r#""generationConfig":{"responseSchema":{"type":"OBJECT"}}"#, true),
            (true, r#""generation_config":{"response_mime_type":"application/json"}"#, true),
            (true, r#""generationConfig":{"responseMimeType":"text/plain"}"#, false),
            (true, r#""response_format":{"type":"json_object"}"#, false),
        ] {
            let body = format!("{{{field}}}");
            assert_eq!(Found::of(&body, google).structured, expect, "{body}");
        }
    }
}
