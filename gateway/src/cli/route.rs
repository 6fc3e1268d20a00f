//! `hearth route explain`: who would answer a request, by what a running server knows now.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;

use clap::Subcommand;
use reqwest::Url;
use serde_json::{Value, json};

use super::admin::show::{Table, money, text};
use super::exit::{self, Failure, Outcome};
use super::http::Server;

/// Flags of `hearth route`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say who would answer a request, and why, without asking anybody
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server is shown the key in HEARTH_API_KEY, which needs the permission 'metrics.read' where \
keys have roles. The request is judged as that key's.")]
struct Explain {
    #[command(flatten)]
    server: Server,
    /// The model or the pool that the request names; beside --body, in place of what that names
    #[arg(long, required_unless_present = "body")]
    model: Option<String>,
    /// The prompt
    #[arg(long, default_value = "Hello!", conflicts_with = "body")]
    prompt: String,
    /// New tokens that it asks for
    #[arg(long, value_name = "N", conflicts_with = "body")]
    max_tokens: Option<u32>,
    /// A note of the request, which rules may look at
    #[arg(long, value_name = "NAME=VALUE", value_parser = note, conflicts_with = "body")]
    metadata: Vec<(String, String)>,
    /// The request itself, as a client would send it: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// By which route it would come, where its body could be for several: chat, completions,
    /// responses, messages, gemini, embeddings, rerank, cohere or score
    #[arg(long)]
    surface: Option<String>,
    /// It is at least so secret: public, internal, confidential or restricted
    #[arg(long)]
    label: Option<String>,
    /// Print what the server answers
    #[arg(long)]
    json: bool,
}

fn note(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Asks the server and prints what it says.
///
/// # Errors
/// The server is not there, or refuses.
pub fn run(args: &Args) -> Outcome {
    let Command::Explain(explain) = &args.command;
    let body = explain.request()?;
    let said = [("label", &explain.label), ("surface", &explain.surface)];
    let said = said.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    // Only its query is used: what is said is to arrive as it was said.
    let url = Url::parse_with_params("http://server", said)
        .map_err(|error| exit::internal(format!("no query: {error}")))?;
    let path = format!("/v1/route/explain?{}", url.query().unwrap_or_default());
    let answer = super::runtime(1)?
        .block_on(async { explain.server.connect()?.post(&path, &body).await })?;
    if explain.json {
        let text = serde_json::to_string_pretty(&answer).unwrap_or_default();
        return exit::print(&format!("{text}\n"));
    }
    show(&answer)
}

impl Explain {
    fn request(&self) -> Result<Value, Failure> {
        let Some(file) = &self.body else {
            let metadata: Value =
                self.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            return Ok(json!({
                "model": self.model,
                "messages": [{ "role": "user", "content": self.prompt }],
                "max_tokens": self.max_tokens,
                "metadata": metadata,
            }));
        };
        let shown = file.display();
        let wrong = |why: &dyn std::fmt::Display| exit::usage(format!("{shown}: {why}"));
        let mut text = String::new();
        if file.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).map_err(|error| wrong(&error))?;
        } else {
            text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
        }
        let mut body: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        if let (Some(model), Some(fields)) = (&self.model, body.as_object_mut()) {
            fields.insert("model".to_owned(), model.as_str().into());
        }
        Ok(body)
    }
}

fn show(answer: &Value) -> Outcome {
    let order: Vec<String> = answer["order"].as_array().into_iter().flatten().map(text).collect();
    if answer["pool"].is_null() {
        exit::print(&format!("{} answers: {}\n", order.join(""), text(&answer["reason"])))?;
        return nodes(&[answer]);
    }
    let first =
        if order.is_empty() { "nobody may answer".to_owned() } else { order.join(", then ") };
    exit::print(&format!(
        "{}: {first}\nreason {}; {} with label {}; about {} tokens; {} tries at most\n{}\n",
        text(&answer["pool"]),
        text(&answer["reason"]),
        text(&answer["surface"]),
        text(&answer["label"]),
        text(&answer["input_tokens"]),
        text(&answer["attempts"]),
        overflow(&answer["overflow"]),
    ))?;
    let mut table = Table::new(&[
        "CANDIDATE",
        "AS",
        "SAYS",
        "#WEIGHT",
        "#OPEN",
        "#QUEUE",
        "#WAIT (ms)",
        "#FIRST BYTE (ms)",
        "#COST",
    ]);
    for one in answer["candidates"].as_array().into_iter().flatten() {
        table.row(vec![
            text(&one["target"]),
            text(&one["group"]),
            text(&one["verdict"]),
            text(&one["weight"]),
            text(&one["open"]),
            text(&one["queue"]),
            text(&one["wait_ms"]),
            text(&one["first_byte_ms"]),
            money(&one["cost_nano_usd"]),
        ]);
    }
    table.print("the pool has no targets")?;
    nodes(&answer["candidates"].as_array().into_iter().flatten().collect::<Vec<_>>())
}

/// The nodes of those that are made on some.
fn nodes(of: &[&Value]) -> Outcome {
    let mut table = Table::new(&[
        "NODE",
        "OF",
        "SAYS",
        "#OPEN",
        "#QUEUE",
        "#HELD (tokens)",
        "#PAGES FREE",
        "#FIRST TOKEN (us)",
    ]);
    let mut any = false;
    for one in of {
        if !one["prompt_unread"].is_null() {
            let why = text(&one["prompt_unread"]);
            exit::print(&format!("\nas for any prompt, since this one is not read: {why}\n"))?;
        }
        for node in one["nodes"].as_array().into_iter().flatten() {
            any = true;
            let says =
                if node["chosen"] == true { "is chosen".into() } else { text(&node["verdict"]) };
            let of = if one["target"].is_null() { &one["model"] } else { &one["target"] };
            let numbers = ["open", "queue", "held_tokens", "pages_free", "first_token_us"];
            let numbers = numbers.iter().map(|name| text(&node[*name]));
            table.row([text(&node["node"]), text(of), says].into_iter().chain(numbers).collect());
        }
    }
    if !any {
        return Ok(());
    }
    exit::print("\n")?;
    table.print("")
}

/// A line for each local target: what it has of each bound.
fn overflow(told: &Value) -> String {
    if told.is_null() {
        return String::new();
    }
    let on = if told["on"] == true { "others answer" } else { "nobody else has to answer" };
    let mut out = format!("overflow: {on}\n");
    for one in told["now"].as_array().into_iter().flatten() {
        let bounds = told["when"].as_object().into_iter().flatten().map(|(name, bound)| {
            let now = one.get(name).map_or("-".to_owned(), text);
            format!("{name} {now} of {bound}")
        });
        let bounds: Vec<String> = bounds.collect();
        let (target, pressure) = (text(&one["target"]), text(&one["pressure"]));
        let _ = writeln!(out, "  {target}: {}; pressure {pressure}", bounds.join(", "));
    }
    out
}
