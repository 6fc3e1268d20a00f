//! `hearth admin policy`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, ORGANISATION};
use super::show::{self, Table};
use crate::cli::exit::{self, Outcome};

/// A file of changes has a price sheet at most.
const FILE_BYTES_MAX: u64 = 2 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Replay the ledger through changed policies, budgets or prices; nothing is changed
    #[command(after_help = "\
The file is JSON, a list of changes:\n  \
[{\"kind\": \"policy\", \"id\": \"team_...\", \"body\": {\"models\": [\"small-*\"]}},\n   \
{\"kind\": \"budget\", \"body\": {\"name\": \"b\", \"scope\": \"team:team_...\",\n                             \
\"limits\": [{\"period\": \"day\", \"usd\": \"5\"}]}},\n   \
{\"kind\": \"price\", \"body\": {\"models\": [{\"model\": \"*\", \"input\": 150000, \"output\": 600000}]}}]")]
    DryRun {
        /// The changes; without it what is there today is tried
        #[arg(long)]
        file: Option<PathBuf>,
        /// The first day, or time, of the ledger
        #[arg(long, value_name = "TIME")]
        from: String,
        /// The first day after it, or time [default: now]
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// Only this organisation's requests
        #[arg(long)]
        organisation: Option<String>,
    },
}

impl Policy {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        let Self::DryRun { file, from, to, organisation } = self;
        let mut body = json!({ "from": from });
        if let Some(file) = file {
            let shown = file.display();
            let wrong = |error: std::io::Error| exit::usage(format!("{shown}: {error}"));
            if std::fs::metadata(file).map_err(wrong)?.len() > FILE_BYTES_MAX {
                return Err(exit::usage(format!("{shown} is too large for a list of changes")));
            }
            let text = std::fs::read(file).map_err(wrong)?;
            let changes: Value = serde_json::from_slice(&text)
                .map_err(|error| exit::data(format!("{shown} is no JSON: {error}")))?;
            // One change alone is a list of one.
            body["changes"] = if changes.is_object() { json!([changes]) } else { changes };
        }
        if let Some(to) = to {
            body["to"] = json!(to);
        }
        if let Some(called) = organisation {
            body["organisation"] = json!(client.id(&ORGANISATION, called, Vec::new()).await?);
        }
        let found = client.post("/policy/dry-run", &body).await?;
        if show::json(client, &found)? {
            return Ok(());
        }
        print(&found)
    }
}

fn print(found: &Value) -> Outcome {
    let number = |name: &str| show::text(&found[name]);
    exit::print(&format!(
        "{} requests: {} would have been refused, {} had longer answers than allowed, {} would \
         have been ended by a budget\ncost {}, would have been {}\n\n",
        number("requests"),
        number("refused"),
        number("shortened"),
        number("cut"),
        show::money(&found["recorded_nano_usd"]),
        show::money(&found["would_be_nano_usd"]),
    ))?;
    let mut table = Table::new(&["REFUSED BY", "WHAT", "#REQUESTS"]);
    for by in ["rule", "key", "team", "model"] {
        for count in found[format!("by_{by}")].as_array().into_iter().flatten() {
            let (name, requests) = (show::text(&count["name"]), show::text(&count["requests"]));
            table.row(vec![by.to_owned(), name, requests]);
        }
    }
    table.print("nothing would have been refused")?;
    let examples = found["examples"].as_array().into_iter().flatten();
    for example in examples {
        let (operation, rule) = (show::text(&example["operation"]), show::text(&example["rule"]));
        exit::print(&format!("for example {operation} ({rule})\n"))?;
    }
    for not in found["not_judged"].as_array().into_iter().flatten() {
        let (what, why) = (show::text(&not["what"]), show::text(&not["why"]));
        exit::print(&format!("not judged: {what}: {why}\n"))?;
    }
    Ok(())
}
