//! From configuration to running models. With `backend/local.rs` the only file that knows the
//! engine: what it opens, plans and starts leaves here as a [`Model`] or as text.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::embed::{CpuEmbedder, DeviceFault, Input, Pooler};
use engine::model::{Dtype as EngineDtype, GenerationDefaults, ModelFiles};
use engine::plan::{Plan, PlanError, PlanOptions};
use engine::start::StartError;
use scheduler::types::{Fault, Sampling};

pub use engine::plan::memory_available;

pub mod inspect;
pub mod quantize;

use crate::backend::adapters::Adapters;
use crate::backend::embed::{self, LocalEmbedder};
use crate::backend::local::{AdapterFiles, LocalEngine, Options};
use crate::backend::{self, Model, PoolModel};
use crate::config::{Config, Device, Dtype, ModelChoice, ModelSource, Task};
use crate::machine;
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
    choice: ModelChoice,
    files: ModelFiles,
    /// What stands behind a model that does not generate.
    pooler: Option<Pooler>,
    plan: Plan,
}

/// Says on which device models will run.
///
/// # Errors
/// The device asked for by name is not there.
pub fn choose_device(config: &Config) -> Result<String, WiringError> {
    let not_yet = "this build computes on the CPU only";
    match (config.device, machine::cuda_driver()) {
        (Device::Cpu, _) => Ok("cpu".to_owned()),
        (Device::Auto, Err(why)) => Ok(format!("cpu (no CUDA device: {why})")),
        (Device::Auto, Ok(driver)) => {
            Ok(format!("cpu ({} found, but {not_yet})", driver.display()))
        }
        (Device::Cuda(n), Err(why)) => Err(WiringError::Device(format!(
            "cuda:{n}: no CUDA device ({why}); use --device cpu or auto, or install the driver"
        ))),
        (Device::Cuda(n), Ok(_)) => {
            Err(WiringError::Device(format!("cuda:{n}: {not_yet}; use --device cpu or auto")))
        }
    }
}

/// Finds a model's files, fetching them when they are a hub's and not here, and makes the plan.
///
/// # Errors
/// See [`WiringError`].
pub async fn plan(config: &Config, choice: &ModelChoice) -> Result<Planned, WiringError> {
    let path = match &choice.source {
        ModelSource::Demo => None,
        ModelSource::Path(path) => Some(path.clone()),
        ModelSource::Hub { repo, revision } => Some(fetch(repo, revision).await?),
    };
    let (config, choice) = (config.clone(), choice.clone());
    // Reading files blocks; the runtime's threads answer probes meanwhile.
    let task = tokio::task::spawn_blocking(move || plan_files(&config, choice, path.as_deref()));
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
        rows_max: config.rows_max,
        step_tokens_max: config.step_tokens.max(config.rows_max + 1),
    };
    let asked = match config.task {
        Task::Auto => None,
        Task::Generate => Some(engine::embed::Task::Generate),
        Task::Embed => Some(engine::embed::Task::Embed),
        Task::Rerank => Some(engine::embed::Task::Rerank),
    };
    let pooler = engine::embed::describe(&mut opened, asked).map_err(files)?;
    let plan = match &pooler {
        Some(pooler) => engine::embed::plan(&opened, pooler, &options, memory_available())?,
        None => engine::plan::plan(&opened, &options, memory_available())?,
    };
    Ok(Planned { choice, files: opened, pooler, plan })
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
        plan["weight_type"] = self.files.weight_type.clone().into();
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

    /// One line: name, family, kind of weights, what it does, where from.
    #[must_use]
    pub fn title(&self) -> String {
        let Self { choice, files, .. } = self;
        let from = match &choice.source {
            ModelSource::Demo => "built in".to_owned(),
            _ => files.path.display().to_string(),
        };
        let (family, weights) = (files.spec.family, &files.weight_type);
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
        let Self { choice, files, plan, pooler } = self;
        assert!(pooler.is_none(), "this model does not generate");
        let runner = engine::start::start_cpu(&files, &plan)?;
        let mut limits = engine::start::scheduler_config(&plan);
        limits.waiting_max = config.queue_max;
        limits.target_itl_us = as_micros(config.target_inter_token);
        let context = limits.sequence_max();
        let options =
            Options { name: choice.id.clone(), request_timeout: Some(config.request_timeout) };
        let prefix = files.spec.prefix_rule();
        let adapters = files
            .adapter_base
            .map(|base| Arc::new(Adapters::new(AdapterFiles::new(base), config.adapters_max)));
        let engine = LocalEngine::start(runner, limits, options, metrics.model(&choice.id))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Model {
            id: choice.id,
            created: now.map_or(0, |time| time.as_secs()),
            context,
            text: Arc::new(files.text),
            max_tokens_default: files.defaults.max_new_tokens,
            defaults: sampling(&files.defaults),
            eos: files.eos,
            engine,
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
        let Self { choice, files, plan, pooler } = self;
        let pooler = pooler.expect("a model that does not generate");
        let (task, size, normalises) = (task(&pooler), pooler.size, pooler.normalises());
        let engine::embed::Reads { prompts, default_prompt, include_prompt, lower_case, pair } =
            pooler.reads.clone();
        let model = engine::embed::start_cpu(&files, pooler, &plan)?;
        let options = embed::Options {
            name: choice.id.clone(),
            queue_max: config.queue_max,
            request_timeout: Some(config.request_timeout),
        };
        let engine = LocalEmbedder::start(OnCpu(model), options, metrics.model(&choice.id))?;
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
            engine,
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
struct OnCpu(CpuEmbedder);

impl embed::Embed for OnCpu {
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

fn as_micros(time: std::time::Duration) -> u64 {
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
