//! The file that says who may sign in, and how: TOML with tables of providers and issuers, which
//! the flat options cannot hold. Secrets in it are references or the secrets themselves.
//!
//! The key that seals one-time codes and what browsers keep lies beside the database in
//! `master.key`, made at the first start, unless the file names another.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use govern::entity::Grant;
use govern::identity::jwt::Issuer;
use govern::identity::mapping::{GroupRule, People, ProjectOf, Services, UserOf};
use govern::secret::{Keyring, Master};
use govern::{Id, Scope};
use serde::Deserialize;

use super::{Provider, Settings, master};
use crate::config::resolve_secret;

/// A configuration file is a page of text; more is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    origin: String,
    #[serde(default)]
    passwords: bool,
    master_key: Option<String>,
    #[serde(default)]
    old_master_keys: Vec<String>,
    #[serde(default)]
    oidc: Vec<Oidc>,
    #[serde(default)]
    service: Vec<Service>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Oidc {
    name: String,
    title: Option<String>,
    issuer: String,
    client_id: String,
    client_secret: Option<String>,
    #[serde(default = "usual_scopes")]
    scopes: Vec<String>,
    organisation: Id,
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    emails_are_verified: bool,
    #[serde(default = "usual_groups")]
    groups_claim: String,
    #[serde(default)]
    group: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    group: String,
    team: Option<Id>,
    role: Option<String>,
    scope: Option<Scope>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    issuer: String,
    audience: String,
    jwks_url: String,
    organisation: Id,
    project: Option<Id>,
    project_claim: Option<String>,
    projects: Option<BTreeMap<String, Id>>,
    user: Option<User>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum User {
    Email,
    Subject,
}

fn usual_scopes() -> Vec<String> {
    ["email", "profile"].map(str::to_owned).to_vec()
}

fn usual_groups() -> String {
    "groups".to_owned()
}

/// Reads the file. `data` is where the master key lies where the file names none.
///
/// # Errors
/// In words that name file and field.
pub fn read(path: &Path, data: &Path) -> Result<Settings, String> {
    settings(parse(path)?, data).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse(path: &Path) -> Result<File, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let size = path.metadata().map_err(|error| wrong(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("{size} bytes are too many for a configuration file")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string()))
}

fn settings(file: File, data: &Path) -> Result<Settings, String> {
    let File { origin, passwords, master_key, old_master_keys, oidc, service } = file;
    let mut keyring = match master_key {
        Some(text) => Keyring { current: master_of(&text)?, old: Vec::new() },
        None => master::keyring(data)?,
    };
    for text in &old_master_keys {
        keyring.old.push(master_of(text)?);
    }
    let providers = oidc.into_iter().map(provider).collect::<Result<_, _>>()?;
    let issuers = service.into_iter().map(issuer).collect::<Result<_, _>>()?;
    Ok(Settings { origin, issuers, providers, passwords, keyring: Arc::new(keyring) })
}

/// Whether the file names the master key, so that it does not lie in the data folder.
///
/// # Errors
/// As [`read`].
pub fn names_master(path: &Path) -> Result<bool, String> {
    Ok(parse(path)?.master_key.is_some())
}

fn master_of(text: &str) -> Result<Master, String> {
    let text = resolve_secret(text).map_err(|why| format!("master_key: {why}"))?;
    Master::parse(text.expose()).map_err(|error| format!("master_key: {error}"))
}

/// The keys that secrets of this deployment are sealed with: those of the file that says how people
/// sign in, where there is one, and the one beside the database where it names none.
///
/// # Errors
/// In words that name file and field.
pub fn keyring(file: Option<&Path>, data: &Path) -> Result<Arc<Keyring>, String> {
    if let Some(file) = file {
        return Ok(read(file, data)?.keyring);
    }
    master::keyring(data).map(Arc::new)
}

fn provider(oidc: Oidc) -> Result<Provider, String> {
    let name = oidc.name;
    let secret = oidc.client_secret.as_deref().map(resolve_secret).transpose();
    let client_secret = secret.map_err(|why| format!("client_secret of '{name}': {why}"))?;
    let mut groups = Vec::with_capacity(oidc.group.len());
    for Group { group, team, role, scope } in oidc.group {
        let grant = match (role, scope) {
            (Some(role), Some(scope)) => Some(Grant { role, scope }),
            (None, None) => None,
            _ => return Err(format!("group '{group}' of '{name}': role and scope go together")),
        };
        groups.push(GroupRule { group, team, grant });
    }
    Ok(Provider {
        title: oidc.title.unwrap_or_else(|| name.clone()),
        name,
        issuer: oidc.issuer,
        client_id: oidc.client_id,
        client_secret,
        scopes: oidc.scopes,
        people: People {
            organisation: oidc.organisation,
            domains: oidc.domains,
            emails_are_verified: oidc.emails_are_verified,
            groups_claim: oidc.groups_claim,
            groups,
        },
    })
}

fn issuer(service: Service) -> Result<Issuer, String> {
    let Service { name, issuer, audience, jwks_url, organisation, user, .. } = service;
    let project = match (service.project, service.project_claim, service.projects) {
        (Some(project), None, None) => ProjectOf::One(project),
        (None, Some(claim), None) => ProjectOf::Claim(claim),
        (None, Some(claim), Some(projects)) => ProjectOf::Table { claim, projects },
        _ => {
            let forms = "project; or project_claim; or project_claim and projects";
            return Err(format!("service '{name}': write {forms}"));
        }
    };
    let user = user.map(|user| match user {
        User::Email => UserOf::Email,
        User::Subject => UserOf::Subject,
    });
    let services = Services { organisation, project, user };
    Ok(Issuer { name, issuer, audience, jwks_url, services })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_settings() {
        let data = std::env::temp_dir().join(format!("hearth-signin-{}", std::process::id()));
        std::fs::create_dir_all(&data).expect("a folder");
        let path = data.join("signin.toml");
        let check = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read(&path, &data)
        };
        let whole = check(
            r#"
            origin = "https://hearth.example.org"
            passwords = true
            [[oidc]]
            name = "corp"
            issuer = "https://id.example.org"
            client_id = "hearth"
            client_secret = "a secret"
            organisation = "org_1"
            domains = ["example.org"]
            [[oidc.group]]
            group = "ml"
            team = "team_1"
            [[oidc.group]]
            group = "platform"
            role = "admin"
            scope = "organisation:org_1"
            [[service]]
            name = "ci"
            issuer = "https://ci.example.org"
            audience = "hearth"
            jwks_url = "https://ci.example.org/jwks"
            organisation = "org_1"
            project_claim = "repository"
            projects = { "a/b" = "proj_1" }
            "#,
        )
        .expect("settings");
        assert_eq!(whole.providers[0].people.groups.len(), 2);
        assert_eq!(whole.providers[0].scopes, ["email", "profile"]);
        assert!(matches!(whole.issuers[0].services.project, ProjectOf::Table { .. }));
        let first = std::fs::read(data.join("master.key")).expect("a key was made");
        check("origin = \"https://hearth.example.org\"").expect("settings");
        assert_eq!(std::fs::read(data.join("master.key")).expect("a key"), first, "and kept");
        for (text, says) in [
            ("origin = 1", "origin"),
            ("orgin = \"https://a\"", "orgin"),
            ("origin = \"https://a\"\nmaster_key = \"short\"", "master_key"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(says) && error.contains("signin.toml"), "{error}");
        }
        std::fs::remove_dir_all(data).expect("removed");
    }
}
