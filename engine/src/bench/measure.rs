//! The measurements themselves: what is submitted, and which times count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernels::Compute;
use scheduler::Config;
use scheduler::types::RequestId;

use super::drive::Drive;
use super::timed::StepTime;
use super::{
    Bench, BenchError, Figure, MIXED_PROMPTS, MIXED_ROWS, MIXED_TOKENS, Measures, Mixed,
    PROMPT_REPEATS, Throughput, WARM_STEPS,
};

impl<C: Compute> Bench<'_, C> {
    fn drive(&mut self, config: Config) -> Drive<'_, C> {
        self.drives += 1;
        Drive::new(self.runner, config, self.vocab, self.drives)
    }

    /// `batch` rows that decode, all of them in every step that counts.
    pub(super) fn decode(
        &mut self,
        measures: &Measures,
        batch: usize,
    ) -> Result<Figure, BenchError> {
        let (context, steps) = (measures.context, measures.steps);
        let made = measures.made(batch, self.step_tokens());
        let what = format!("decode of {batch} rows");
        if let Some(refused) = self.refuse(&what, batch, context + made, 0) {
            return Ok(refused);
        }
        let counts = |step: &StepTime| (step.rows, step.tokens) == (batch, batch);
        let mut drive = self.drive(self.config());
        for _ in 0..batch {
            drive.submit(context, made);
        }
        // One more than counts: a step's time begins with the end of the one before.
        let mut wanted = WARM_STEPS + steps + 1;
        while wanted > 0 {
            let before = drive.steps().len();
            let busy = drive.tick()?;
            let more = drive.steps()[before..].iter().filter(|step| counts(step)).count();
            wanted = wanted.saturating_sub(more);
            if !busy && wanted > 0 {
                let text = format!("{what}: the requests ended before {steps} steps were timed");
                return Err(BenchError::Engine(text));
            }
        }
        drive.finish()?;
        let counted: Vec<StepTime> =
            drive.steps().iter().filter(|step| counts(step)).skip(WARM_STEPS).copied().collect();
        Ok(self.decode_figure(batch, &counted[..=steps]))
    }

    /// Of steps that follow each other; the first only begins the time.
    fn decode_figure(&self, batch: usize, steps: &[StepTime]) -> Figure {
        let mut times: Vec<f64> = steps
            .windows(2)
            .filter(|pair| pair[1].step == pair[0].step + 1)
            .map(|pair| ms(pair[1].at - pair[0].at))
            .collect();
        let steps = &steps[1..];
        let all_s = times.iter().sum::<f64>() / 1e3;
        let tokens_per_s = (batch * times.len()) as f64 / all_s;
        let of = |figure: fn(&StepTime) -> f64| median(steps.iter().map(figure).collect());
        let attended: usize = steps.iter().map(|step| step.attended).sum();
        let context = attended as f64 / (batch * steps.len()) as f64;
        let (step_ms, step_p99_ms) = (median(times.clone()), nearest_rank(&mut times, 0.99));
        let bytes = self.work.step_bytes(batch, context);
        let roof_ms = self.ceilings.copy_gb_s.map(|speed| bytes / speed / 1e6);
        Figure::Decode {
            batch,
            context,
            steps: times.len(),
            step_ms,
            step_p99_ms,
            tokens_per_s,
            host_us: of(|step| step.host.as_secs_f64() * 1e6),
            device_us: of(|step| step.device_us as f64),
            bytes,
            roof_ms,
            share: roof_ms.map(|roof| roof / step_ms),
        }
    }

    /// A prompt on an idle device, to its first token.
    pub(super) fn prefill(&mut self, prompt: usize) -> Result<Figure, BenchError> {
        let what = format!("prefill of {prompt} tokens");
        if let Some(refused) = self.refuse(&what, 1, prompt + 1, 0) {
            return Ok(refused);
        }
        let mut drive = self.drive(self.config());
        let mut times = Vec::with_capacity(PROMPT_REPEATS);
        // The first one pays for what happens once.
        for repeat in 0..=PROMPT_REPEATS {
            let begin = Instant::now();
            drive.submit(prompt, 1);
            while drive.tokens.is_empty() {
                drive.tick()?;
            }
            if repeat > 0 {
                times.push(ms(begin.elapsed()));
            }
            while drive.tick()? {}
        }
        let first_token_ms = median(times);
        let tflops = self.work.prompt_flop(prompt) / first_token_ms / 1e9;
        Ok(Figure::Prefill {
            prompt,
            first_token_ms,
            tokens_per_s: prompt as f64 / first_token_ms * 1e3,
            tflops,
            share: self.ceilings.product_tflops.map(|best| tflops / best),
        })
    }

    /// Rows that decode while prompts arrive, one as soon as the other is done.
    pub(super) fn mixed(&mut self, how: Mixed, context: usize) -> Result<Figure, BenchError> {
        let Mixed { prompt, target_us } = how;
        let what = format!("prompts of {prompt} tokens beside {MIXED_ROWS} rows");
        let tokens = context + MIXED_TOKENS;
        if let Some(refused) = self.refuse(&what, MIXED_ROWS, tokens, prompt + 1) {
            return Ok(refused);
        }
        let config = Config { target_itl_us: target_us, ..self.config() };
        let mut drive = self.drive(config);
        let mut last: BTreeMap<RequestId, Option<Instant>> =
            (0..MIXED_ROWS).map(|_| (drive.submit(context, MIXED_TOKENS), None)).collect();
        while last.values().any(Option::is_none) {
            drive.tick()?;
            note(&drive.tokens, &mut last, None);
        }
        let begin = Instant::now();
        let (mut between, mut prompts) = (Vec::new(), 0);
        let mut arrived = drive.submit(prompt, 1);
        // A row that is done has no next token to wait for: then it is over too.
        while prompts < MIXED_PROMPTS && !drive.ended.iter().any(|id| last.contains_key(id)) {
            drive.tick()?;
            note(&drive.tokens, &mut last, Some(&mut between));
            if drive.ended.contains(&arrived) {
                prompts += 1;
                arrived = drive.submit(prompt, 1);
            }
        }
        let took = begin.elapsed().as_secs_f64();
        drive.finish()?;
        Ok(Figure::Mixed {
            rows: MIXED_ROWS,
            prompt,
            prompts,
            target_ms: target_us as f64 / 1e3,
            between_ms: median(between.clone()),
            between_p99_ms: nearest_rank(&mut between, 0.99),
            prompt_tokens_per_s: (prompts * prompt) as f64 / took,
        })
    }

    /// All requests at once; the scheduler runs as many as there is room for.
    pub(super) fn throughput(&mut self, how: Throughput) -> Result<Figure, BenchError> {
        let Throughput { input, output, requests } = how;
        let what = format!("{requests} requests of {input} and {output} tokens");
        if let Some(refused) = self.refuse(&what, 1, input + output, 0) {
            return Ok(refused);
        }
        let config = Config { waiting_max: requests, ..self.config() };
        let mut drive = self.drive(config);
        for _ in 0..requests {
            drive.submit(input, output);
        }
        let begin = Instant::now();
        while drive.tick()? {}
        let seconds = begin.elapsed().as_secs_f64();
        let steps = drive.steps();
        let rows: usize = steps.iter().map(|step| step.rows).sum();
        let made = (requests * output) as f64;
        Ok(Figure::Throughput {
            input,
            output,
            requests,
            seconds,
            output_tokens_per_s: made / seconds,
            tokens_per_s: (made + (requests * input) as f64) / seconds,
            rows: rows as f64 / steps.len().max(1) as f64,
            preemptions: drive.preemptions(),
        })
    }
}

/// Notes who got a token now, and how long after the one before.
fn note(
    tokens: &[RequestId],
    last: &mut BTreeMap<RequestId, Option<Instant>>,
    mut between: Option<&mut Vec<f64>>,
) {
    let now = Instant::now();
    for id in tokens {
        let Some(last) = last.get_mut(id) else { continue };
        if let (Some(before), Some(between)) = (last.replace(now), between.as_deref_mut()) {
            between.push(ms(now - before));
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    nearest_rank(&mut values, 0.5)
}

/// The smallest value that at least this share of them do not exceed; 0 of none.
fn nearest_rank(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil().max(1.0) as usize - 1;
    values.get(rank).copied().unwrap_or(0.0)
}
