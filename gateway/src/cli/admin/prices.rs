//! `hearth admin prices`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use super::client::Client;
use super::show::{self, Table};
use super::tree::made;
use crate::cli::exit::{self, Outcome};

/// A price sheet is a few thousand lines at most.
const FILE_BYTES_MAX: u64 = 2 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Prices {
    /// Put a sheet in force
    #[command(after_help = "\
The file is JSON; prices are micro-dollars per million tokens, the first match counts:\n  \
{\"name\": \"2026-11\", \"models\": [{\"model\": \"small-*\", \"input\": 150000, \"output\": 600000}]}\n\n\
A local model may be sold by its device's time (nano-dollars per second and kilowatt-hour):\n  \
{\"model\": \"own-*\", \"input\": 0, \"output\": 0, \"device\": {\"gpu_second\": 700000,\n   \
\"kwh\": 250000000, \"watts\": 400, \"us_per_token_max\": 50000}}\n\n\
Requests that may wait (`service_tier` \"flex\") cost what `batch` says, where it says something:\n  \
{\"model\": \"small-*\", \"input\": 150000, \"output\": 600000,\n   \
\"batch\": {\"input\": 75000, \"output\": 300000}}")]
    Set {
        /// The sheet
        file: PathBuf,
    },
    /// List sheets
    List,
}

impl Prices {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        match self {
            Self::Set { file } => {
                let shown = file.display();
                let wrong = |error: std::io::Error| exit::usage(format!("{shown}: {error}"));
                if std::fs::metadata(file).map_err(wrong)?.len() > FILE_BYTES_MAX {
                    return Err(exit::usage(format!("{shown} is too large for a price sheet")));
                }
                let text = std::fs::read(file).map_err(wrong)?;
                let sheet: Value = serde_json::from_slice(&text)
                    .map_err(|error| exit::data(format!("{shown} is no JSON: {error}")))?;
                made(client, &client.post("/prices", &sheet).await?)
            }
            Self::List => {
                let sheets = client.list("/prices", Vec::new()).await?;
                if show::json(client, &sheets)? {
                    return Ok(());
                }
                let mut table = Table::new(&[
                    "SHEET",
                    "FROM (UTC)",
                    "MODEL",
                    "#INPUT ($/M tokens)",
                    "#OUTPUT ($/M tokens)",
                    "#AS A BATCH ($/M tokens)",
                    "#DEVICE ($/h)",
                    "ID",
                ]);
                for sheet in show::things(&sheets) {
                    for price in sheet["models"].as_array().into_iter().flatten() {
                        table.row(vec![
                            show::text(&sheet["name"]),
                            show::time(&sheet["effective_from"]),
                            show::text(&price["model"]),
                            per_million(&price["input"]),
                            per_million(&price["output"]),
                            both(&price["batch"]),
                            per_hour(&price["device"]),
                            show::text(&sheet["id"]),
                        ]);
                    }
                }
                table.print("no prices: nothing costs anything")
            }
        }
    }
}

/// Dollars for an hour of a device's time, its energy among it.
fn per_hour(device: &Value) -> String {
    let number = |name: &str| device[name].as_i64().unwrap_or_default();
    let energy = number("kwh").checked_mul(number("watts")).map(|nano| nano / 1000);
    let time = number("gpu_second").checked_mul(3600);
    let nano = time.zip(energy).and_then(|(time, energy)| time.checked_add(energy));
    let there = nano.filter(|_| device.is_object());
    there.map(|nano| govern::Money(nano).to_string()).unwrap_or_default()
}

/// What a batch's prompts and answers cost.
fn both(prices: &Value) -> String {
    let [input, output] = ["input", "output"].map(|name| per_million(&prices[name]));
    if prices.is_object() { format!("{input} / {output}") } else { String::new() }
}

/// Micro-dollars as dollars.
fn per_million(value: &Value) -> String {
    let nano = value.as_i64().and_then(|micro| micro.checked_mul(1000));
    nano.map(|nano| govern::Money(nano).to_string()).unwrap_or_default()
}
