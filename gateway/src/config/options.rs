//! The option table: each option once, with its name in the file, in the environment and on the
//! command line, its default, its meaning and its check.

use super::{Config, caching, cluster, outgoing, source, tls, values};

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// `section.key` in the file; without a dot it stands above all sections.
    pub key: &'static str,
    /// The variable.
    pub env: &'static str,
    /// The flag, without dashes.
    pub flag: &'static str,
    /// What its value is, for the help.
    pub value: &'static str,
    /// The default, as an operator would write it. Lists: separated by commas.
    pub default: &'static str,
    /// Takes several values.
    pub list: bool,
    /// What it is for, in one or two sentences.
    pub doc: &'static str,
    /// Checks and stores.
    pub set: fn(&mut Config, &[&str]) -> Result<(), String>,
}

impl Opt {
    /// One line for `--help`.
    #[must_use]
    pub fn help(&self) -> String {
        let default = if self.default.is_empty() { "none" } else { self.default };
        format!("{} [default: {default}]", self.doc.trim_end_matches('.'))
    }

    /// The default as the setter takes it.
    #[must_use]
    pub fn default_texts(&self) -> Vec<&'static str> {
        if self.list {
            self.default.split(',').filter(|text| !text.is_empty()).collect()
        } else {
            vec![self.default]
        }
    }
}

/// Stores the only value of an option that takes one.
pub(super) fn one<T>(
    slot: &mut T,
    texts: &[&str],
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), String> {
    let [text] = texts else {
        return Err(format!("takes one value, not {}", texts.len()));
    };
    *slot = parse(text.trim())?;
    Ok(())
}

/// All options, in the order of help and reference.
pub static OPTIONS: &[Opt] = &[
    Opt {
        key: "models",
        env: "HEARTH_MODELS",
        flag: "model",
        value: "MODEL",
        default: "demo",
        list: true,
        doc: "Models to serve: `demo` (built in), a directory, a GGUF file, or `org/name` of a \
              hub, fetched when it is not there; `=NAME` behind it sets the name it is served \
              under. The first one is what `hearth chat` talks to. `none`: no model here, only \
              providers.",
        set: |c, t| {
            if t.is_empty() {
                return Err("name at least one model, or `none`".to_owned());
            }
            let named = t.iter().filter(|text| **text != "none");
            c.models = named.map(|text| source::model(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Opt {
        key: "server.listen",
        env: "HEARTH_LISTEN",
        flag: "listen",
        value: "ADDR:PORT",
        default: "127.0.0.1:8080",
        list: false,
        doc: "Address of the HTTP server. Anything but this machine itself needs a key.",
        set: |c, t| one(&mut c.listen, t, values::address),
    },
    tls::CERTIFICATE,
    tls::KEY,
    tls::CLIENTS,
    tls::CLIENT_AUTHORITIES,
    tls::REVOKED,
    tls::TRUSTED_PROXIES,
    Opt {
        key: "server.api_keys",
        env: "HEARTH_API_KEY",
        flag: "api-key",
        value: "KEY",
        default: "",
        list: true,
        doc: "Keys that callers must show as bearer token or `x-api-key`; several are separated \
              by commas. Without any, only this machine may connect. Other users of the machine \
              see flags: prefer the variable or the file.",
        set: |c, t| {
            c.api_keys = t.iter().map(|text| values::secret(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Opt {
        key: "server.body_limit",
        env: "HEARTH_BODY_LIMIT",
        flag: "body-limit",
        value: "SIZE",
        default: "16MiB",
        list: false,
        doc: "Largest request body; a larger one is answered with 413.",
        set: |c, t| one(&mut c.body_limit, t, |s| values::size_usize(s, 1 << 10, 1 << 30)),
    },
    Opt {
        key: "server.connections_max",
        env: "HEARTH_CONNECTIONS_MAX",
        flag: "connections-max",
        value: "N",
        default: "8192",
        list: false,
        doc: "Connections open at once; a further one takes the place of the one silent longest.",
        set: |c, t| one(&mut c.connections_max, t, |s| values::count(s, 1, 1 << 20)),
    },
    Opt {
        key: "server.threads",
        env: "HEARTH_SERVER_THREADS",
        flag: "server-threads",
        value: "N",
        default: "auto",
        list: false,
        doc: "Threads that read requests, tokenize and write answers; `auto`: half of the cores \
              that this process may use, but 2 at least and 16 at most.",
        set: |c, t| {
            one(&mut c.server_threads, t, |s| values::auto(s, |s| values::count(s, 1, 1024)))
        },
    },
    Opt {
        key: "server.request_timeout",
        env: "HEARTH_REQUEST_TIMEOUT",
        flag: "request-timeout",
        value: "TIME",
        default: "10m",
        list: false,
        doc: "A request that has not ended after this time is ended.",
        set: |c, t| one(&mut c.request_timeout, t, |s| values::time(s, 1_000, 86_400_000)),
    },
    Opt {
        key: "server.step_timeout",
        env: "HEARTH_STEP_TIMEOUT",
        flag: "step-timeout",
        value: "TIME",
        default: "auto",
        list: false,
        doc: "A device that takes longer for one step hangs: its requests end with an error or go \
              on at another node, and it gets none until it answers; `auto`: 60s on a GPU, 10m on \
              the CPU.",
        set: |c, t| {
            one(&mut c.step_timeout, t, |s| values::auto(s, |s| values::time(s, 1_000, 86_400_000)))
        },
    },
    Opt {
        key: "server.drain",
        env: "HEARTH_DRAIN",
        flag: "drain",
        value: "TIME",
        default: "30s",
        list: false,
        doc: "Time that open requests get to end after SIGTERM or SIGINT; a second signal ends \
              the process at once.",
        set: |c, t| one(&mut c.drain, t, |s| values::time(s, 0, 86_400_000)),
    },
    Opt {
        key: "store.data",
        env: "HEARTH_DATA",
        flag: "data",
        value: "DIR",
        default: "",
        list: false,
        doc: "Folder for keys, teams, budgets, the ledger and the audit. With it every request \
              needs a key that is made here; the first start prints one. Empty: no such things.",
        set: |c, t| one(&mut c.data, t, values::new_folder_or_none),
    },
    Opt {
        key: "store.url",
        env: "HEARTH_STORE_URL",
        flag: "store-url",
        value: "URL",
        default: "",
        list: false,
        doc: "PostgreSQL in place of the SQLite file `hearth.db` in that folder: \
              `postgres://USER@HOST/NAME`. May hold a password: prefer the variable.",
        set: |c, t| one(&mut c.store_url, t, values::secret_or_none),
    },
    Opt {
        key: "store.fsync",
        env: "HEARTH_FSYNC",
        flag: "fsync",
        value: "always|everysec",
        default: "always",
        list: false,
        doc: "When the journal of what was spent is brought to the disk: `always` (before an answer \
              ends) or `everysec` (once a second: answers are quicker, and if the power fails, \
              those of the last second may be in no book). A process that dies loses nothing.",
        set: |c, t| one(&mut c.fsync, t, values::fsync),
    },
    Opt {
        key: "store.redis",
        env: "HEARTH_REDIS",
        flag: "redis",
        value: "URL",
        default: "",
        list: false,
        doc: "Redis or Valkey where several gateways count their rates together: \
              `redis://HOST:PORT`, or `rediss://` for TLS. May hold a password: prefer the \
              variable. Empty: each gateway counts for itself.",
        set: |c, t| one(&mut c.redis, t, values::redis_or_none),
    },
    Opt {
        key: "store.signin",
        env: "HEARTH_SIGNIN",
        flag: "signin",
        value: "FILE",
        default: "",
        list: false,
        doc: "File that says how people and services sign in: OpenID Connect providers, passwords, \
              issuers of tokens (docs/signin.md). Empty: with keys only.",
        set: |c, t| one(&mut c.signin, t, values::file_or_none),
    },
    Opt {
        key: "store.gateway",
        env: "HEARTH_GATEWAY",
        flag: "gateway",
        value: "NAME",
        default: "auto",
        list: false,
        doc: "Name of this gateway in the ledger and the audit; two that share a database differ. \
              `auto`: the machine's name.",
        set: |c, t| one(&mut c.gateway, t, |s| values::auto(s, values::name)),
    },
    Opt {
        key: "store.gateway_lost",
        env: "HEARTH_GATEWAY_LOST",
        flag: "gateway-lost",
        value: "TIME",
        default: "15m",
        list: false,
        doc: "With several gateways on one database: time after which one that says nothing is \
              taken for lost, and the money that it had leased may be spent by the others.",
        set: |c, t| one(&mut c.gateway_lost, t, |s| values::time(s, 60_000, 604_800_000)),
    },
    Opt {
        key: "store.kept_days",
        env: "HEARTH_KEPT_DAYS",
        flag: "kept-days",
        value: "N",
        default: "30",
        list: false,
        doc: "Days that responses and conversations are kept for later requests to go on with \
              (docs/responses.md); an organisation may say otherwise by label.",
        set: |c, t| one(&mut c.kept_days, t, |s| values::count(s, 1, 3650).map(|n| n as u32)),
    },
    caching::ENABLED,
    caching::ANY,
    caching::TTL,
    caching::BYTES_MAX,
    caching::REDIS,
    outgoing::WEBHOOK,
    outgoing::WEBHOOK_SECRET,
    outgoing::SMTP,
    outgoing::SMTP_PASSWORD,
    outgoing::FROM,
    outgoing::TO,
    outgoing::PROXY,
    outgoing::EXPORT,
    outgoing::S3_ACCESS_KEY,
    outgoing::S3_SECRET_KEY,
    cluster::NODES,
    cluster::DNS,
    cluster::KUBERNETES,
    cluster::KUBERNETES_API,
    cluster::KUBERNETES_ACCOUNT,
    cluster::TOKEN,
    cluster::MODELS,
    cluster::CA,
    cluster::CERTIFICATE,
    cluster::KEY,
    cluster::JOIN,
    cluster::ADVERTISE,
    Opt {
        key: "engine.device",
        env: "HEARTH_DEVICE",
        flag: "device",
        value: "DEVICE",
        default: "auto",
        list: false,
        doc: "Where models run: `auto`, `cpu` or `cuda:N`.",
        set: |c, t| one(&mut c.device, t, values::device),
    },
    Opt {
        key: "engine.task",
        env: "HEARTH_TASK",
        flag: "task",
        value: "TASK",
        default: "auto",
        list: false,
        doc: "What the models are there for: `generate`, `embed` (vectors) or `rerank` (scores); \
              `auto`: what their files say.",
        set: |c, t| one(&mut c.task, t, values::task),
    },
    Opt {
        key: "engine.dtype",
        env: "HEARTH_DTYPE",
        flag: "dtype",
        value: "TYPE",
        default: "auto",
        list: false,
        doc: "Arithmetic: `auto` (what the files hold), `float32`, `bfloat16` or `float16`.",
        set: |c, t| one(&mut c.dtype, t, values::dtype),
    },
    Opt {
        key: "engine.threads",
        env: "HEARTH_THREADS",
        flag: "threads",
        value: "N",
        default: "auto",
        list: false,
        doc: "CPU threads of a model; `auto`: the physical cores that this process may use.",
        set: |c, t| one(&mut c.threads, t, |s| values::auto(s, |s| values::count(s, 1, 1024))),
    },
    Opt {
        key: "engine.context",
        env: "HEARTH_CONTEXT",
        flag: "context",
        value: "TOKENS",
        default: "auto",
        list: false,
        doc: "Longest sequence, prompt and answer together; `auto`: what the model was made for, \
              as far as memory allows.",
        set: |c, t| one(&mut c.context, t, |s| values::auto(s, |s| values::count(s, 16, 1 << 24))),
    },
    Opt {
        key: "engine.cache_memory",
        env: "HEARTH_CACHE_MEMORY",
        flag: "cache-memory",
        value: "SIZE",
        default: "auto",
        list: false,
        doc: "Memory for keys and values of all sequences; `auto`: chosen from what is free.",
        set: |c, t| {
            one(&mut c.cache_memory, t, |s| values::auto(s, |s| values::size(s, 1 << 20, 1 << 45)))
        },
    },
    Opt {
        key: "engine.cache_dtype",
        env: "HEARTH_CACHE_DTYPE",
        flag: "cache-dtype",
        value: "TYPE",
        default: "auto",
        list: false,
        doc: "Type of keys and values: `auto` (that of the arithmetic) or `fp8` (e4m3, on a GPU): \
              half the memory, a little less exact.",
        set: |c, t| one(&mut c.cache_dtype, t, values::cache_dtype),
    },
    Opt {
        key: "engine.gpu_memory",
        env: "HEARTH_GPU_MEMORY",
        flag: "gpu-memory",
        value: "SHARE|SIZE",
        default: "0.9",
        list: false,
        doc: "Memory of the GPU that each model may take, weights, cache and all: a share of the \
              card's (`0.9`) or a size (`20GiB`).",
        set: |c, t| one(&mut c.gpu_memory, t, values::gpu_memory),
    },
    Opt {
        key: "engine.rows_max",
        env: "HEARTH_ROWS_MAX",
        flag: "rows-max",
        value: "N",
        default: "auto",
        list: false,
        doc: "Sequences computed at once; `auto`: 32 on a CPU, 256 on a GPU.",
        set: |c, t| one(&mut c.rows_max, t, |s| values::auto(s, |s| values::count(s, 1, 4096))),
    },
    Opt {
        key: "engine.step_tokens",
        env: "HEARTH_STEP_TOKENS",
        flag: "step-tokens",
        value: "N",
        default: "auto",
        list: false,
        doc: "Tokens computed in one step at most; long prompts are cut into such pieces. `auto`: \
              512 on a CPU, 2048 on a GPU, 8192 on one of 64 GiB or more.",
        set: |c, t| {
            one(&mut c.step_tokens, t, |s| values::auto(s, |s| values::count(s, 16, 1 << 17)))
        },
    },
    Opt {
        key: "engine.target_inter_token",
        env: "HEARTH_TARGET_INTER_TOKEN",
        flag: "target-inter-token",
        value: "TIME",
        default: "100ms",
        list: false,
        doc: "Time between two tokens of an answer that the scheduler aims at: it computes less \
              of new prompts per step to keep it.",
        set: |c, t| one(&mut c.target_inter_token, t, |s| values::time(s, 1, 60_000)),
    },
    Opt {
        key: "engine.speculation",
        env: "HEARTH_SPECULATION",
        flag: "speculation",
        value: "WHEN",
        default: "off",
        list: false,
        doc: "Guesses of what an answer says next, from what stood in it and in its prompt, are \
              checked several at a time: fewer steps where an answer quotes or repeats, and never \
              another answer. `off`; `auto`: where that is expected to pay; 1 to 15: as `auto`, \
              with so many guesses in a step at most. On a CPU; a GPU makes none.",
        set: |c, t| one(&mut c.speculation, t, values::speculation),
    },
    Opt {
        key: "engine.queue_max",
        env: "HEARTH_QUEUE_MAX",
        flag: "queue-max",
        value: "N",
        default: "256",
        list: false,
        doc: "Requests that wait for a place; further ones are answered with 429 and Retry-After.",
        set: |c, t| one(&mut c.queue_max, t, |s| values::count(s, 1, 1 << 20)),
    },
    Opt {
        key: "engine.chat_template",
        env: "HEARTH_CHAT_TEMPLATE",
        flag: "chat-template",
        value: "FILE",
        default: "",
        list: false,
        doc: "A Jinja file that replaces the models' own chat template.",
        set: |c, t| one(&mut c.chat_template, t, values::file_or_none),
    },
    Opt {
        key: "engine.tool_format",
        env: "HEARTH_TOOL_FORMAT",
        flag: "tool-format",
        value: "NAME",
        default: "auto",
        list: false,
        doc: "How the models write tool calls, where their chat template does not show it \
              (docs/tools.md lists the names).",
        set: |c, t| one(&mut c.tool_format, t, values::tool_format),
    },
    Opt {
        key: "engine.adapters",
        env: "HEARTH_ADAPTERS",
        flag: "adapter",
        value: "[BASE:]NAME=DIR",
        default: "",
        list: true,
        doc: "Low-rank adapters (PEFT folders) to load at start, each served as the model \
              `base:name`. Without a base they belong to the first model.",
        set: |c, t| {
            c.adapters = t.iter().map(|text| source::adapter(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Opt {
        key: "engine.adapters_folder",
        env: "HEARTH_ADAPTERS_FOLDER",
        flag: "adapters-folder",
        value: "DIR",
        default: "",
        list: false,
        doc: "Folder below which `POST /v1/load_lora_adapter` finds adapters, also where a gateway \
              passes it to a node. Without one, nothing is loaded or unloaded while serving.",
        set: |c, t| one(&mut c.adapters_folder, t, values::folder_or_none),
    },
    Opt {
        key: "engine.adapters_max",
        env: "HEARTH_ADAPTERS_MAX",
        flag: "adapters-max",
        value: "N",
        default: "16",
        list: false,
        doc: "Adapters that each model holds at once.",
        set: |c, t| one(&mut c.adapters_max, t, |s| values::count(s, 1, 4096).map(|n| n as u32)),
    },
    Opt {
        key: "log.format",
        env: "HEARTH_LOG_FORMAT",
        flag: "log-format",
        value: "FORMAT",
        default: "text",
        list: false,
        doc: "`text` for people or `json`, one object a line. Logs go to standard error.",
        set: |c, t| one(&mut c.log_format, t, values::log_format),
    },
    Opt {
        key: "log.level",
        env: "HEARTH_LOG_LEVEL",
        flag: "log-level",
        value: "LEVEL",
        default: "info",
        list: false,
        doc: "`error`, `warn`, `info`, `debug` or `trace`; also per module: `info,gateway=debug`.",
        set: |c, t| one(&mut c.log_level, t, values::log_level),
    },
];
