//! `hearth admin keys`

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, KEY, PROJECT, TEAM, USER};
use super::show::{self, Table};
use super::tree::made_or_found;
use crate::cli::exit::{self, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key; it is shown this once
    Create(Box<Create>),
    /// List keys
    List {
        /// Only this team's
        #[arg(long)]
        team: Option<String>,
        /// Only this project's
        #[arg(long)]
        project: Option<String>,
        /// Only this user's
        #[arg(long)]
        user: Option<String>,
    },
    /// Refuse a key from now on
    Revoke {
        /// Its label, its id, or its visible part (hk-...)
        key: String,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<String>,
    },
    /// Make a key in the place of another one
    Rotate {
        /// Its label, its id, or its visible part (hk-...)
        key: String,
        /// How long the old key still works
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap: u32,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// What people call it
    #[arg(long)]
    label: String,
    /// The project that its requests are booked on
    #[arg(long)]
    project: Option<String>,
    /// The project's team
    #[arg(long)]
    team: Option<String>,
    /// Make the team and the project where they are missing
    #[arg(long, requires = "team", requires = "project")]
    create: bool,
    /// Whose it is: an address or an id
    #[arg(long)]
    user: Option<String>,
    /// Patterns of the models that it may ask
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Networks that its requests may come from
    #[arg(long, value_delimiter = ',')]
    networks: Vec<String>,
    /// How many days it works
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    /// The name in clients' certificates that opens it in place of a secret, such as
    /// uri:spiffe://example.org/ci or dns:ci.example.org
    #[arg(long, value_name = "NAME")]
    certificate: Option<String>,
    /// What it may administer, such as admin@team:ID; once for each
    #[arg(long = "grant", value_name = "ROLE@SCOPE")]
    grants: Vec<String>,
}

impl Keys {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List { team, project, user } => {
                let mut query = Vec::new();
                if let Some(team) = team {
                    query.push(("team", client.id(&TEAM, team, Vec::new()).await?));
                }
                if let Some(project) = project {
                    query.push(("project", client.id(&PROJECT, project, Vec::new()).await?));
                }
                if let Some(user) = user {
                    query.push(("user", client.id(&USER, user, Vec::new()).await?));
                }
                let keys = client.list("/keys", query).await?;
                if show::json(client, &keys)? { Ok(()) } else { table(&keys).print("no keys") }
            }
            Self::Revoke { key, reason } => {
                let id = client.id(&KEY, key, Vec::new()).await?;
                let body = json!({ "reason": reason });
                let key = client.post(&format!("/keys/{id}/revoke"), &body).await?;
                if show::json(client, &key)? {
                    return Ok(());
                }
                exit::print(&format!("{} was revoked\n", show::text(&key["prefix"])))
            }
            Self::Rotate { key, overlap } => {
                let id = client.id(&KEY, key, Vec::new()).await?;
                let body = json!({ "overlap_seconds": overlap });
                made(client, &client.post(&format!("/keys/{id}/rotate"), &body).await?)
            }
        }
    }
}

impl Create {
    async fn run(&self, client: &Client) -> Outcome {
        let mut body = json!({ "label": self.label });
        if let Some(project) = self.project(client).await? {
            body["project"] = json!(project);
        }
        if let Some(user) = &self.user {
            body["user"] = json!(client.id(&USER, user, Vec::new()).await?);
        }
        if !self.models.is_empty() {
            body["policy"]["models"] = json!(self.models);
        }
        if !self.networks.is_empty() {
            body["policy"]["networks"] = json!(self.networks);
        }
        if let Some(days) = self.days {
            let now = jiff::Timestamp::now().as_millisecond();
            body["expires_at"] = json!(now + i64::from(days) * 86_400_000);
        }
        if let Some(certificate) = &self.certificate {
            body["certificate"] = json!(certificate);
        }
        body["grants"] = self.grants.iter().map(|text| grant(text)).collect::<Result<_, _>>()?;
        made(client, &client.post("/keys", &body).await?)
    }

    async fn project(&self, client: &Client) -> Result<Option<String>, Failure> {
        let Some(project) = &self.project else {
            return match self.team {
                Some(_) => Err(exit::usage("a key belongs to a project: say --project too")),
                None => Ok(None),
            };
        };
        let mut within = Vec::new();
        if let Some(team) = &self.team {
            let new = || json!({ "name": team });
            let team =
                made_or_found(client, &TEAM, team, Vec::new(), self.create.then(new)).await?;
            within.push(("team", team));
        }
        let new = || json!({ "name": project, "team": within.first().map(|(_, team)| team) });
        let new = self.create.then(new);
        made_or_found(client, &PROJECT, project, within.clone(), new).await.map(Some)
    }
}

fn grant(text: &str) -> Result<Value, Failure> {
    match text.split_once('@') {
        Some((role, scope)) => Ok(json!({ "role": role, "scope": scope })),
        None => {
            Err(exit::usage(format!("--grant {text}: write ROLE@SCOPE, such as admin@team:ID")))
        }
    }
}

/// A key that was just made: the one time that it is seen.
fn made(client: &Client, key: &Value) -> Outcome {
    if show::json(client, key)? {
        return Ok(());
    }
    if !key["certificate"].is_null() {
        return exit::print(&format!("{}\n", show::text(&key["id"])));
    }
    exit::print(&format!("{}\n", show::text(&key["key"])))?;
    eprintln!("This is the only time that the key is shown. Keep it where secrets are kept.");
    Ok(())
}

fn table(keys: &Value) -> Table {
    let heads = ["LABEL", "KEY", "ID", "PROJECT", "MADE (UTC)", "EXPIRES (UTC)", "REVOKED (UTC)"];
    let mut table = Table::new(&heads);
    for key in show::things(keys) {
        table.row(vec![
            show::text(&key["label"]),
            show::text(&key["prefix"]),
            show::text(&key["id"]),
            show::text(&key["project"]),
            show::time(&key["created_at"]),
            show::time(&key["expires_at"]),
            show::time(&key["revoked_at"]),
        ]);
    }
    table
}
