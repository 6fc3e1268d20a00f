//! `hearth admin teams`, `projects` and `users`

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, Kind, ORGANISATION, PROJECT, Query, TEAM, USER};
use super::show::{self, Table};
use crate::cli::exit::{self, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum Teams {
    /// List teams
    List,
    /// Make a team
    Create {
        name: String,
        /// Where it belongs [default: the key's organisation]
        #[arg(long)]
        organisation: Option<String>,
    },
    /// Delete a team without projects
    Delete {
        /// Its name or id
        team: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Projects {
    /// List projects
    List {
        /// Only this team's
        #[arg(long)]
        team: Option<String>,
    },
    /// Make a project
    Create {
        name: String,
        /// Where it belongs
        #[arg(long)]
        team: String,
    },
    /// Delete a project without keys
    Delete {
        /// Its name or id
        project: String,
        /// Its team, where several are called so
        #[arg(long)]
        team: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Users {
    /// List users
    List {
        /// Only those in this team
        #[arg(long)]
        team: Option<String>,
    },
    /// Make a user
    Create {
        /// Their address
        email: String,
        /// Their name
        #[arg(long)]
        name: Option<String>,
        /// A service account: never signs in, only holds keys
        #[arg(long)]
        service: bool,
        /// The teams that they are in
        #[arg(long = "team")]
        teams: Vec<String>,
    },
    /// Let nothing of theirs work any more
    Disable {
        /// Their address or id
        user: String,
    },
    /// Let it work again
    Enable {
        /// Their address or id
        user: String,
    },
    /// Make a link by which somebody sets a password, once and within a day
    Invite {
        /// Their address or id
        user: String,
    },
    /// Take a lost second factor away: the next sign-in enrols a new one
    ResetTotp {
        /// Their address or id
        user: String,
    },
}

impl Teams {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::List => {
                let teams = client.list("/teams", Vec::new()).await?;
                list(client, &teams, "ORGANISATION", "organisation", "no teams")
            }
            Self::Create { name, organisation } => {
                let mut body = json!({ "name": name });
                if let Some(organisation) = organisation {
                    let id = client.id(&ORGANISATION, organisation, Vec::new()).await?;
                    body["organisation"] = json!(id);
                }
                made(client, &client.post("/teams", &body).await?)
            }
            Self::Delete { team } => delete(client, &TEAM, team, Vec::new()).await,
        }
    }
}

impl Projects {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        let within = async |team: &Option<String>| match team {
            Some(team) => Ok(vec![("team", client.id(&TEAM, team, Vec::new()).await?)]),
            None => Ok::<Query<'_>, Failure>(Vec::new()),
        };
        match self {
            Self::List { team } => {
                let projects = client.list("/projects", within(team).await?).await?;
                list(client, &projects, "TEAM", "team", "no projects")
            }
            Self::Create { name, team } => {
                let team = client.id(&TEAM, team, Vec::new()).await?;
                let body = json!({ "name": name, "team": team });
                made(client, &client.post("/projects", &body).await?)
            }
            Self::Delete { project, team } => {
                let within = within(team).await?;
                delete(client, &PROJECT, project, within).await
            }
        }
    }
}

impl Users {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::List { team } => {
                let mut query = Vec::new();
                if let Some(team) = team {
                    query.push(("team", client.id(&TEAM, team, Vec::new()).await?));
                }
                let users = client.list("/users", query).await?;
                if show::json(client, &users)? {
                    return Ok(());
                }
                let mut table = Table::new(&["EMAIL", "NAME", "ID", "KIND", "STATE"]);
                for user in show::things(&users) {
                    let kind = if user["service"] == true { "service" } else { "person" };
                    let state = if user["disabled"] == true { "disabled" } else { "active" };
                    table.row(vec![
                        show::text(&user["email"]),
                        show::text(&user["name"]),
                        show::text(&user["id"]),
                        kind.to_owned(),
                        state.to_owned(),
                    ]);
                }
                table.print("no users")
            }
            Self::Create { email, name, service, teams } => {
                let mut ids = Vec::new();
                for team in teams {
                    ids.push(client.id(&TEAM, team, Vec::new()).await?);
                }
                let mut body = json!({ "email": email, "service": service, "teams": ids });
                if let Some(name) = name {
                    body["name"] = json!(name);
                }
                made(client, &client.post("/users", &body).await?)
            }
            Self::Disable { user } => disable(client, user, true).await,
            Self::Enable { user } => disable(client, user, false).await,
            Self::Invite { user } => {
                let id = client.id(&USER, user, Vec::new()).await?;
                let link = client.post("/signin/link", &json!({ "user": id })).await?;
                if show::json(client, &link)? {
                    return Ok(());
                }
                exit::print(&format!("{}\n", show::text(&link["url"])))
            }
            Self::ResetTotp { user } => {
                let id = client.id(&USER, user, Vec::new()).await?;
                let user = client.post(&format!("/users/{id}/reset-totp"), &Value::Null).await?;
                if show::json(client, &user)? {
                    return Ok(());
                }
                let who = show::text(&user["email"]);
                exit::print(&format!("{who} has no second factor until the next sign-in\n"))
            }
        }
    }
}

async fn disable(client: &Client, user: &str, disabled: bool) -> Outcome {
    let id = client.id(&USER, user, Vec::new()).await?;
    let body = json!({ "disabled": disabled });
    let user = client.patch(&format!("/users/{id}"), &body).await?;
    if show::json(client, &user)? {
        return Ok(());
    }
    let state = if disabled { "disabled" } else { "enabled" };
    exit::print(&format!("{} is {state}\n", show::text(&user["email"])))
}

fn list(
    client: &Client,
    things: &Value,
    head: &'static str,
    parent: &str,
    nothing: &str,
) -> Outcome {
    if show::json(client, things)? {
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "ID", head, "MADE (UTC)"]);
    for thing in show::things(things) {
        table.row(vec![
            show::text(&thing["name"]),
            show::text(&thing["id"]),
            show::text(&thing[parent]),
            show::time(&thing["created_at"]),
        ]);
    }
    table.print(nothing)
}

/// Prints the id of what was made: scripts go on with it.
pub(super) fn made(client: &Client, thing: &Value) -> Outcome {
    if show::json(client, thing)? {
        return Ok(());
    }
    exit::print(&format!("{}\n", show::text(&thing["id"])))
}

pub(super) async fn delete(
    client: &Client,
    kind: &Kind,
    called: &str,
    within: Query<'_>,
) -> Outcome {
    let id = client.id(kind, called, within).await?;
    let answer = client.delete(&format!("/{}/{id}", kind.path)).await?;
    if show::json(client, &answer)? {
        return Ok(());
    }
    exit::print(&format!("{} {id} was deleted\n", kind.one))
}

/// The id of a thing; where it is missing, that of the new one.
pub(super) async fn made_or_found(
    client: &Client,
    kind: &Kind,
    called: &str,
    within: Query<'_>,
    new: Option<Value>,
) -> Result<String, Failure> {
    if let Some(id) = client.find(kind, called, within).await? {
        return Ok(id);
    }
    let Some(new) = new else {
        return Err(exit::usage(format!(
            "there is no {} '{called}'. `hearth admin {} list` shows them; --create makes it",
            kind.one, kind.path
        )));
    };
    let made = client.post(&format!("/{}", kind.path), &new).await?;
    Ok(show::text(&made["id"]))
}
