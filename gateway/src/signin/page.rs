//! The pages: plain HTML without scripts, so that signing in works wherever a form does.

use std::fmt::Write as _;

/// Text that means nothing in HTML.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
        out
    })
}

/// A page with a title; `body` is HTML.
fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

fn hidden(name: &str, value: &str) -> String {
    format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value))
}

/// Something to read, and the way back.
pub(super) fn message(title: &str, text: &str) -> String {
    let text = escape(text);
    page(title, &format!("<p>{text}</p>\n<p><a href=\"/signin\">Sign in</a></p>\n"))
}

/// The ways to sign in: names and titles of providers, and whether there are passwords.
pub(super) fn ways<'a>(
    providers: impl Iterator<Item = (&'a str, &'a str)>,
    passwords: bool,
    return_to: &str,
) -> String {
    let to = percent(return_to);
    let mut body = String::new();
    for (name, title) in providers {
        let title = escape(title);
        let _ = writeln!(
            body,
            "<p><a href=\"/signin/oidc/{name}?return_to={to}\">Sign in with {title}</a></p>"
        );
    }
    if passwords {
        let to = hidden("return_to", return_to);
        let _ = write!(
            body,
            "<form method=\"post\" action=\"/signin/password\">{to}\n\
             <p><label>Address <input name=\"email\" type=\"email\" autocomplete=\"username\" \
             required></label></p>\n\
             <p><label>Password <input name=\"password\" type=\"password\" \
             autocomplete=\"current-password\" required></label></p>\n\
             <p><label>Organisation, if you are in several <input name=\"organisation\">\
             </label></p>\n<p><button>Sign in</button></p></form>\n"
        );
    }
    if body.is_empty() {
        body.push_str("<p>No way to sign in is set up here; keys work.</p>\n");
    }
    page("Sign in", &body)
}

/// Whoever has signed in already.
pub(super) fn signed_in(who: &str, csrf: &str) -> String {
    let (who, csrf) = (escape(who), hidden("csrf", csrf));
    page(
        "Signed in",
        &format!(
            "<p>You are {who}.</p>\n<form method=\"post\" action=\"/signout\">{csrf}\
             <button>Sign out</button></form>\n"
        ),
    )
}

/// Where a one-time code is asked for.
pub(super) fn code() -> String {
    page(
        "One-time code",
        "<form method=\"post\" action=\"/signin/totp\">\n<p><label>The code that your app shows \
         <input name=\"code\" inputmode=\"numeric\" autocomplete=\"one-time-code\" maxlength=\"6\" \
         required></label></p>\n<p><button>Sign in</button></p></form>\n",
    )
}

/// Where a password is set. The form goes to the page's own address.
pub(super) fn new_password(who: &str) -> String {
    let who = escape(who);
    page(
        "Set your password",
        &format!(
            "<form method=\"post\">\n<p>For {who}; at least 12 characters.</p>\n<p><label>Password \
             <input name=\"password\" type=\"password\" autocomplete=\"new-password\" \
             minlength=\"12\" required></label></p>\n<p><button>Set password</button></p></form>\n"
        ),
    )
}

/// A text within a query.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out() {
        let bad = "\"><script>alert('x')</script>&";
        let all = [
            message(bad, bad),
            ways([("corp", bad)].into_iter(), true, bad),
            signed_in(bad, bad),
            new_password(bad),
        ];
        for page in all {
            assert!(!page.contains("<script"), "{page}");
            assert!(!page.contains("\"><s"), "{page}");
        }
    }
}
