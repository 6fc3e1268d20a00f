//! `hearth admin bodies`

use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, ORGANISATION, Query, USER};
use super::show::{self, Table};
use crate::cli::exit::{self, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum Bodies {
    /// The newest recorded texts, without what they say
    List {
        #[command(flatten)]
        which: Which,
        /// How many, up to 200
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// What was said in an operation; the audit says who looked
    Show {
        /// The operation's id
        operation: String,
        /// Whose it is [default: the key's organisation]
        #[arg(long)]
        organisation: Option<String>,
    },
    /// Erase recorded texts and their keys, for good
    Erase {
        #[command(flatten)]
        which: Which,
        /// Only of requests let in before: 2026-12-01 or 2026-12-01T12:00:00Z
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Whose [default: the key's organisation]
    #[arg(long)]
    organisation: Option<String>,
    /// Only this user's
    #[arg(long)]
    user: Option<String>,
}

impl Which {
    async fn query(&self, client: &Client) -> Result<Query<'static>, Failure> {
        let mut query = of(client, self.organisation.as_deref()).await?;
        if let Some(called) = &self.user {
            query.push(("user", client.id(&USER, called, Vec::new()).await?));
        }
        Ok(query)
    }
}

async fn of(client: &Client, organisation: Option<&str>) -> Result<Query<'static>, Failure> {
    let Some(called) = organisation else { return Ok(Vec::new()) };
    Ok(vec![("organisation", client.id(&ORGANISATION, called, Vec::new()).await?)])
}

impl Bodies {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::List { which, limit } => {
                let mut query = which.query(client).await?;
                query.push(("limit", limit.to_string()));
                let found = client.get("/bodies", &query).await?;
                if show::json(client, &found)? {
                    return Ok(());
                }
                table(&found).print("nothing is recorded")
            }
            Self::Show { operation, organisation } => {
                let query = of(client, organisation.as_deref()).await?;
                let found = client.get(&format!("/bodies/{operation}"), &query).await?;
                if show::json(client, &found)? {
                    return Ok(());
                }
                for attempt in found["attempts"].as_array().into_iter().flatten() {
                    for part in ["request", "answer"] {
                        exit::print(&format!("{part}:\n{}\n", show::text(&attempt[part])))?;
                    }
                }
                Ok(())
            }
            Self::Erase { which, before } => {
                let mut query = which.query(client).await?;
                query.extend(before.as_ref().map(|before| ("before", before.clone())));
                let erased = client.delete_where("/bodies", &query).await?;
                if show::json(client, &erased)? {
                    return Ok(());
                }
                exit::print(&format!("{} erased\n", show::text(&erased["erased"])))
            }
        }
    }
}

fn table(found: &Value) -> Table {
    let mut table =
        Table::new(&["TIME (UTC)", "OPERATION", "LABEL", "USER", "KEY", "#BYTES", "UNTIL (UTC)"]);
    for one in show::things(found) {
        table.row(vec![
            show::time(&one["at"]),
            show::text(&one["operation"]),
            show::text(&one["label"]),
            show::text(&one["user"]),
            show::text(&one["key"]),
            show::text(&one["bytes"]),
            show::time(&one["expires"]),
        ]);
    }
    table
}
