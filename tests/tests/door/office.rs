//! A server where people and services may sign in, and the provider that vouches for them. It is
//! set up by the very file that docs/signin.md shows, with this test's addresses and ids in it.
//!
//! Provider and issuer are one process: `oidc-provider` from npm on loopback, which also signs
//! tokens and shows its public keys at `/jwks`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use hearth_tests::http::Answer;
use hearth_tests::server::root;
use serde_json::{Value, json};

use super::house::{House, JSON, exchange, parsed, text};

/// Where the page says that people reach the server. Browsers would; here it is only said.
pub(super) const ORIGIN: &str = "https://hearth.example.org";

pub(super) fn now_s() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    i64::try_from(since).expect("few")
}

/// An identity provider; its process.
pub(super) struct Provider {
    child: Child,
    pub(super) issuer: String,
}

impl Provider {
    pub(super) fn start() -> Self {
        let folder = root().join("tests/clients/node");
        let packages = folder.join("node_modules/oidc-provider");
        assert!(packages.exists(), "no Node.js clients: run `make test` (or tests/tools.sh node)");
        let mut child = Command::new("node")
            .arg(folder.join("provider.mjs"))
            .arg(format!("{ORIGIN}/signin/oidc/corp/callback"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("its pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Self { child, issuer: text(&said["issuer"]) }
    }

    /// Asks it for something; see `provider.mjs`.
    pub(super) fn ask(&self, what: &str, body: &Value) -> Value {
        let line = format!("POST /test/{what}");
        parsed(&exchange(&self.issuer, &[JSON], &line, &body.to_string()))
    }

    /// A service's token for the page's audience, good for five minutes, but for these claims.
    pub(super) fn token(&self, other: &Value) -> String {
        let now = now_s();
        let mut claims = json!({
            "iss": self.issuer, "aud": "hearth-services", "sub": "ci", "iat": now, "exp": now + 300,
            "email": "eve@example.org", "email_verified": true,
        });
        for (name, value) in other.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        text(&self.ask("sign", &json!({ "header": {}, "claims": claims }))["token"])
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server where Eve, an administrator, may sign in and a service may show tokens.
pub(super) struct Office {
    pub(super) house: House,
    pub(super) provider: Provider,
    pub(super) organisation: String,
    pub(super) team: String,
    pub(super) project: String,
    pub(super) eve: String,
}

impl Office {
    pub(super) fn open() -> Self {
        let provider = Provider::start();
        let house = House::new();
        let found = house.admin("GET /admin/v1/organisations", &Value::Null);
        let organisation = text(&found["data"][0]["id"]);
        let team = house.make("teams", &json!({ "name": "ml" }));
        let project = house.make("projects", &json!({ "name": "ci", "team": team }));
        let grant = json!({ "role": "admin", "scope": format!("organisation:{organisation}") });
        let eve = json!({ "email": "eve@example.org", "grants": [grant] });
        let eve = house.make("users", &eve);
        let secret = house.folder.write("secret", "a-secret-of-thirty-two-characters");
        let house = house.with_signin(&page_file(&[
            ("https://id.example.org", &provider.issuer),
            ("https://ci.example.org", &provider.issuer),
            // This process cannot set the variable for one of its children; a file is the page's
            // other way.
            ("env:OIDC_SECRET", &format!("file:{secret}")),
            ("org_...", &organisation),
            ("team_...", &team),
            ("proj_...", &project),
        ]));
        Self { house, provider, organisation, team, project, eve }
    }

    /// Has a link made for Eve; its path.
    pub(super) fn link(&self) -> String {
        let made = self.house.admin("POST /signin/link", &json!({ "user": self.eve }));
        let left_ms = made["expires_at"].as_i64().expect("a time") - now_s() * 1000;
        assert!((86_000_000..86_402_000).contains(&left_ms), "a day, not {left_ms} ms");
        let url = text(&made["url"]);
        url.strip_prefix(ORIGIN).unwrap_or_else(|| panic!("{url}")).to_owned()
    }

    /// What somebody with this cookie is told of themselves.
    pub(super) fn me(&self, cookie: &str) -> Answer {
        self.house.ask(&[("cookie", cookie)], "GET /signin/me", "")
    }
}

/// The file that the page shows, with these values in the place of the page's examples.
fn page_file(values: &[(&str, &str)]) -> String {
    let page = std::fs::read_to_string(root().join("docs/signin.md")).expect("the page");
    let (_, rest) = page.split_once("```toml\n").expect("a file");
    let (file, _) = rest.split_once("```").expect("its end");
    values.iter().fold(file.to_owned(), |file, (example, own)| {
        assert!(file.contains(example), "the page does not say {example} any more");
        file.replace(example, own)
    })
}
