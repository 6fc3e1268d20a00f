//! From configuration to running models. With `backend/local.rs` the only file that knows the
//! engine: what it opens, plans and starts leaves here as a [`Model`] or as text.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::embed::{DeviceFault, Embedder, Input, Pooler};
use engine::model::{Dtype as EngineDtype, GenerationDefaults, ModelFiles};
use engine::plan::{Plan, PlanError, PlanOptions};
use engine::start::StartError;
use engine::{CacheElement, Compute};
use scheduler::types::{Fault, Sampling};

pub use device::Target;
pub use engine::plan::memory_available;
pub use weights::adapter_digest;

pub mod bench;
mod device;
pub mod gpu;
pub mod inspect;
pub mod quantize;
mod weights;

use crate::backend::adapters::Adapters;
use crate::backend::answering::Answering;
use crate::backend::embed::{self, LocalEmbedder};
use crate::backend::local::{AdapterFiles, LocalEngine, Options};
use crate::backend::{self, Model, PoolModel};
use crate::config::{CacheDtype, Config, Dtype, ModelChoice, ModelSource, Speculation, Task};
use crate::metrics::Metrics;
use crate::pull::{Hub, PullError};

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// It could not be fetched.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Its files cannot be used.
    #[error("{0}")]
    Files(String),
    /// It does not fit.
    #[error(
        "{0}. --context, --cache-memory, --rows-max and --step-tokens set what it takes; \
         `hearth plan` shows it"
    )]
    Plan(#[from] PlanError),
    /// It does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The device that was asked for is not there.
    #[error("{0}")]
    Device(String),
    /// The system gives no thread.
    #[error("no thread for the engine: {0}; raise the process limit (ulimit -u)")]
    Thread(#[from] std::io::Error),
}

/// A model's files, checked, and what it will take.
pub struct Planned {
    target: Target,
    choice: ModelChoice,
    files: ModelFiles,
    /// What stands behind a model that does not generate.
    pooler: Option<Pooler>,
    plan: Plan,
}

/// Finds a model's files, fetching them when they are a hub's and not here, and makes the plan.
///
/// # Errors
/// See [`WiringError`].
pub async fn plan(
    config: &Config,
    target: &Target,
    choice: &ModelChoice,
) -> Result<Planned, WiringError> {
    let path = match &choice.source {
        ModelSource::Demo => None,
        ModelSource::Path(path) => Some(path.clone()),
        ModelSource::Hub { repo, revision } => Some(fetch(repo, revision).await?),
    };
    let (config, target, choice) = (config.clone(), target.clone(), choice.clone());
    // Reading files blocks; the runtime's threads answer probes meanwhile.
    let task =
        tokio::task::spawn_blocking(move || plan_files(&config, &target, choice, path.as_deref()));
    task.await.unwrap_or_else(|panic| {
        Err(WiringError::Files(format!("reading the model failed: {panic}")))
    })
}

async fn fetch(repo: &str, revision: &str) -> Result<PathBuf, WiringError> {
    let hub = Hub::from_env(|name| std::env::var(name).ok());
    // A model in the cache is served as it is: a restart must not depend on a network.
    let snapshot = match hub.cached(repo, revision) {
        Some(snapshot) => snapshot,
        None => {
            tracing::info!(%repo, %revision, "not in the cache: fetching");
            hub.pull(repo, revision, &[]).await?
        }
    };
    Ok(only_gguf(&snapshot).unwrap_or(snapshot))
}

/// A snapshot of one GGUF file is that file.
fn only_gguf(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "gguf"));
    match &files[..] {
        [file] if !folder.join("model.safetensors").exists() => Some(file.clone()),
        _ => None,
    }
}

fn plan_files(
    config: &Config,
    target: &Target,
    choice: ModelChoice,
    path: Option<&Path>,
) -> Result<Planned, WiringError> {
    let files = |error: engine::LoadError| WiringError::Files(error.to_string());
    let mut opened = match path {
        None => engine::open_demo(),
        Some(path) => engine::open(path).map_err(files)?,
    };
    if let Some(template) = &config.chat_template {
        let wrong = |problem: String| {
            WiringError::Files(format!("chat template {}: {problem}", template.display()))
        };
        let source = std::fs::read_to_string(template).map_err(|e| wrong(e.to_string()))?;
        opened.text.set_chat_template(&source).map_err(|e| wrong(e.to_string()))?;
    }
    let (rows_max, step_tokens_max) = target.step(config);
    let options = PlanOptions {
        dtype: match config.dtype {
            Dtype::Auto => EngineDtype::Auto,
            Dtype::Float32 => EngineDtype::Float32,
            Dtype::Bfloat16 => EngineDtype::Bfloat16,
            Dtype::Float16 => EngineDtype::Float16,
        },
        threads: config.threads(),
        context: config.context,
        cache_bytes: config.cache_memory,
        cache_element: match config.cache_dtype {
            CacheDtype::Auto => None,
            CacheDtype::Fp8 => Some(CacheElement::F8E4M3),
        },
        rows_max,
        step_tokens_max,
    };
    let asked = match config.task {
        Task::Auto => None,
        Task::Generate => Some(engine::embed::Task::Generate),
        Task::Embed => Some(engine::embed::Task::Embed),
        Task::Rerank => Some(engine::embed::Task::Rerank),
    };
    let pooler = engine::embed::describe(&mut opened, asked).map_err(files)?;
    let room = target.room(config)?;
    let plan = match &pooler {
        Some(pooler) => engine::embed::plan(&opened, pooler, &options, room)?,
        None => engine::plan::plan(&opened, &options, room)?,
    };
    Ok(Planned { target: target.clone(), choice, files: opened, pooler, plan })
}

/// How long a step may take: on the CPU one of a long prompt takes minutes.
fn step_timeout(config: &Config, target: &Target) -> Duration {
    config.step_timeout.unwrap_or(match target {
        Target::Cpu(_) => Duration::from_secs(600),
        Target::Gpu(_) => Duration::from_secs(60),
    })
}

/// Tokens that the scheduler may guess ahead, of those that the engine takes.
fn drafts_max(
    config: &Config,
    engine: &impl scheduler::Engine,
    model: &str,
) -> Result<u32, WiringError> {
    let taken = engine.drafts_max();
    let most = match config.speculation {
        Speculation::Off => return Ok(0),
        Speculation::Auto => taken,
        Speculation::AtMost(most) if taken > 0 => most.min(taken),
        Speculation::AtMost(_) => {
            let problem = "--speculation: this device computes no guesses; take auto or off";
            return Err(WiringError::Device(problem.to_owned()));
        }
    };
    tracing::info!(%model, guesses_max = most, "tokens guessed ahead where that pays");
    Ok(most)
}

impl Planned {
    /// What it will take, as a small table.
    #[must_use]
    pub fn table(&self) -> String {
        self.plan.to_string()
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let mut plan = serde_json::to_value(&self.plan).unwrap_or_default();
        plan["model"] = self.choice.id.clone().into();
        plan["family"] = self.files.spec.family.into();
        plan["weight_type"] = self.files.format.name().into();
        plan["device"] = self.target.name().into();
        plan["task"] = self.task().into();
        plan
    }

    /// What it does: `generate`, `embed` or `rerank`.
    #[must_use]
    pub fn task(&self) -> &'static str {
        self.pooler.as_ref().map_or("generate", |pooler| task(pooler).name())
    }

    /// It makes vectors or scores: start it with [`Planned::start_pool`].
    #[must_use]
    pub fn pools(&self) -> bool {
        self.pooler.is_some()
    }

    /// A digest of its weights and of what is computed with them: see [`weights`].
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn weights_digest(&self) -> Result<String, WiringError> {
        let mut what = format!("{:?} {}", self.files.spec, self.files.format.name());
        if let Some(pooler) = &self.pooler {
            what += &format!(" {pooler:?}");
        }
        weights::digest(&self.files.path, &what)
            .map_err(|error| WiringError::Files(format!("{}: {error}", self.files.path.display())))
    }

    /// One line: name, family, kind of weights, what it does, where from.
    #[must_use]
    pub fn title(&self) -> String {
        let Self { choice, files, .. } = self;
        let from = match &choice.source {
            ModelSource::Demo => "built in".to_owned(),
            _ => files.path.display().to_string(),
        };
        let (family, weights) = (files.spec.family, files.format.name());
        format!("{}  ({family}, {weights}, {}, {from})", choice.id, self.task())
    }

    /// What in the model's files has no effect here.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.files.notes.clone()
    }

    /// Loads it: claims the memory, reads the weights, starts the thread. Takes its time; call it
    /// where that does no harm.
    ///
    /// # Errors
    /// The device refuses.
    pub fn start(self, config: &Config, metrics: &Metrics) -> Result<Model, WiringError> {
        let Self { target, choice, files, plan, pooler } = self;
        assert!(pooler.is_none(), "this model does not generate");
        target.prepare()?;
        let mut limits = engine::start::scheduler_config(&plan);
        limits.waiting_max = config.queue_max;
        limits.target_itl_us = as_micros(config.target_inter_token);
        let context = limits.sequence_max();
        let options = Options {
            name: choice.id.clone(),
            request_timeout: Some(config.request_timeout),
            step_timeout: Some(step_timeout(config, &target)),
        };
        let prefix = files.spec.prefix_rule();
        let metrics = metrics.model(&choice.id);
        let engine = match target {
            Target::Cpu(_) => {
                let runner = engine::start::start_cpu(&files, &plan)?;
                limits.drafts_max = drafts_max(config, &runner, &choice.id)?;
                LocalEngine::start(runner, limits, options, metrics)?
            }
            Target::Gpu(card) => {
                let runner = engine::cuda::start(&files, &plan, card.ordinal)?;
                limits.drafts_max = drafts_max(config, &runner, &choice.id)?;
                LocalEngine::start(runner, limits, options, metrics)?
            }
        };
        let adapters = files
            .adapter_base
            .map(|base| Arc::new(Adapters::new(AdapterFiles::new(base), config.adapters_max)));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let text = Arc::new(files.text);
        let answering = Answering::new(&text, &files.eos, config.tool_format);
        Ok(Model {
            id: choice.id,
            answering: Arc::new(answering),
            created: now.map_or(0, |time| time.as_secs()),
            context,
            text,
            max_tokens_default: files.defaults.max_new_tokens,
            defaults: sampling(&files.defaults),
            eos: files.eos,
            engine: engine.into(),
            prefix,
            adapters,
            adapter: None,
        })
    }
}

impl Planned {
    /// As [`Planned::start`], for a model that makes vectors or scores.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// It generates.
    pub fn start_pool(self, config: &Config, metrics: &Metrics) -> Result<PoolModel, WiringError> {
        let Self { target, choice, files, plan, pooler } = self;
        let pooler = pooler.expect("a model that does not generate");
        target.prepare()?;
        let (task, size, normalises) = (task(&pooler), pooler.size, pooler.normalises());
        let engine::embed::Reads { prompts, default_prompt, include_prompt, lower_case, pair } =
            pooler.reads.clone();
        let options = embed::Options {
            name: choice.id.clone(),
            queue_max: config.queue_max,
            request_timeout: Some(config.request_timeout),
            step_timeout: Some(step_timeout(config, &target)),
        };
        let metrics = metrics.model(&choice.id);
        let engine = match target {
            Target::Cpu(_) => {
                let model = engine::embed::start_cpu(&files, pooler, &plan)?;
                LocalEmbedder::start(On(model), options, metrics)?
            }
            Target::Gpu(card) => {
                let model = engine::cuda::start_embedder(&files, pooler, &plan, card.ordinal)?;
                LocalEmbedder::start(On(model), options, metrics)?
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(PoolModel {
            id: choice.id,
            created: now.map_or(0, |time| time.as_secs()),
            task,
            context: plan.context,
            size,
            normalises,
            text: Arc::new(files.text),
            reads: backend::Reads { prompts, default_prompt, include_prompt, lower_case, pair },
            engine: engine.into(),
        })
    }
}

fn task(pooler: &Pooler) -> backend::Task {
    match pooler.task {
        engine::embed::Task::Rerank => backend::Task::Rerank,
        engine::embed::Task::Embed | engine::embed::Task::Generate => backend::Task::Embed,
    }
}

/// The engine's embedder in the backend's words.
struct On<C: Compute>(Embedder<C>);

impl<C: Compute + 'static> embed::Embed for On<C>
where
    Embedder<C>: Send,
{
    fn step_tokens(&self) -> usize {
        self.0.step_tokens_max()
    }

    fn embed(&mut self, inputs: &[&embed::Input]) -> Result<Vec<Vec<f32>>, Fault> {
        let all: Vec<Input<'_>> = inputs
            .iter()
            .map(|input| Input { ids: &input.ids, types: &input.types, skip: input.skip })
            .collect();
        self.0.embed(&all).map_err(|fault| match fault {
            DeviceFault::Step(why) => Fault::Step(why),
            DeviceFault::Lost(why) => Fault::Dead(why),
        })
    }
}

fn as_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The author's sampling, over the neutral one.
fn sampling(author: &GenerationDefaults) -> Sampling {
    let plain = Sampling::default();
    let greedy = author.do_sample == Some(false);
    let temperature = author.temperature.unwrap_or(plain.temperature);
    Sampling {
        temperature: if greedy { 0.0 } else { temperature },
        top_p: author.top_p.unwrap_or(plain.top_p),
        top_k: author.top_k.unwrap_or(plain.top_k),
        min_p: author.min_p.unwrap_or(plain.min_p),
        typical_p: author.typical_p.unwrap_or(plain.typical_p),
        repetition_penalty: author.repetition_penalty.unwrap_or(plain.repetition_penalty),
        ..plain
    }
}
