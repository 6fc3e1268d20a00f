//! `hearth admin usage`

use serde_json::Value;

use super::client::Client;
use super::show::{self, Table};
use crate::cli::exit::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Usage {
    /// What rows are told apart by: organisation, team, project, user, key, model, label
    #[arg(long, value_name = "LIST", default_value = "team,model")]
    by: String,
    /// The first day, or time [default: the first of this month]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The first day after it, or time [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Cut the time into hour, day, week or month
    #[arg(long, value_name = "PERIOD")]
    bucket: Option<String>,
    /// Zone in which days begin [default: the organisation's]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Only this organisation's
    #[arg(long)]
    organisation: Option<String>,
    /// Only this team's
    #[arg(long)]
    team: Option<String>,
    /// Only this project's
    #[arg(long)]
    project: Option<String>,
    /// Only this user's
    #[arg(long)]
    user: Option<String>,
    /// Only this key's
    #[arg(long, value_name = "KEY")]
    of_key: Option<String>,
    /// Only this model's
    #[arg(long)]
    model: Option<String>,
    /// Print it for a spreadsheet
    #[arg(long)]
    csv: bool,
}

impl Usage {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        let mut query = self.query(client).await?;
        if self.csv {
            query.push(("format", "csv".to_owned()));
            return client.print("/usage", &query).await;
        }
        let report = client.get("/usage", &query).await?;
        if show::json(client, &report)? {
            return Ok(());
        }
        self.table(&report).print("nothing was used")
    }

    async fn query(&self, client: &Client) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut query = vec![("group_by", self.by.clone())];
        for (name, value) in [
            ("from", &self.from),
            ("to", &self.to),
            ("bucket", &self.bucket),
            ("time_zone", &self.time_zone),
            ("model", &self.model),
        ] {
            query.extend(value.as_ref().map(|value| (name, value.clone())));
        }
        let Self { organisation, team, project, user, of_key, .. } = self;
        query.extend(client.tree([organisation, team, project, user, of_key]).await?);
        Ok(query)
    }

    fn table(&self, report: &Value) -> Table {
        const DIMENSIONS: [(&str, &str); 7] = [
            ("organisation", "ORGANISATION"),
            ("team", "TEAM"),
            ("project", "PROJECT"),
            ("user", "USER"),
            ("key", "KEY"),
            ("model", "MODEL"),
            ("label", "LABEL"),
        ];
        let words: Vec<&str> = self.by.split(',').map(str::trim).collect();
        let by: Vec<&(&str, &str)> = words
            .iter()
            .filter_map(|word| DIMENSIONS.iter().find(|(name, _)| name == word))
            .collect();
        let mut heads: Vec<&'static str> = Vec::new();
        heads.extend(self.bucket.as_ref().map(|_| "FROM (UTC)"));
        heads.extend(by.iter().map(|(_, head)| *head));
        heads.extend([
            "#REQUESTS",
            "#INPUT (tokens)",
            "#CACHED (tokens)",
            "#OUTPUT (tokens)",
            "#COST ($)",
        ]);
        let mut table = Table::new(&heads);
        for row in show::things(report) {
            let mut cells: Vec<String> = Vec::new();
            cells.extend(self.bucket.as_ref().map(|_| show::time(&row["start"])));
            cells.extend(by.iter().map(|(name, _)| {
                let called = show::text(&row["names"][*name]);
                if called.is_empty() { show::text(&row["about"][*name]) } else { called }
            }));
            for count in ["requests", "input_tokens", "cache_read_tokens", "output_tokens"] {
                cells.push(show::text(&row[count]));
            }
            cells.push(show::money(&row["cost_nano_usd"]));
            table.row(cells);
        }
        table
    }
}
