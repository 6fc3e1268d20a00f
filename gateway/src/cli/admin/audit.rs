//! `hearth admin audit`

use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, ORGANISATION, Query};
use super::show::{self, Table};
use crate::cli::exit::{self, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// The newest records
    List {
        #[command(flatten)]
        which: Which,
        /// How many, up to 200
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Find out whether anything was altered, dropped or put in another order
    Verify {
        /// A record that was written down elsewhere, CHAIN:NUMBER:HASH: it must be there
        #[arg(long)]
        anchor: Option<String>,
    },
    /// All records as JSON lines, the newest first
    Export {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Only this organisation's
    #[arg(long)]
    organisation: Option<String>,
    /// Only records of this kind: admin, request, ...
    #[arg(long)]
    kind: Option<String>,
    /// The first day, or time
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The first day after it, or time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Which {
    async fn query(&self, client: &Client) -> Result<Query<'static>, Failure> {
        let mut query = Vec::new();
        for (name, value) in [("kind", &self.kind), ("from", &self.from), ("to", &self.to)] {
            query.extend(value.as_ref().map(|value| (name, value.clone())));
        }
        if let Some(called) = &self.organisation {
            query.push(("organisation", client.id(&ORGANISATION, called, Vec::new()).await?));
        }
        Ok(query)
    }
}

impl Audit {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::List { which, limit } => {
                let mut query = which.query(client).await?;
                query.push(("limit", limit.to_string()));
                let records = client.get("/audit", &query).await?;
                if show::json(client, &records)? {
                    return Ok(());
                }
                table(&records).print("no records")
            }
            Self::Verify { anchor } => {
                let query = anchor.iter().map(|anchor| ("anchor", anchor.clone())).collect();
                verified(client, &client.get("/audit/verify", &query).await?)
            }
            Self::Export { which } => {
                client.print("/audit/export", &which.query(client).await?).await
            }
        }
    }
}

fn verified(client: &Client, answer: &Value) -> Outcome {
    let broken = &answer["broken"];
    if broken.is_object() {
        show::json(client, answer)?;
        let (chain, number, why) = (&broken["chain"], &broken["number"], &broken["why"]);
        return Err(exit::data(format!(
            "the audit is broken at record {number} of chain {}: {}. Compare with an export or a \
             backup from before",
            show::text(chain),
            show::text(why)
        )));
    }
    if show::json(client, answer)? {
        return Ok(());
    }
    let count = show::text(&answer["summary"]["records"]);
    exit::print(&format!("{count} records, all whole and in order\n"))?;
    for head in answer["summary"]["heads"].as_array().into_iter().flatten() {
        let [chain, number, hash] = ["chain", "number", "hash"].map(|name| show::text(&head[name]));
        exit::print(&format!("anchor {chain}:{number}:{hash}\n"))?;
    }
    Ok(())
}

fn table(records: &Value) -> Table {
    let mut table =
        Table::new(&["TIME (UTC)", "KIND", "ACTION", "TARGET", "BY", "CHAIN", "#NUMBER"]);
    for record in show::things(records) {
        let body: Value =
            serde_json::from_str(record["body"].as_str().unwrap_or_default()).unwrap_or_default();
        let by = [&body["actor"]["user"], &body["actor"]["key_prefix"], &body["key"]];
        let by = by.into_iter().map(show::text).find(|text| !text.is_empty());
        let about = [&body["target"], &body["model"], &body["operation"]];
        let about = about.into_iter().map(show::text).find(|text| !text.is_empty());
        table.row(vec![
            show::time(&record["at"]),
            show::text(&record["kind"]),
            show::text(&body["action"]),
            about.unwrap_or_default(),
            by.unwrap_or_default(),
            show::text(&record["chain"]),
            show::text(&record["number"]),
        ]);
    }
    table
}
