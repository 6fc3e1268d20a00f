//! `hearth admin explain`

use serde_json::json;

use super::client::{Client, KEY};
use super::show::{self, Table};
use crate::cli::exit::{self, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The key that would be shown: its label, its id, or its visible part (hk-...)
    #[arg(long, value_name = "KEY")]
    of_key: String,
    /// The model
    #[arg(long)]
    model: String,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 0)]
    input_tokens: u64,
    /// New tokens that are asked for
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Names of the tools that are offered
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// How secret it is: public, internal, confidential or restricted
    #[arg(long)]
    label: Option<String>,
    /// The address that it comes from
    #[arg(long, value_name = "ADDRESS")]
    source: Option<String>,
}

impl Explain {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        let body = json!({
            "key": client.id(&KEY, &self.of_key, Vec::new()).await?,
            "model": self.model,
            "input_tokens": self.input_tokens,
            "max_tokens": self.max_tokens,
            "tools": self.tools,
            "label": self.label,
            "source": self.source,
        });
        let answer = client.post("/policy/explain", &body).await?;
        if show::json(client, &answer)? {
            return Ok(());
        }
        let served = if answer["served"] == true { "would be served" } else { "would be refused" };
        let key = &answer["key"];
        exit::print(&format!(
            "{served}: key {} ({}) is {}; cost {}; left {}\n\n",
            show::text(&key["label"]),
            show::text(&key["prefix"]),
            show::text(&key["state"]),
            or(show::money(&answer["cost_nano_usd"]), "nothing: the model has no price"),
            or(show::money(&answer["left_nano_usd"]), "without a bound"),
        ))?;
        let mut table = Table::new(&["LAYER", "RULE", "SAYS", "WHY"]);
        for finding in answer["findings"].as_array().into_iter().flatten() {
            let says = if finding["passed"] == true { "yes" } else { "no" };
            table.row(vec![
                show::text(&finding["layer"]),
                show::text(&finding["rule"]),
                says.to_owned(),
                show::text(&finding["text"]),
            ]);
        }
        table.print("no layer has a rule about it")
    }
}

fn or(text: String, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text }
}
