//! Names of the tools that a request offers, for a policy that says which may be. Whatever can be
//! read as a tool by somebody counts as one, under each name that it may go by: a tool that is not
//! seen here passes every policy. What has no name at all has an empty one, which no pattern of a
//! policy matches but `*`.

use std::borrow::Cow;

use super::scan::Scan;

/// Names that are kept. No provider takes so many tools; the ones behind them count as one without
/// a name.
const NAMES_MAX: usize = 4096;

/// Kinds of tools that are the caller's own functions: what they are is said by their names.
const FUNCTIONS: [&str; 3] = ["function", "custom", "namespace"];

/// Takes in a list of tools, or one where a list is meant; `google`: of Google's dialect.
pub(super) fn offered(scan: &mut Scan<'_>, google: bool, names: &mut Vec<String>) {
    list(scan, names, &mut |scan, names| match scan.peek() {
        b'{' if google => group(scan, names),
        b'{' => tool(scan, true, names),
        _ => names.extend(scan.words().map(Cow::into_owned)),
    });
}

/// Takes in a field whose being there offers tools, by its own name.
pub(super) fn field(scan: &mut Scan<'_>, name: &str, names: &mut Vec<String>) {
    if !matches!(scan.value(), "null" | "[]" | "false") {
        add(names, name.to_owned());
    }
}

/// Takes in a name.
pub(super) fn add(names: &mut Vec<String>, name: String) {
    match names.len() {
        NAMES_MAX.. => {}
        len if len + 1 == NAMES_MAX => names.push(String::new()),
        _ => names.push(name),
    }
}

/// Each item of a list gives a name at least.
fn list<'a>(
    scan: &mut Scan<'a>,
    names: &mut Vec<String>,
    each: &mut dyn FnMut(&mut Scan<'a>, &mut Vec<String>),
) {
    if scan.peek() == b'n' {
        scan.value();
        return;
    }
    let mut found = Vec::new();
    scan.items(|scan| {
        each(scan, &mut found);
        if found.is_empty() {
            found.push(String::new());
        }
        found.drain(..).for_each(|name| add(names, name));
    });
}

/// One of Google's: functions, and tools of its own that are known by their keys.
fn group(scan: &mut Scan<'_>, names: &mut Vec<String>) {
    scan.fields(|scan, key| match &*camel(&key) {
        _ if scan.peek() == b'n' => {
            scan.value();
        }
        "functionDeclarations" => list(scan, names, &mut named),
        key => {
            names.push(key.to_owned());
            scan.value();
        }
    });
}

/// The name of a function; two, where it stands twice.
fn named(scan: &mut Scan<'_>, names: &mut Vec<String>) {
    scan.fields(|scan, key| match &*key {
        "name" => names.extend(scan.words().map(Cow::into_owned)),
        _ => {
            scan.value();
        }
    });
}

/// One of another dialect. Its own name and that of its function may differ, and whoever it is sent
/// to reads one of them. `outer`: there may be others in it.
fn tool(scan: &mut Scan<'_>, outer: bool, names: &mut Vec<String>) {
    let (mut own, mut inner, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut kinds: Vec<Cow<'_, str>> = Vec::new();
    scan.fields(|scan, key| match &*key {
        _ if scan.peek() == b'n' => {
            scan.value();
        }
        "name" => own.extend(scan.words().map(Cow::into_owned)),
        "type" => kinds.extend(scan.words()),
        "function" | "custom" | "toolSpec" => named(scan, &mut own),
        "functionDeclarations" | "function_declarations" => list(scan, names, &mut named),
        "tools" if outer => list(scan, &mut inner, &mut |scan, names| tool(scan, false, names)),
        _ => {
            keys.push(key);
            scan.value();
        }
    });
    if own.is_empty() && kinds.is_empty() {
        names.extend(keys.iter().map(|key| camel(key).into_owned()));
    }
    let is_group = !kinds.is_empty() && kinds.iter().all(|kind| kind == "namespace");
    let is_nameless = own.is_empty() && inner.is_empty();
    kinds.retain(|kind| is_nameless || !named_by_its_name(kind));
    names.extend(kinds.into_iter().map(Cow::into_owned));
    match &own[..] {
        // As they are named where the request is read.
        [name] if is_group && !inner.is_empty() => {
            names.extend(inner.iter().map(|tool| format!("{name}__{tool}")));
        }
        _ => names.extend(own.into_iter().chain(inner)),
    }
}

/// Whether a tool of this kind is what its name says. Those of Anthropic's own have a date behind
/// their kind, and one name each; a tool of any other kind could borrow a name that is allowed.
fn named_by_its_name(kind: &str) -> bool {
    let date = |end: &str| end.len() == 8 && end.bytes().all(|byte| byte.is_ascii_digit());
    FUNCTIONS.contains(&kind) || kind.rsplit_once('_').is_some_and(|(_, end)| date(end))
}

/// `google_search` as `googleSearch`, in every spelling that the reader of Google's dialect takes.
pub(super) fn camel(key: &str) -> Cow<'_, str> {
    if !key.contains('_') {
        return Cow::Borrowed(key);
    }
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for letter in key.chars() {
        if letter == '_' && !out.is_empty() {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(google: bool, tools: &str, expect: &[&str]) {
        let mut names = Vec::new();
        let mut scan = Scan::new(tools);
        offered(&mut scan, google, &mut names);
        assert_eq!(names, expect, "{tools}");
        assert_eq!(scan.peek(), 0, "{tools}");
    }

    #[test]
    fn functions_by_their_names() {
        let check = |tools, expect: &[&str]| check(false, tools, expect);
        check("null", &[]);
        check("[]", &[]);
        check(
            r#"[{"type":"function","function":{"name":"a","parameters":{"name":"no"}}}]"#,
            &["a"],
        );
        check(r#"[{"name":"a","input_schema":{"type":"object"}},{"name":"b"}]"#, &["a", "b"]);
        check(
            r#"[{"type":"custom","name":"a"},{"type":"custom","custom":{"name":"b"}}]"#,
            &["a", "b"],
        );
        check(r#"[{"toolSpec":{"name":"a","inputSchema":{"json":{}}}}]"#, &["a"]);
        check(r#"[{"name":"\u0072m"}, {"n\u0061me":"ls"}]"#, &["rm", "ls"]);
        check(
            r#"[{"type":"web_search_20250305","name":"web_search","max_uses":5}]"#,
            &["web_search"],
        );
    }

    #[test]
    fn tools_of_providers_by_their_kinds() {
        let check = |tools, expect: &[&str]| check(false, tools, expect);
        check(r#"[{"type":"mcp","server_label":"a","server_url":"https://b"}]"#, &["mcp"]);
        check(r#"[{"type":"web_search","filters":{"name":"get_time"}}]"#, &["web_search"]);
        check(r#"[{"type":"mcp_toolset","mcp_server_name":"a"}]"#, &["mcp_toolset"]);
        check(r#"[{"googleSearch":{}},{"url_context":{}}]"#, &["googleSearch", "urlContext"]);
        check(r#"["web_search"]"#, &["web_search"]);
    }

    #[test]
    fn namespaces_by_both_names() {
        check(
            false,
            r#"[{"type":"namespace","name":"crm","tools":[{"type":"function","name":"list"},
                {"type":"custom","name":"sql"}]},{"type":"namespace","name":"none"}]"#,
            &["crm__list", "crm__sql", "none"],
        );
    }

    #[test]
    fn googles_groups_by_all_that_is_in_them() {
        let check = |tools, expect: &[&str]| check(true, tools, expect);
        check(
            r#"[{"functionDeclarations":[{"name":"a"},{"name":"rm","parameters":{"name":"no"}}],
                "googleSearch":{},"code_execution":{},"urlContext":null}]"#,
            &["a", "rm", "googleSearch", "codeExecution"],
        );
        check(r#"[{"function_declarations":[{"name":"rm"}]}]"#, &["rm"]);
        check(r#"{"functionDeclarations":{"name":"rm"}}"#, &["rm"]);
        check(r#"[{"functionDecl\u0061rations":[{"name":"rm"}]}]"#, &["rm"]);
        check(r#"[{"mcpServers":[{"name":"a"}],"name":"ok"}]"#, &["mcpServers", "name"]);
    }

    /// Each of these passed a policy under the name `ok`, or under none.
    #[test]
    fn no_name_hides_another() {
        let any = |tools, expect: &[&str]| check(false, tools, expect);
        any(r#"[{"name":"ok","function":{"name":"rm"}}]"#, &["ok", "rm"]);
        any(r#"[{"name":"rm","name":"ok"}]"#, &["rm", "ok"]);
        any(r#"[{"type":"mcp","name":"ok"}]"#, &["mcp", "ok"]);
        any(r#"[{"type":"mcp","type":"function","name":"ok"}]"#, &["mcp", "ok"]);
        any(r#"[{"name":"rm","function":"x"},{"name":7},{},7,null]"#, &["rm", "", "", "", ""]);
        any(r#"[{"type":"function","name":"rm","tools":[{"name":"ok"}]}]"#, &["rm", "ok"]);
        any(r#"[{"name":"rm","tools":[{"name":"ok"}]}]"#, &["rm", "ok"]);
        check(true, r#"[{"functionDeclarations":[{}]},{}]"#, &["", ""]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut names = Vec::new();
        let many = vec![r#"{"name":"a"}"#; NAMES_MAX + 7].join(",");
        offered(&mut Scan::new(&format!("[{many}]")), false, &mut names);
        assert_eq!((names.len(), &*names[NAMES_MAX - 1]), (NAMES_MAX, ""));
        let deep = format!("{}{}", r#"[{"tools":"#.repeat(100_000), "}]".repeat(100_000));
        names.clear();
        offered(&mut Scan::new(&deep), false, &mut names);
        assert_eq!(names, ["tools"]);
    }
}
