//! `hearth chat`: a conversation in the terminal. Piped, it asks one question and ends.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::pin::pin;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::exit::{self, Failure, Outcome};
use super::http::{Connection, Server, events};

/// Flags of `hearth chat`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// The model [default: the server's first]
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer in tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 always takes the most probable token
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
}

const HELP: &str = "/system TEXT  sets the instructions    /clear  starts over    /exit  leaves";

/// A question from standard input when that is no terminal, else a conversation.
///
/// # Errors
/// The server is not there, or refuses.
pub fn run(args: &Args) -> Outcome {
    super::runtime(1)?.block_on(async {
        let connection = args.server.connect()?;
        let model = match args.model.clone() {
            Some(model) => model,
            None => connection.models().await?.into_iter().next().ok_or_else(|| {
                exit::unavailable(
                    "the server has no model of its own yet; try again in a moment, or name one \
                     with --model",
                )
            })?,
        };
        let mut chat = Chat { connection, model, args: args.clone(), messages: Vec::new() };
        chat.clear();
        if std::io::stdin().is_terminal() { chat.talk().await } else { chat.ask_once().await }
    })
}

struct Chat {
    connection: Connection,
    model: String,
    args: Args,
    messages: Vec<Value>,
}

impl Chat {
    fn clear(&mut self) {
        let system = self.args.system.iter();
        self.messages = system.map(|text| json!({"role": "system", "content": text})).collect();
    }

    async fn ask_once(&mut self) -> Outcome {
        let mut question = String::new();
        let read = std::io::stdin().read_to_string(&mut question);
        read.map_err(|error| exit::usage(format!("standard input: {error}")))?;
        if question.trim().is_empty() {
            return Err(exit::usage("no question: echo 'Who are you?' | hearth chat"));
        }
        self.answer(question.trim()).await?;
        exit::print("\n")
    }

    async fn talk(&mut self) -> Outcome {
        exit::print(&format!("{}   {HELP}\n", self.model))?;
        loop {
            exit::print("\n> ")?;
            let mut line = String::new();
            match std::io::stdin().lock().read_line(&mut line) {
                Ok(0) | Err(_) => return exit::print("\n"),
                Ok(_) => {}
            }
            match line.trim() {
                "" => {}
                "/exit" | "/quit" => return Ok(()),
                "/clear" => self.clear(),
                "/help" => exit::print(&format!("{HELP}\n"))?,
                command if command.starts_with("/system") => {
                    let text = command.trim_start_matches("/system").trim();
                    self.args.system = (!text.is_empty()).then(|| text.to_owned());
                    self.clear();
                }
                command if command.starts_with('/') => {
                    exit::print(&format!("no such command; {HELP}\n"))?;
                }
                question => {
                    // A refusal ends the question, not the conversation.
                    if let Err(failure) = self.answer(question).await {
                        let _ = writeln!(std::io::stderr(), "\n{failure}");
                        self.messages.pop();
                    } else {
                        exit::print("\n")?;
                    }
                }
            }
        }
    }

    /// Asks, prints the answer as it comes, and keeps both.
    async fn answer(&mut self, question: &str) -> Result<(), Failure> {
        self.messages.push(json!({"role": "user", "content": question}));
        let mut body = json!({
            "model": self.model,
            "messages": self.messages,
            "stream": true,
        });
        if let Some(most) = self.args.max_tokens {
            body["max_tokens"] = json!(most);
        }
        if let Some(temperature) = self.args.temperature {
            body["temperature"] = json!(temperature);
        }
        let mut events = pin!(events(self.connection.chat(&body).await?));
        let mut answer = String::new();
        let mut thoughts = Thoughts::default();
        while let Some(event) = events.try_next().await? {
            if let Some(problem) = event["error"]["message"].as_str() {
                return Err(exit::unavailable(format!("the answer broke off: {problem}")));
            }
            let delta = &event["choices"][0]["delta"];
            if let Some(text) = delta["reasoning_content"].as_str() {
                thoughts.show(text);
            }
            if let Some(text) = delta["content"].as_str().filter(|text| !text.is_empty()) {
                thoughts.end();
                exit::print(text)?;
                answer.push_str(text);
            }
        }
        thoughts.end();
        self.messages.push(json!({"role": "assistant", "content": answer}));
        Ok(())
    }
}

/// A model's thoughts, beside its answer: on standard error, so that a pipe gets the answer alone,
/// and faint on a terminal.
#[derive(Default)]
struct Thoughts {
    begun: bool,
}

impl Thoughts {
    /// Thoughts that cannot be shown are no reason to end.
    fn show(&mut self, text: &str) {
        let mut out = std::io::stderr();
        if !self.begun && out.is_terminal() {
            let _ = out.write_all(b"\x1b[2m");
        }
        self.begun = true;
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            let mut out = std::io::stderr();
            let plain: &[u8] = if out.is_terminal() { b"\x1b[0m\n\n" } else { b"\n" };
            let _ = out.write_all(plain);
        }
    }
}
