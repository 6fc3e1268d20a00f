//! The readable page: every route, its permission, and a line to try it with. Plain HTML without a
//! script.

use std::fmt::Write as _;

use super::table::{Method, Route};

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Hearth: admin API</title>
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h2 { margin: 2em 0 0.3em; }
h3 { font: 600 14px/1.6 ui-monospace, monospace; margin: 1.4em 0 0; }
p { margin: 0.1em 0; } dl { margin: 0.2em 0 0.2em 1.5em; }
dt { font: 13px ui-monospace, monospace; }
pre { background: #f4f4f2; padding: 0.5em 0.8em; overflow-x: auto; margin: 0.3em 0; }
small { color: #666; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1b1b1b; } pre { background: #262626; } small { color: #999; }
}
</style></head><body>
<h1>Hearth: admin API</h1>
<p>Every request shows a key: <code>Authorization: Bearer hk-...</code>. What lies outside the
places of the key's grants answers 404, as if it were not there. Lists take <code>limit</code>
(1 to 200) and <code>after</code> (the last id of the page before). A POST with the header
<code>Idempotency-Key</code> is done once, however often it is sent within 24 hours. Amounts are
<code>nano_usd</code> (whole nano-dollars) or <code>usd</code> (a text such as
<code>\"5.00\"</code>); times are milliseconds since 1970.</p>
<p>For programs: <a href=\"/admin/v1/openapi.json\">openapi.json</a>. For a terminal:
<code>hearth admin</code>.</p>
";

/// The page.
pub(super) fn html(routes: &[Route]) -> String {
    let mut out = HEAD.to_owned();
    let mut group = "";
    for route in routes {
        let here = route.path().split('/').nth(3).unwrap_or_default();
        if here != group {
            group = here;
            let _ = writeln!(out, "<h2>{}</h2>", escape(group));
        }
        section(&mut out, route);
    }
    out.push_str("</body></html>\n");
    out
}

fn section(out: &mut String, route: &Route) {
    let (method, path) = (route.method().name(), escape(route.path()));
    let _ = writeln!(out, "<h3>{method} {path}</h3>");
    let _ = writeln!(out, "<p>{}</p>", escape(route.summary()));
    let permission = route.permission().name();
    let place = route.place().text();
    let _ = writeln!(out, "<p><small>needs <b>{permission}</b> at {place}</small></p>");
    if !route.query().is_empty() {
        out.push_str("<dl>");
        for (name, doc) in route.query() {
            let _ = write!(out, "<dt>?{}=</dt><dd>{}</dd>", escape(name), escape(doc));
        }
        out.push_str("</dl>\n");
    }
    let body = match (route.method(), &route.takes) {
        (Method::Post | Method::Patch, Some(shape)) => {
            let name = (shape.name)();
            format!(
                " \\\n  -H 'Content-Type: application/json' -d '{{ ... {} ... }}'",
                escape(&name)
            )
        }
        _ => String::new(),
    };
    let verb = if method == "GET" { String::new() } else { format!(" -X {method}") };
    let _ = writeln!(
        out,
        "<pre>curl{verb} -H \"Authorization: Bearer $HEARTH_ADMIN_KEY\" $URL{path}{body}</pre>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
