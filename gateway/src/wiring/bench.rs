//! `hearth bench engine` in the engine's words: which model, what of it, and the figures as text
//! and as one JSON object.

use std::path::PathBuf;
use std::time::Instant;

use engine::bench::{
    Bench, BenchError, Ceilings, Figure, Measures, Mixed, Stored, Throughput, ceilings, plan_for,
    random_model, shapes,
};
use engine::model::{Dtype as EngineDtype, ModelFiles};
use engine::plan::{Plan, PlanOptions};
use engine::{CacheElement, Compute, Runner};
use serde_json::{Value, json};

use super::{Target, WiringError, as_micros};
use crate::config::values::show_size;
use crate::config::{CacheDtype, Config};

/// Whose engine is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Random weights in the shape of a known model, stored as one of [`dtypes`].
    Shape(String, String),
    /// A folder or a GGUF file.
    Path(PathBuf),
}

/// What is measured; lists may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Sequences that decode at once.
    pub batches: Vec<usize>,
    /// Tokens of each one's prompt.
    pub context: usize,
    /// Decode steps that count.
    pub steps: usize,
    /// Prompts alone: tokens.
    pub prompts: Vec<usize>,
    /// Tokens of prompts that arrive while others decode.
    pub mixed: Option<usize>,
    /// Tokens of prompts, tokens made, requests.
    pub throughput: Option<[usize; 3]>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// All figures.
    pub json: Value,
    /// Why it broke off, if it did.
    pub failed: Option<String>,
}

/// Names of the shapes.
#[must_use]
pub fn shape_names() -> Vec<&'static str> {
    shapes::NAMES.to_vec()
}

/// What random weights can be stored as.
#[must_use]
pub fn dtypes() -> Vec<&'static str> {
    Stored::ALL.iter().map(|stored| stored.name()).collect()
}

/// Loads the model, measures, and prints each figure as it is there.
///
/// # Errors
/// The model cannot be opened, does not fit, or does not start.
///
/// # Panics
/// The subject is none of those that were offered.
pub fn run(
    config: &Config,
    target: &Target,
    (subject, wanted): (&Subject, &Wanted),
    line: &mut dyn FnMut(&str),
) -> Result<Report, WiringError> {
    let begin = Instant::now();
    let files = |error: engine::LoadError| WiringError::Files(error.to_string());
    let opened = match subject {
        Subject::Path(path) => engine::open(path).map_err(files)?,
        Subject::Shape(shape, dtype) => {
            let stored = Stored::ALL.into_iter().find(|stored| stored.name() == dtype);
            random_model(shape, stored.expect("one that was offered")).map_err(files)?
        }
    };
    let opened_s = begin.elapsed().as_secs_f64();
    let measures = measures(config, wanted);
    let plan = planned(config, target, &opened, &measures)?;
    let load = Instant::now();
    let random = matches!(subject, Subject::Shape(..));
    // A real model's files need not be made.
    let made_s = if random { opened_s } else { 0.0 };
    let mut run = Run { files: &opened, plan: &plan, measures: &measures, line, load, made_s };
    let (figures, failed) = match target {
        Target::Cpu(_) => {
            let mut runner = engine::start_cpu(&opened, &plan)?;
            run.all(&mut runner, || Ok(Ceilings::default()))
        }
        Target::Gpu(card) => {
            let mut runner = engine::cuda::start(&opened, &plan, card.ordinal)?;
            run.all(&mut runner, || ceilings(card.ordinal))
        }
    };
    let mut json = json!({
        "model": opened.path, "random_weights": random, "weights": dtype_name(subject, &opened),
        "device": target.name(), "card": target.to_string(), "plan": plan,
        "opened_s": opened_s, "failed": failed,
    });
    for (name, figure) in figures {
        json[name] = figure;
    }
    Ok(Report { json, failed })
}

fn dtype_name<'a>(subject: &'a Subject, files: &ModelFiles) -> &'a str {
    match subject {
        Subject::Shape(_, dtype) => dtype,
        Subject::Path(_) => files.format.name(),
    }
}

fn measures(config: &Config, wanted: &Wanted) -> Measures {
    let target_us = as_micros(config.target_inter_token);
    let Wanted { batches, context, steps, prompts, mixed, throughput } = wanted.clone();
    Measures {
        batches,
        context,
        steps,
        prompts,
        mixed: mixed.map(|prompt| Mixed { prompt, target_us }),
        throughput: throughput.map(|[input, output, requests]| Throughput {
            input,
            output,
            requests,
        }),
    }
}

fn planned(
    config: &Config,
    target: &Target,
    files: &ModelFiles,
    measures: &Measures,
) -> Result<Plan, WiringError> {
    let (usual, _) = target.step(config);
    let rows_max = config.rows_max.unwrap_or_else(|| measures.rows(usual));
    let (_, step_tokens_max) = target.step(&Config { rows_max: Some(rows_max), ..config.clone() });
    let options = PlanOptions {
        dtype: EngineDtype::Auto,
        threads: config.threads(),
        context: None,
        cache_bytes: config.cache_memory,
        cache_element: match config.cache_dtype {
            CacheDtype::Auto => None,
            CacheDtype::Fp8 => Some(CacheElement::F8E4M3),
        },
        rows_max,
        step_tokens_max,
    };
    Ok(plan_for(files, &options, target.room(config)?, measures)?)
}

/// One model under measurement.
struct Run<'a> {
    files: &'a ModelFiles,
    plan: &'a Plan,
    measures: &'a Measures,
    line: &'a mut dyn FnMut(&str),
    /// When loading began.
    load: Instant,
    /// What making random weights took: no part of any real start.
    made_s: f64,
}

impl Run<'_> {
    /// Everything about a model that was just loaded.
    fn all<C: Compute>(
        &mut self,
        runner: &mut Runner<C>,
        ceilings: impl FnOnce() -> Result<Ceilings, String>,
    ) -> (Vec<(&'static str, Value)>, Option<String>) {
        let load_s = self.load.elapsed().as_secs_f64();
        let ready_s = since_start().map(|all| all - self.made_s);
        let (device, weight_bytes) = (runner.describe(), runner.weight_bytes());
        let (ceilings, notes) = match ceilings() {
            Ok(ceilings) => (ceilings, Vec::new()),
            Err(why) => (Ceilings::default(), vec![format!("no ceilings: {why}")]),
        };
        (self.line)(&head(&device, weight_bytes, (load_s, ready_s), &ceilings));
        notes.iter().for_each(|note| (self.line)(&format!("note: {note}\n")));
        let mut figures: Vec<Figure> = Vec::new();
        let line = &mut self.line;
        let mut tell = |figure: Figure| {
            let same = figures.last().is_some_and(|last| heading(last) == heading(&figure));
            if !same {
                line(heading(&figure));
            }
            line(&row(&figure));
            figures.push(figure);
        };
        let failed = Bench::new(self.files, self.plan, runner, ceilings)
            .and_then(|mut bench| bench.run(self.measures, &mut tell))
            .err()
            .map(|error: BenchError| error.to_string());
        let all = vec![
            ("describes", json!(device)),
            ("weight_bytes", json!(weight_bytes)),
            ("load_s", json!(load_s)),
            ("ready_s", json!(ready_s)),
            ("ceilings", json!(ceilings)),
            ("measured", json!(figures)),
            ("notes", json!(notes)),
        ];
        (all, failed)
    }
}

fn head(
    device: &str,
    weight_bytes: usize,
    (load_s, ready_s): (f64, Option<f64>),
    ceilings: &Ceilings,
) -> String {
    let weights = show_size(weight_bytes as u64);
    let mut out = format!("{device}\nweights     {weights}, loaded in {load_s:.2} s\n");
    if let Some(ready_s) = ready_s {
        out.push_str(&format!("ready       {ready_s:.2} s after the start of the process\n"));
    }
    if let Some(copy) = ceilings.copy_gb_s {
        out.push_str(&format!("copies      {copy:.0} GB/s in the device's memory\n"));
    }
    if let Some(upload) = ceilings.upload_gb_s {
        out.push_str(&format!("uploads     {upload:.1} GB/s\n"));
    }
    if let Some(product) = ceilings.product_tflops {
        out.push_str(&format!(
            "products    {product:.0} TFLOP/s in bf16 by the vendor's library\n"
        ));
    }
    out
}

fn heading(figure: &Figure) -> &'static str {
    match figure {
        Figure::Decode { .. } => {
            "\ndecode  context   step ms  p99 ms    tok/s  host us  device us  roof ms  share\n"
        }
        Figure::Prefill { .. } => "\nprefill  first token ms    tok/s  TFLOP/s  share\n",
        Figure::Mixed { .. } => {
            "\nmixed rows  prompt  prompts  target ms  between ms  p99 ms  prompt tok/s\n"
        }
        Figure::Throughput { .. } => {
            "\nrequests  input  output  seconds  output tok/s  all tok/s  rows  preemptions\n"
        }
        Figure::DoesNotFit { .. } => "\n",
    }
}

fn row(figure: &Figure) -> String {
    let per_cent =
        |share: &Option<f64>| share.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share));
    match figure {
        Figure::Decode {
            batch,
            context,
            step_ms,
            step_p99_ms,
            tokens_per_s,
            host_us,
            device_us,
            roof_ms,
            share,
            ..
        } => {
            let roof = roof_ms.map_or("-".into(), |roof| format!("{roof:.3}"));
            format!(
                "{batch:>6}  {context:>7.0}  {step_ms:>8.3}  {step_p99_ms:>6.2}  \
                 {tokens_per_s:>7.1}  {host_us:>7.1}  {device_us:>9.0}  {roof:>7}  {:>5}\n",
                per_cent(share)
            )
        }
        Figure::Prefill { prompt, first_token_ms, tokens_per_s, tflops, share } => format!(
            "{prompt:>7}  {first_token_ms:>14.2}  {tokens_per_s:>7.0}  {tflops:>7.2}  {:>5}\n",
            per_cent(share)
        ),
        Figure::Mixed {
            rows,
            prompt,
            prompts,
            target_ms,
            between_ms,
            between_p99_ms,
            prompt_tokens_per_s,
        } => format!(
            "{rows:>10}  {prompt:>6}  {prompts:>7}  {target_ms:>9.1}  {between_ms:>10.2}  \
             {between_p99_ms:>6.2}  {prompt_tokens_per_s:>12.0}\n"
        ),
        Figure::Throughput {
            input,
            output,
            requests,
            seconds,
            output_tokens_per_s,
            tokens_per_s,
            rows,
            preemptions,
        } => format!(
            "{requests:>8}  {input:>5}  {output:>6}  {seconds:>7.2}  {output_tokens_per_s:>12.1}  \
             {tokens_per_s:>9.1}  {rows:>4.0}  {preemptions:>11}\n"
        ),
        Figure::DoesNotFit { what, why } => format!("{what} does not fit: {why}\n"),
    }
}

/// Seconds since this process was started, to a hundredth. Field 22 of `/proc/self/stat` counts
/// ticks of 1/100 s since the machine started; the name in field 2 may hold spaces.
fn since_start() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let started: f64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Some(uptime - started / 100.0)
}
