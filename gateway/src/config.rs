//! What the operator chose: defaults, then `hearth.toml`, then `HEARTH_*` variables, then flags,
//! the later one winning. Every option is defined once, in [`options`]; help, environment, file
//! and reference page come from there. Reading is text to typed values; nothing is opened here.

pub mod caching;
pub mod cluster;
mod draft;
mod file;
pub mod options;
pub mod outgoing;
pub mod reference;
pub mod routing;
pub mod source;
pub mod tls;
pub mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ArgMatches;
use clap::{Arg, ArgAction, Command};

pub(crate) use draft::{resolve, resolve_secret};
pub use source::{AdapterChoice, ModelChoice, ModelSource};
pub use values::{CacheDtype, Device, Dtype, GpuMemory, LogFormat, Secret, Speculation, Task};

use draft::Draft;
use options::{OPTIONS, Opt};

/// Everything that can be chosen. Made by [`Config::load`] only, so values are in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Models to load, the default one first.
    pub models: Vec<ModelChoice>,
    /// Who else may answer, and under which names.
    pub routing: routing::Routing,
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// How connections begin.
    pub tls: tls::Tls,
    /// Keys that callers must show; empty: none is asked for.
    pub api_keys: Vec<Secret>,
    /// Where keys, budgets, ledger and audit are kept; `None`: there are none.
    pub data: Option<PathBuf>,
    /// The database; `None`: a file in that folder.
    pub store_url: Option<Secret>,
    /// When the journal is brought to the disk.
    pub fsync: govern::Fsync,
    /// The Redis where gateways count their rates together; `None`: each counts for itself.
    pub redis: Option<Secret>,
    /// The file that says how people sign in; `None`: they do not.
    pub signin: Option<PathBuf>,
    /// This gateway's name; `None`: the machine's.
    pub gateway: Option<String>,
    /// After this time without a word another gateway of the database is lost.
    pub gateway_lost: Duration,
    /// Days that responses and conversations are kept.
    pub kept_days: u32,
    /// Who is told of budgets and troubles.
    pub alerts: outgoing::Alerts,
    /// Where the audit goes.
    pub audit: outgoing::Audit,
    /// Which nodes make tokens, or who this node makes them for.
    pub cluster: cluster::Cluster,
    /// Answers that are given again.
    pub cache: caching::Caching,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// Connections open at once.
    pub connections_max: usize,
    /// Threads of the server; `None`: by the cores that this process may use.
    pub server_threads: Option<usize>,
    /// A request that takes longer is ended.
    pub request_timeout: Duration,
    /// A step of a device that takes longer hangs; `None`: by the kind of device.
    pub step_timeout: Option<Duration>,
    /// Time that open requests get at shutdown.
    pub drain: Duration,
    /// Where models run.
    pub device: Device,
    /// What models are there for.
    pub task: Task,
    /// Arithmetic.
    pub dtype: Dtype,
    /// CPU threads; `None`: the physical cores that this process may use.
    pub threads: Option<usize>,
    /// Longest sequence; `None`: the model's own.
    pub context: Option<usize>,
    /// Bytes for keys and values; `None`: chosen from the memory at hand.
    pub cache_memory: Option<u64>,
    /// Type of keys and values.
    pub cache_dtype: CacheDtype,
    /// What a model may take of a GPU's memory.
    pub gpu_memory: GpuMemory,
    /// Sequences computed at once; `None`: by device.
    pub rows_max: Option<usize>,
    /// Tokens computed in one step at most; `None`: by device.
    pub step_tokens: Option<usize>,
    /// Time between two tokens that the scheduler aims at.
    pub target_inter_token: Duration,
    /// Whether tokens are guessed ahead.
    pub speculation: Speculation,
    /// Requests in the waiting line.
    pub queue_max: usize,
    /// File that replaces the models' own chat template.
    pub chat_template: Option<PathBuf>,
    /// How models write tool calls; `None`: as their templates show.
    pub tool_format: Option<&'static text::tools::Format>,
    /// Adapters to load at start.
    pub adapters: Vec<AdapterChoice>,
    /// Where adapters may be loaded from while serving; `None`: from nowhere.
    pub adapters_folder: Option<PathBuf>,
    /// Adapters that a model holds at once.
    pub adapters_max: u32,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
}

/// What the process is that a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It answers callers.
    Gateway,
    /// It makes tokens for gateways.
    Node,
}

/// A value that cannot be used: where it stands, what is wrong, what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct ConfigError {
    /// `hearth.toml:12`, `HEARTH_LISTEN` or `--listen`.
    pub at: String,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Flags as typed, one entry per option given.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    config: Option<PathBuf>,
    given: Vec<(&'static Opt, Vec<String>)>,
}

/// A configuration and the file that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What an operator should mend: variables that look like a misspelled option and are not
    /// used, files with secrets that others can read.
    pub warnings: Vec<String>,
}

impl Config {
    /// The defaults, as the option table writes them.
    ///
    /// # Panics
    /// A default in the table does not pass its own check; a test sees to that.
    #[must_use]
    pub fn defaults() -> Self {
        let mut config = Self {
            models: Vec::new(),
            routing: routing::Routing::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: tls::Tls::default(),
            api_keys: Vec::new(),
            data: None,
            store_url: None,
            fsync: govern::Fsync::default(),
            redis: None,
            gateway: None,
            gateway_lost: Duration::ZERO,
            kept_days: 0,
            alerts: outgoing::Alerts::default(),
            audit: outgoing::Audit::default(),
            signin: None,
            cache: caching::Caching::default(),
            cluster: cluster::Cluster::default(),
            body_limit: 0,
            connections_max: 0,
            server_threads: None,
            request_timeout: Duration::ZERO,
            step_timeout: None,
            drain: Duration::ZERO,
            device: Device::Auto,
            task: Task::Auto,
            dtype: Dtype::Auto,
            threads: None,
            context: None,
            cache_memory: None,
            cache_dtype: CacheDtype::Auto,
            gpu_memory: GpuMemory::Share(0.0),
            rows_max: None,
            step_tokens: None,
            target_inter_token: Duration::ZERO,
            speculation: Speculation::Off,
            queue_max: 0,
            chat_template: None,
            tool_format: None,
            adapters: Vec::new(),
            adapters_folder: None,
            adapters_max: 0,
            log_format: LogFormat::Text,
            log_level: String::new(),
        };
        for option in OPTIONS {
            let texts = option.default_texts();
            if let Err(problem) = (option.set)(&mut config, &texts) {
                panic!("default of {}: {problem}", option.key);
            }
        }
        config
    }

    /// Reads all four layers and checks them against each other.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn load(
        flags: &Flags,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        Self::load_as(Role::Gateway, flags, env)
    }

    /// As [`Config::load`], for a process that may be something else than a gateway.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_as(
        role: Role,
        flags: &Flags,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let env: Vec<_> = env.collect();
        let find = |wanted: &str| env.iter().find(|(name, _)| name == wanted);
        let lookup = |name: &str| find(name).map(|(_, text)| text.clone());
        let mut draft = Draft::new(Self::defaults(), &lookup);
        let path = config_path(flags, lookup("HEARTH_CONFIG"))?;
        if let Some(path) = &path {
            file::apply(path, &mut draft)?;
        }
        for (name, text) in env.iter().filter(|(name, _)| name.starts_with("HEARTH_")) {
            apply_variable(&mut draft, name, text)?;
        }
        for (option, texts) in &flags.given {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let at = || format!("--{}", option.flag);
            draft.set(option, &texts).map_err(|problem| ConfigError { at: at(), problem })?;
        }
        let Draft { mut config, mut warnings, .. } = draft;
        config.cluster.find_api(lookup);
        config.check(role)?;
        warnings.extend(tls::warning(&config));
        warnings.extend(cluster::warnings(&config));
        Ok(Loaded { config, file: path, warnings })
    }

    /// What must hold between options.
    fn check(&self, role: Role) -> Result<(), ConfigError> {
        let wrong = |at: String, problem: &str| ConfigError { at, problem: problem.to_owned() };
        let keyless = self.api_keys.is_empty() && self.data.is_none();
        if role == Role::Gateway && keyless && !self.listen.ip().is_loopback() {
            return Err(wrong(
                format!("listen {}", self.listen),
                "without a key only this machine may connect. Set HEARTH_API_KEY to a secret of \
                 your choice, or HEARTH_DATA to a folder for keys of your own making, or listen \
                 on 127.0.0.1",
            ));
        }
        if self.data.is_some() && !self.api_keys.is_empty() {
            return Err(wrong(
                "server.api_keys".to_owned(),
                "with store.data the keys are made there (`hearth admin keys create`); take one \
                 of the two away",
            ));
        }
        self.check_data()?;
        tls::check(self).map_err(|(at, problem)| wrong(at.to_owned(), problem))?;
        caching::check(self).map_err(|(at, problem)| wrong(at.to_owned(), problem))?;
        outgoing::check(self).map_err(|(at, problem)| wrong(at.to_owned(), problem))?;
        cluster::check(self, role).map_err(|(at, problem)| wrong(at.to_owned(), problem))?;
        let others = !self.routing.providers.is_empty() || self.cluster.is_used();
        if self.models.is_empty() && (role == Role::Node || !others) {
            let problem = "there is nobody to answer: name at least one model, a provider in \
                           hearth.toml ([providers.NAME]), or nodes (cluster.nodes)";
            return Err(wrong("models".to_owned(), problem));
        }
        for (index, model) in self.models.iter().enumerate() {
            if self.models[..index].iter().any(|other| other.id == model.id) {
                return Err(ConfigError {
                    at: format!("model {}", model.id),
                    problem: "two models have this name; give one another name with \
                              --model SOURCE=NAME"
                        .to_owned(),
                });
            }
        }
        let is_here = |base: &String| self.models.iter().any(|model| model.id == *base);
        for adapter in &self.adapters {
            if !adapter.base.as_ref().map_or(!self.models.is_empty(), is_here) {
                let base = adapter.base.as_deref().unwrap_or_default();
                let names: Vec<_> = self.models.iter().map(|model| &*model.id).collect();
                return Err(ConfigError {
                    at: format!("adapter {base}:{}", adapter.name),
                    problem: format!("no model here is its base; there is: [{}]", names.join(", ")),
                });
            }
        }
        Ok(())
    }

    /// What there is no use for without a folder.
    fn check_data(&self) -> Result<(), ConfigError> {
        let set = [
            (self.signin.is_some(), "signin", "people and their sessions are kept there"),
            (
                self.store_url.is_some(),
                "url",
                "the journal of open requests lies on this machine's disk",
            ),
            (
                self.fsync != govern::Fsync::default(),
                "fsync",
                "without keys of your own making nothing is spent",
            ),
            (self.redis.is_some(), "redis", "without keys of your own making there are no rates"),
        ];
        match set.into_iter().find(|(is_set, ..)| *is_set && self.data.is_none()) {
            None => Ok(()),
            Some((_, option, why)) => Err(ConfigError {
                at: format!("store.{option}"),
                problem: format!("store.data is missing: {why}"),
            }),
        }
    }

    /// CPU threads to use.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(values::physical_cores)
    }

    /// Threads that read requests, tokenize and write answers; models have threads of their own.
    #[must_use]
    pub fn server_threads(&self) -> usize {
        let of_cores = || (values::usable_cores() / 2).clamp(2, 16);
        self.server_threads.unwrap_or_else(of_cores)
    }
}

/// `--config`, else `HEARTH_CONFIG`, else `hearth.toml` here when there is one.
fn config_path(flags: &Flags, variable: Option<String>) -> Result<Option<PathBuf>, ConfigError> {
    let named = flags.config.clone().or_else(|| variable.map(PathBuf::from));
    match named {
        Some(path) if path.is_file() => Ok(Some(path)),
        Some(path) => Err(ConfigError {
            at: path.display().to_string(),
            problem: "there is no such file; check --config and HEARTH_CONFIG".to_owned(),
        }),
        None => {
            let here = Path::new("hearth.toml");
            Ok(here.is_file().then(|| here.to_owned()))
        }
    }
}

/// Variables that other parts of the program read.
const OTHER_VARIABLES: &[&str] = &["HEARTH_CONFIG", "HEARTH_URL"];

/// An unknown variable is no error: Kubernetes gives every pod `HEARTH_PORT` and the like when a
/// service is called hearth. One that is nearly an option's name is worth a word.
fn apply_variable(draft: &mut Draft<'_>, name: &str, text: &str) -> Result<(), ConfigError> {
    if let Some(option) = OPTIONS.iter().find(|option| option.env == name) {
        let texts: Vec<&str> = if option.list {
            text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect()
        } else {
            vec![text]
        };
        return draft
            .set(option, &texts)
            .map_err(|problem| ConfigError { at: name.to_owned(), problem });
    }
    let known = OPTIONS.iter().map(|option| option.env);
    if !OTHER_VARIABLES.contains(&name)
        && let Some(near) = values::nearest(name, known)
    {
        draft.warnings.push(format!("{name} is not used; did you mean {near}?"));
    }
    Ok(())
}

impl Flags {
    /// No flag but `--config`.
    #[must_use]
    pub fn of_file(config: Option<PathBuf>) -> Self {
        Self { config, given: Vec::new() }
    }

    /// The same and one more option, as if it had been typed.
    ///
    /// # Panics
    /// There is no such option.
    #[must_use]
    pub fn and(mut self, key: &str, value: String) -> Self {
        let option = OPTIONS.iter().find(|option| option.key == key).expect("an option");
        self.given.push((option, vec![value]));
        self
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.given = OPTIONS
            .iter()
            .filter_map(|option| {
                let texts = matches.get_many::<String>(option.key)?;
                Some((option, texts.cloned().collect()))
            })
            .collect();
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Configuration file [default: hearth.toml here, when there is one]");
        let flags = OPTIONS.iter().map(|option| {
            let arg = Arg::new(option.key).long(option.flag).value_name(option.value);
            let action = if option.list { ArgAction::Append } else { ArgAction::Set };
            let arg = if option.flag == "model" { arg.short('m') } else { arg };
            arg.action(action).help(option.help()).env_hint(option.env)
        });
        command.arg(config).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Names the variable in the help without letting clap read it: layers are ours.
trait EnvHint {
    fn env_hint(self, name: &'static str) -> Self;
}

impl EnvHint for Arg {
    fn env_hint(self, name: &'static str) -> Self {
        let help = self.get_help().map(ToString::to_string).unwrap_or_default();
        self.help(format!("{help} [env: {name}]"))
    }
}
