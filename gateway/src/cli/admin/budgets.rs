//! `hearth admin budgets`

use clap::{ArgGroup, Subcommand};
use serde_json::{Value, json};

use super::client::{BUDGET, Client};
use super::show::{self, Table};
use super::tree::{delete, made};
use crate::cli::exit::{self, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(super) enum Budgets {
    /// Make a budget
    Create(Box<Create>),
    /// List budgets, and how they stand
    List,
    /// Put money on top of a limit for some time
    Raise {
        /// The budget's name or id
        budget: String,
        /// How much more, in dollars
        #[arg(long, value_name = "DOLLARS")]
        by: String,
        /// The limit: day, week, month or total [default: the budget's only one]
        #[arg(long, value_name = "PERIOD")]
        limit: Option<String>,
        /// Until when: 2026-12-01 or 2026-12-01T12:00:00Z; a day begins in UTC
        #[arg(long, value_name = "TIME")]
        until: String,
        /// Why, for the audit
        #[arg(long)]
        reason: String,
    },
    /// Delete a budget
    Delete {
        /// Its name or id
        budget: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("whose").required(true)
    .args(["organisation", "team", "project", "user", "of_key", "everything"])))]
#[command(group(ArgGroup::new("limits").required(true).multiple(true)
    .args(["day", "week", "month", "total"])))]
pub(super) struct Create {
    /// Its name
    #[arg(long)]
    name: String,
    /// Bounds an organisation's spending
    #[arg(long)]
    organisation: Option<String>,
    /// Bounds a team's spending
    #[arg(long)]
    team: Option<String>,
    /// Bounds a project's spending
    #[arg(long)]
    project: Option<String>,
    /// Bounds a user's spending
    #[arg(long)]
    user: Option<String>,
    /// Bounds a key's spending
    #[arg(long, value_name = "KEY")]
    of_key: Option<String>,
    /// Bounds all spending
    #[arg(long)]
    everything: bool,
    /// Dollars a day
    #[arg(long, value_name = "DOLLARS")]
    day: Option<String>,
    /// Dollars a week
    #[arg(long, value_name = "DOLLARS")]
    week: Option<String>,
    /// Dollars a month
    #[arg(long, value_name = "DOLLARS")]
    month: Option<String>,
    /// Dollars in all
    #[arg(long, value_name = "DOLLARS")]
    total: Option<String>,
    /// Tell, and refuse nothing
    #[arg(long)]
    soft: bool,
    /// Shares at which an alert is sent, in percent
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    alert: Vec<u8>,
    /// Only spending on models of this pattern
    #[arg(long)]
    model: Option<String>,
    /// Zone in which days begin [default: the organisation's]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

impl Budgets {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List => {
                let budgets = client.list("/budgets", Vec::new()).await?;
                if show::json(client, &budgets)? {
                    return Ok(());
                }
                table(&budgets).print("no budgets")
            }
            Self::Raise { budget, by, limit, until, reason } => {
                let id = client.id(&BUDGET, budget, Vec::new()).await?;
                let found = client.get(&format!("/budgets/{id}"), &Vec::new()).await?;
                let body = json!({
                    "limit": which(&found, limit.as_deref())?,
                    "usd": dollars(by),
                    "until": time(until)?,
                    "reason": reason,
                });
                let raised = client.post(&format!("/budgets/{id}/raise"), &body).await?;
                if show::json(client, &raised)? {
                    return Ok(());
                }
                table(&json!({ "data": [raised] })).print("")
            }
            Self::Delete { budget } => delete(client, &BUDGET, budget, Vec::new()).await,
        }
    }
}

impl Create {
    async fn run(&self, client: &Client) -> Outcome {
        let periods = [
            ("day", &self.day),
            ("week", &self.week),
            ("month", &self.month),
            ("total", &self.total),
        ];
        let limit = |(period, usd): (&str, &Option<String>)| {
            let usd = usd.as_ref().map(|usd| dollars(usd))?;
            let (soft, alerts) = (self.soft, &self.alert);
            Some(json!({ "period": period, "usd": usd, "soft": soft, "alert_percent": alerts }))
        };
        let limits: Vec<Value> = periods.into_iter().filter_map(limit).collect();
        let mut body =
            json!({ "name": self.name, "scope": self.scope(client).await?, "limits": limits });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if let Some(zone) = &self.time_zone {
            body["time_zone"] = json!(zone);
        }
        made(client, &client.post("/budgets", &body).await?)
    }

    async fn scope(&self, client: &Client) -> Result<String, Failure> {
        let Self { organisation, team, project, user, of_key, .. } = self;
        let found = client.tree([organisation, team, project, user, of_key]).await?;
        let scope = found.first().map(|(kind, id)| format!("{kind}:{id}"));
        Ok(scope.unwrap_or_else(|| "everything".to_owned()))
    }
}

/// As the server reads amounts.
fn dollars(text: &str) -> String {
    text.trim().trim_start_matches('$').to_owned()
}

fn time(text: &str) -> Result<i64, Failure> {
    let at = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let day: jiff::civil::Date = text.parse().ok()?;
        day.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp())
    });
    at.map(jiff::Timestamp::as_millisecond).ok_or_else(|| {
        exit::usage(format!("--until {text}: write 2026-12-01 or 2026-12-01T12:00:00Z"))
    })
}

/// The number of the limit with a period.
fn which(budget: &Value, period: Option<&str>) -> Result<usize, Failure> {
    let limits = budget["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found: Vec<usize> = (0..limits.len())
        .filter(|at| period.is_none_or(|period| limits[*at]["period"] == period))
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        _ => {
            let periods: Vec<String> =
                limits.iter().map(|limit| show::text(&limit["period"])).collect();
            let periods = periods.join(", ");
            Err(exit::usage(format!("this budget has the limits {periods}: name one with --limit")))
        }
    }
}

fn table(budgets: &Value) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "OF",
        "PERIOD",
        "#ALLOWED ($)",
        "#SPENT ($)",
        "#HELD ($)",
        "#LEFT ($)",
        "KIND",
        "ENDS (UTC)",
        "ID",
    ]);
    for budget in show::things(budgets) {
        for limit in budget["standing"].as_array().into_iter().flatten() {
            let kind = if limit["soft"] == true { "soft" } else { "hard" };
            table.row(vec![
                show::text(&budget["name"]),
                show::text(&budget["scope"]),
                show::text(&limit["period"]),
                show::money(&limit["allowed_nano_usd"]),
                show::money(&limit["spent_nano_usd"]),
                show::money(&limit["held_nano_usd"]),
                show::money(&limit["left_nano_usd"]),
                kind.to_owned(),
                show::time(&limit["window"]["end"]),
                show::text(&budget["id"]),
            ]);
        }
    }
    table
}
