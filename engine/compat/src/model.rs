//! The only file that speaks to mistralrs: loads a model, starts an answer, reads its pieces.
//! Everything runs as a stream inside, because only then does mistralrs notice that nobody
//! listens. Knows no HTTP beyond the failures it returns.

use std::future::poll_fn;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::DynamicImage;
use mistralrs::core::SupportedModality;
use mistralrs::{
    CustomLogitsProcessor, GgufModelBuilder, Model, ModelBuilder, ModelCategory, ModelDType,
    NormalRequest, Request, RequestBuilder, RequestLike, Response, SamplingParams, StopTokens,
    Tensor, TextMessageRole, TokenSource,
};
use tokio::sync::mpsc::{Receiver, channel};

use crate::args::{Dtype, Source};
use crate::error::Failure;
use crate::request::{Ask, Role};
use crate::stop::Cutter;

/// A loaded model and what may be asked of it.
pub(crate) struct Node {
    model: Model,
    category: ModelCategory,
    /// Tokens of prompt and answer together.
    pub(crate) context: usize,
    /// Whether it takes images.
    pub(crate) sees: bool,
}

/// Loads a model for the CPU. Blocks its thread for as long as that takes.
///
/// # Errors
/// What mistralrs says, or that the model does not chat.
pub(crate) async fn load(source: &Source, dtype: Dtype, concurrent: usize) -> Result<Node, String> {
    // On the CPU its prefix cache never gives an entry back: caches are counted on GPUs only.
    let folder = |name: &str, token| {
        ModelBuilder::new(name)
            .with_force_cpu()
            .with_dtype(match dtype {
                Dtype::F32 => ModelDType::F32,
                Dtype::Bf16 => ModelDType::BF16,
                Dtype::F16 => ModelDType::F16,
            })
            .with_token_source(token)
            .with_max_num_seqs(concurrent)
            .with_prefix_cache_n(None)
    };
    let model = match source {
        Source::Folder(path) => folder(text(path)?, TokenSource::None).build().await,
        Source::Hub(name) => folder(name, TokenSource::CacheToken).build().await,
        Source::Gguf(path) => {
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            let file = Path::new(path.file_name().unwrap_or_default());
            GgufModelBuilder::new(text(parent.unwrap_or(Path::new(".")))?, vec![text(file)?])
                .with_force_cpu()
                .with_token_source(TokenSource::None)
                .with_max_num_seqs(concurrent)
                .with_prefix_cache_n(None)
                .build()
                .await
        }
    };
    let model = model.map_err(|error| format!("mistralrs cannot load the model: {error:#}"))?;
    let config = model.config().map_err(|error| error.to_string())?;
    let chats = matches!(config.category, ModelCategory::Text | ModelCategory::Multimodal { .. });
    let context = config.max_seq_len.filter(|context| chats && *context > 0);
    Ok(Node {
        context: context.ok_or_else(|| format!("{:?} models do not chat", config.category))?,
        sees: config.modalities.input.contains(&SupportedModality::Vision),
        category: config.category,
        model,
    })
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{}: the path is not UTF-8", path.display()))
}

/// What an answer and the engine's thread both see.
struct Shared {
    receiver: Mutex<Receiver<Response>>,
    prompt: AtomicUsize,
    drawn: AtomicUsize,
    /// The context is used up: the last token that was drawn is not part of the answer.
    full: AtomicBool,
}

impl Shared {
    fn receiver(&self) -> MutexGuard<'_, Receiver<Response>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called for each draw, with the tokens so far. mistralrs bounds the answer alone by the
    /// context, not prompt and answer; a step too far fails all requests of its batch. Closing
    /// the channel here ends this one in this very step.
    fn draw(&self, tokens: usize, context: usize) {
        if self.drawn.fetch_add(1, Ordering::Relaxed) == 0 {
            self.prompt.store(tokens, Ordering::Relaxed);
        }
        if tokens >= context {
            self.full.store(true, Ordering::Relaxed);
            self.receiver().close();
        }
    }
}

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum Piece {
    Text { content: String, reasoning: String },
    End { finish: &'static str, prompt: usize, completion: usize },
}

/// One answer in the making. Dropped early, it ends with the step in flight.
pub(crate) struct Answer {
    shared: Arc<Shared>,
    cutter: Cutter,
    tokens_max: usize,
    stopped: bool,
    finish: Option<&'static str>,
}

impl Node {
    /// Hands a request to mistralrs.
    ///
    /// # Errors
    /// It asks for more than this model has, or the engine is gone.
    pub(crate) async fn start(
        &self,
        ask: &Ask,
        images: Vec<DynamicImage>,
    ) -> Result<Answer, Failure> {
        if !self.sees && !images.is_empty() {
            return Err(Failure::invalid("messages", "this model does not take images"));
        }
        let tokens_max = ask.tokens_max.unwrap_or(self.context);
        if tokens_max > self.context {
            let why = format!("the model's context is {} tokens", self.context);
            return Err(Failure::invalid("max_tokens", &why));
        }
        // Room for all that can come: the engine's one thread must never wait for a client.
        let (response, receiver) = channel(tokens_max + 2);
        let shared = Arc::new(Shared {
            receiver: Mutex::new(receiver),
            prompt: AtomicUsize::new(0),
            drawn: AtomicUsize::new(0),
            full: AtomicBool::new(false),
        });
        let (counter, context) = (shared.clone(), self.context);
        let counter = move |logits: &Tensor, tokens: &[u32]| -> mistralrs::Result<Tensor> {
            counter.draw(tokens.len(), context);
            Ok(logits.clone())
        };
        let mut chat = self.chat(ask, images);
        let mut request = NormalRequest::new_simple(
            chat.take_messages(),
            sampling(ask, tokens_max),
            response,
            0,
            None,
            None,
        );
        request.is_streaming = true;
        request.logits_processors = Some(vec![Arc::new(counter) as Arc<dyn CustomLogitsProcessor>]);
        let gone = || Failure::unavailable("The engine is not running.");
        let engine = self.model.inner().get_sender(None).map_err(|_| gone())?;
        let cutter = Cutter::new(ask.stop.clone());
        let answer = Answer { shared, cutter, tokens_max, stopped: false, finish: None };
        engine.send(Request::Normal(Box::new(request))).await.map_err(|_| gone())?;
        Ok(answer)
    }

    fn chat(&self, ask: &Ask, images: Vec<DynamicImage>) -> RequestBuilder {
        let mut images = images.into_iter();
        let mut chat = RequestBuilder::new();
        for message in &ask.messages {
            let role = match message.role {
                Role::System => TextMessageRole::System,
                Role::User => TextMessageRole::User,
                Role::Assistant => TextMessageRole::Assistant,
            };
            let own = images.by_ref().take(message.images).collect();
            chat = chat.add_image_message(role, &message.text, own);
        }
        chat.resolve_pending_prefixes(&self.category);
        chat
    }
}

fn sampling(ask: &Ask, tokens_max: usize) -> SamplingParams {
    SamplingParams {
        temperature: Some(ask.temperature),
        top_k: ask.top_k,
        top_p: Some(ask.top_p),
        min_p: Some(ask.min_p),
        stop_toks: (!ask.stop.is_empty()).then(|| StopTokens::Seqs(ask.stop.clone())),
        max_len: Some(tokens_max),
        ..SamplingParams::neutral()
    }
}

impl Answer {
    /// The next piece; `End` is the last. Loses nothing when it is given up while it waits.
    ///
    /// # Errors
    /// The request was at fault, or the engine failed.
    pub(crate) async fn next(&mut self) -> Result<Piece, Failure> {
        if let Some(finish) = self.finish {
            return Ok(self.end(finish));
        }
        let received = poll_fn(|context| self.shared.receiver().poll_recv(context)).await;
        if self.stopped {
            // The step in which mistralrs notices the stop string too.
            return Ok(self.end("stop"));
        }
        let chunk = match received {
            Some(Response::Chunk(chunk)) => chunk,
            Some(Response::ValidationError(error)) => {
                return Err(Failure::request(error.to_string()));
            }
            Some(Response::InternalError(error)) => {
                return Err(Failure::engine(&error.to_string()));
            }
            Some(Response::ModelError(message, _)) => return Err(Failure::engine(&message)),
            Some(_) => return Err(Failure::engine("it answered something else than chat")),
            None => return self.without_end(),
        };
        let Some(choice) = chunk.choices.into_iter().next() else {
            return Err(Failure::engine("it sent a chunk without a choice"));
        };
        let (mut content, stopped) = self.cutter.push(&choice.delta.content.unwrap_or_default());
        self.stopped = stopped;
        self.finish = match choice.finish_reason.as_deref() {
            None => None,
            Some("length") if !stopped => Some("length"),
            Some("stop" | "length") => Some("stop"),
            Some(other) => return Err(Failure::engine(&format!("it ended with '{other}'"))),
        };
        if self.finish.is_some() && !stopped {
            content += &self.cutter.rest();
        }
        let reasoning = choice.delta.reasoning_content.unwrap_or_default();
        Ok(Piece::Text { content, reasoning })
    }

    /// The channel closed without a last chunk: the context is full, or the last token ends inside
    /// a character and mistralrs held it back.
    fn without_end(&mut self) -> Result<Piece, Failure> {
        let drawn = self.shared.drawn.load(Ordering::Relaxed);
        if !self.shared.full.load(Ordering::Relaxed) && drawn < self.tokens_max {
            return Err(Failure::engine("it ended the answer without a reason"));
        }
        self.finish = Some("length");
        Ok(Piece::Text { content: self.cutter.rest(), reasoning: String::new() })
    }

    fn end(&self, finish: &'static str) -> Piece {
        let beyond = usize::from(self.shared.full.load(Ordering::Relaxed));
        Piece::End {
            finish,
            prompt: self.shared.prompt.load(Ordering::Relaxed),
            completion: self.shared.drawn.load(Ordering::Relaxed).saturating_sub(beyond),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.receiver().close();
    }
}
