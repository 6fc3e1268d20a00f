//! A seed's world: limits, load and faults. Each feature is on in some seeds and off in others,
//! since a fault that is always there hides what happens without it.

use scheduler::{
    Config, DRAFTS_MAX, Made, PAGE_TOKENS, Request, RequestId, Sampling, Token, choice_seed,
};

use super::engine::{FaultRates, POISON};
use super::model::{self, VOCABULARY};
use super::oracle::OWN_SALT;
use super::random::Random;

/// What a seed decides before the first tick.
#[derive(Debug, Clone)]
pub struct World {
    /// Limits.
    pub config: Config,
    /// Steps in flight.
    pub depth: usize,
    /// Engine faults.
    pub faults: FaultRates,
    /// Requests sent.
    pub requests: u64,
    /// Longest pause between arrivals; 0 is one burst.
    pub pause_us: u64,
    /// Chance per tick and thousand of a cancelled request.
    pub cancels: u64,
    /// The same for a cancelled choice.
    pub choice_cancels: u64,
    /// The same for an extended allowance.
    pub extends: u64,
    tenants: u64,
    priorities: u64,
    salts: u64,
    choices_max: u64,
    prompt_max: u64,
    made_max: u64,
    deadlines: u64,
    allowances: u64,
    prompt_logprobs: u64,
    poison: u64,
    invalid: u64,
    /// Requests that another engine began.
    resumed: u64,
    /// Chance per tick and thousand that somebody reads which pages are held; 0: nobody watches.
    pub watched: u64,
    /// Beginnings that prompts share.
    prefixes: Vec<Vec<Token>>,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let rows_max = random.pick(&[1, 2, 3, 4, 8, 16]);
        let pages = random.pick(&[6, 12, 24, 48, 200]);
        let prefill_tokens_min = random.between(1, 32) as usize;
        let config = Config {
            step_tokens_max: rows_max + prefill_tokens_min + random.between(0, 200) as usize,
            prefill_tokens_min,
            waiting_max: random.pick(&[3, 20, 100]),
            target_itl_us: random.pick(&[0, 4000, 20_000]),
            prefix_cache: !random.permille(200),
            watermark_pages: random.between(0, pages as u64 / 6) as usize,
            drafts_max: random.pick(&[0, 1, 4, DRAFTS_MAX]),
            ..Config::new(rows_max, pages, random.between(40, 400) as usize)
        };
        let mut sometimes = |share: u64, most: u64| {
            if random.permille(share) { random.between(1, most) } else { 0 }
        };
        let faults = FaultRates {
            step: sometimes(300, 30),
            lost: sometimes(250, 15),
            dead: sometimes(50, 3),
            row: sometimes(300, 10),
            slow: sometimes(300, 30),
            forced: sometimes(400, 300),
        };
        Self {
            depth: 1 + sometimes(600, 1) as usize,
            requests: 10 + sometimes(1000, 60),
            pause_us: sometimes(700, 60_000),
            cancels: sometimes(400, 60),
            choice_cancels: sometimes(300, 60),
            extends: sometimes(800, 900),
            tenants: 1 + sometimes(600, 5),
            priorities: 1 + sometimes(500, 3),
            salts: 1 + sometimes(300, 3),
            choices_max: 1 + sometimes(500, 4),
            prompt_max: 10 + sometimes(900, 150),
            made_max: 4 + sometimes(900, 90),
            deadlines: sometimes(300, 300),
            allowances: sometimes(400, 500),
            prompt_logprobs: sometimes(400, 400),
            poison: sometimes(200, 60),
            invalid: sometimes(300, 100),
            resumed: sometimes(400, 600),
            watched: sometimes(500, 1000),
            prefixes: (0..3).map(|_| prompt(random, 100)).collect(),
            config,
            faults,
        }
    }

    /// The next request of the load. `finished` are conversations that may go on.
    pub fn request(
        &self,
        random: &mut Random,
        id: u64,
        now: u64,
        finished: &[Vec<Token>],
    ) -> Request {
        let mut tokens = match random.below(4) {
            0 if !finished.is_empty() => {
                finished[random.below(finished.len() as u64) as usize].clone()
            }
            0 | 1 => {
                let prefix = &self.prefixes[random.below(3) as usize];
                let whole = random.below(1 + (prefix.len() / PAGE_TOKENS) as u64) as usize;
                prefix[..whole * PAGE_TOKENS].to_vec()
            }
            _ => Vec::new(),
        };
        tokens.truncate(self.prompt_max as usize);
        if tokens.is_empty() || random.permille(800) {
            let len = random.between(1, self.prompt_max);
            tokens.extend(prompt(random, len));
        }
        if random.permille(self.poison) {
            let at = random.below(tokens.len() as u64) as usize;
            tokens[at] = POISON;
        }
        let max_tokens = random.between(1, self.made_max) as u32;
        let metered = random.permille(self.allowances);
        let some =
            |random: &mut Random, share| random.permille(share).then(|| random.below(3) as u32);
        let mut request = Request {
            id: RequestId(id),
            choices: random.between(1, self.choices_max) as u32,
            max_tokens,
            allowance: if metered { random.between(1, 8) as u32 } else { u32::MAX },
            min_tokens: (random.between(0, 5) as u32).min(max_tokens),
            stop_tokens: (0..random.below(4)).map(|_| random.below(VOCABULARY) as Token).collect(),
            sampling: Sampling {
                seed: random.bits(),
                logprobs: some(random, 100),
                ..Sampling::default()
            },
            prompt_logprobs: some(random, self.prompt_logprobs),
            priority: random.below(self.priorities) as u8,
            tenant: random.below(self.tenants),
            salt: if random.permille(100) { OWN_SALT + id } else { random.below(self.salts) },
            adapter: 0,
            grammar: 0,
            deadline: random.permille(self.deadlines).then(|| now + random.below(300_000)),
            made: Vec::new(),
            prompt: tokens,
        };
        if random.permille(self.resumed) {
            request.made = self.begun(random, &request);
        }
        if random.permille(self.invalid) {
            spoil(random, &mut request);
        }
        request
    }
}

impl World {
    /// What another engine has made of a request when it is cut off.
    fn begun(&self, random: &mut Random, request: &Request) -> Vec<Made> {
        let Request { prompt, sampling, min_tokens, stop_tokens, .. } = request;
        let room = self.config.sequence_max().saturating_sub(prompt.len());
        // Now and then one that had more room.
        let room = if random.permille(20) { room + 20 } else { room };
        let most = room.min(request.max_tokens.min(request.allowance) as usize);
        let chain = prompt.iter().fold(model::ROOT, |c, &t| model::extend(c, t));
        let choice = |choice| {
            let (seed, mut chain) = (choice_seed(sampling.seed, choice), chain);
            let (mut tokens, mut stopped) = (Vec::new(), false);
            for _ in 0..random.below(most as u64 + 1) {
                let early = tokens.len() < *min_tokens as usize;
                let token = model::draw(chain, seed, if early { stop_tokens } else { &[] });
                chain = model::extend(chain, token);
                tokens.push(token);
                stopped = stop_tokens.contains(&token);
                if stopped {
                    break;
                }
            }
            let over = stopped || tokens.len() == most;
            Made { tokens, ended: random.permille(if over { 500 } else { 100 }) }
        };
        (0..request.choices).map(choice).collect()
    }
}

fn prompt(random: &mut Random, len: u64) -> Vec<Token> {
    (0..len).map(|_| random.below(VOCABULARY) as Token).collect()
}

/// Makes a field invalid, or the prompt too long for anything.
fn spoil(random: &mut Random, request: &mut Request) {
    match random.below(9) {
        0 => request.prompt.clear(),
        1 => request.max_tokens = 0,
        2 => request.sampling.temperature = f32::NAN,
        3 => request.sampling.top_p = 0.0,
        4 => request.min_tokens = request.max_tokens + 1,
        5 => request.choices = 0,
        6 => request.made = vec![Made::default(); request.choices as usize + 1],
        7 => {
            let tokens = vec![1; request.max_tokens as usize + 1];
            request.made = vec![Made { tokens, ended: false }; request.choices as usize];
        }
        _ => request.prompt = vec![1; 5000],
    }
}
