//! The tables of kinds and of models for people: `hearth providers`, and the page
//! `docs/providers.md`, which is generated so that it cannot be wrong. A test compares both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use govern::Money;
use govern::price::TokenPrices;
use serde_json::{Value, json};
use wire::Dialect;

use super::kinds::{self, Auth, KINDS, Kind};
use super::models::{self, Model, Source};
use super::times;

/// Options of `[providers.NAME]`, in the order of the page.
const OPTIONS: &[(&str, &str)] = &[
    ("kind", "its row in the table below; where absent, the section's name"),
    ("base_url", "where it answers, with the version: `https://HOST/v1`; where absent, the kind's"),
    (
        "key",
        "what it is shown: a key, or better a reference to one (`env:NAME`, `file:PATH`, `vault:MOUNT/SECRET#KEY`)",
    ),
    (
        "secret_key",
        "Bedrock: the second half of an AWS key, which signs requests (Signature Version 4). Without it `key` is a Bedrock API key, and is sent as bearer token",
    ),
    ("session_token", "Bedrock: what a temporary AWS key comes with (`env:AWS_SESSION_TOKEN`)"),
    ("region", "Bedrock, Vertex: the region, which stands for `{region}` in `base_url`"),
    ("project", "Vertex: the project, which stands for `{project}` in `base_url`"),
    (
        "headers",
        "headers of every request, by name; values may be references. Of a header whose name ends in `-beta` both values are sent, the caller's and this one; of all others this one. Those that belong to a connection (`host`, `content-length`, `transfer-encoding`, ...) are refused",
    ),
    ("body", "fields of every request's body, over what the caller says"),
    ("connect_timeout", "longest wait for a connection, name, proxy and TLS included"),
    (
        "first_byte_timeout",
        "longest wait for the head of an answer, and for a stream's next event where comments alone \
         come",
    ),
    ("idle_timeout", "longest silence within an answer"),
    ("total_timeout", "longest wait for the end of an answer that is no stream"),
    ("stream_timeout", "longest wait for the end of a stream"),
    (
        "proxy",
        "a proxy that makes tunnels (CONNECT): `http://HOST:PORT`, with `NAME:PASSWORD@` if it asks; may be a reference. It then also looks names up",
    ),
    (
        "ca",
        "a PEM file of the only authorities whose certificates count; where absent, those that the system believes",
    ),
    (
        "allow_internal",
        "whether it may be at an address of this machine or of an internal network. Where absent: only if `base_url` holds an address or `localhost`. A name is looked up for each connection, and refused while it leads inside",
    ),
    (
        "max_label",
        "the most secret label that it may see: `public`, `internal`, `confidential`, `restricted`; where absent, the kind's",
    ),
    (
        "models",
        "patterns of the models that may be asked as `NAME/MODEL`; all where absent. `[]`: none, only those that a pool names",
    ),
    (
        "lost_fields",
        "what becomes of fields that its dialect has no words for: `refuse` (the request, naming them; so where absent) or `drop` (the answer's `x-hearth-dropped` names them)",
    ),
    (
        "dialect",
        "the only dialect of its row that it is asked for chats in, those of its own callers among them: `responses` for models of OpenAI's that answer nowhere else, and for what only that carries. Where absent: each caller's own if it speaks that, else the first of its row",
    ),
    (
        "completions",
        "whether plain completions go to it as they come, at `/completions` beside the route of its chats; `false`: a chat is made of them. Where absent: as its row says, and of OpenAI's and Azure's models those with `instruct`, `davinci` or `babbage` in their names",
    ),
];

const INTRODUCTION: &str = "\
# Providers

<!-- Generated from the table of kinds; a test compares them. -->

Others can answer beside the models of this machine. Each is a section of `hearth.toml`; its models
are asked as `NAME/MODEL`, or through a pool ([routing](routing.md)). `hearth providers` prints the
table of kinds, `hearth providers NAME` one of them with the lines to copy and the [models](#models)
that are known of it; `--json` is for programs. A server without a model of its own is
`hearth serve --model none`.

A kind is data: where it answers, what it is shown, which dialects it speaks at which paths. A
request in a dialect that the provider speaks goes there as it came, but for the model's name, the
wish for usage, the bound that a policy sets, and what Responses say of where they are kept, which
is here ([responses](responses.md)). Any other chat is translated into the first
dialect of its row, and so is a plain completion where it does not speak those (`completions`): its
prompt becomes what a user says, and a model that chats answers it ([dialects](dialects.md)). Of a
pool those are asked before who go on with texts. Embeddings, ranking (`rerank` is Jina's dialect,
`cohere` Cohere's) and scores go to providers that speak them; the two dialects of ranking are
translated into each other.

## What happens on the way

- Nobody follows a redirect: it counts as a failure.
- A stream that is answered with something else than a stream, or JSON with something else than
  JSON, is a failure, whatever its status says. So is content that is encoded.
- Mistral refuses fields that it does not know. It is asked for `random_seed` and `max_tokens` where
  callers say `seed` and `max_completion_tokens`, and gets no `user` and no `stream_options`.
- Headers of a provider's answer do not reach callers. What it asks for does: `Retry-After` in
  seconds or as a date, `retry-after-ms`, Google's `retryDelay`; and where a 429 comes without,
  the limits' own times of reset (`x-ratelimit-reset-*`, `anthropic-ratelimit-*-reset`) are a hint,
  believed for a minute at most.
- 429, 529, and 503 with the time after which to come back mean that it has enough to do: it is
  left alone for that time, and is not ill. A 503 that names no time is a failure: so speaks a proxy
  with nobody behind it. A 429 that says `insufficient_quota` means that its account is empty:
  nobody waits for that.
- What is wrong with its key or its account is for the operator's log; a caller reads that the
  provider does not serve this server.
- Of an error's body 64 KiB are read, for 10 seconds at most.
- Connections are kept and reused, over HTTP/2 where the provider can.

Other gateways are providers too. LiteLLM's proxy is one of kind `compatible` or `anthropic`, both
with `base_url = \"http://HOST:4000/v1\"` and one of its keys; text, calls, usage and errors of 1.99.4
arrive through either, whole and streamed, in chat and in messages.

## Options

Under `[providers.NAME]`:

";

const SENT: &str = "
### What each is sent

Paths lie behind the base URL, in the order of the dialects above; where a stream has a path of its
own, it comes second. Renamed are fields of chats in OpenAI's dialect.

| name | the key goes as | paths | headers | renamed |
|---|---|---|---|---|
";

const MODELS: &str = "\n\
## Models

Of these is known how much they read and what they cannot. A pool's target that is among them, as
`NAME/MODEL` of a provider of that kind, need not say its `context` and `without`; what it does say
counts ([routing](routing.md#pools)). `*` stands for any letters, `?` for one.

Prices are dollars per million tokens, of text: the providers' list prices of the day in the last
column, as its source gave them. They bind nobody, and nobody is charged by them: what is billed is
what the operator's own sheet says ([prices](govern.md#prices)). To begin with one of these:

```
hearth providers openai anthropic --prices > prices.json      # look at it, add your own models
hearth admin prices set prices.json
```

The sheet has them as `NAME/MODEL`, as callers ask and the ledger says. Where a section of
`hearth.toml` is not called as its kind is, `hearth providers work=openai --prices` writes
`work/MODEL`. A sheet takes the place of the one in force: what it has no entry for costs nothing.

| kind | model | context | longest prompt | longest answer | cannot | prompt \
| from a cache | into a cache | answer | else | as of |
|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// The page.
#[must_use]
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| option | meaning |\n|---|---|\n");
    for (name, words) in OPTIONS {
        let usual = times::usual(name).map(|time| format!("; `{}` where absent", shown(time)));
        let _ = writeln!(page, "| `{name}` | {words}{} |", usual.unwrap_or_default());
    }
    page.push_str("\n## Kinds\n\n| name | | dialects | base URL | key | may see |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for kind in KINDS {
        let Kind { name, title, docs, key_env, .. } = kind;
        let label = kind.max_label.name();
        let dialects = dialects(kind).join(", ");
        let base = if kind.base_url.is_empty() {
            "yours".to_owned()
        } else {
            format!("`{}`", kind.base_url)
        };
        let key = if key_env.is_empty() { "if it asks".to_owned() } else { format!("`{key_env}`") };
        let _ = writeln!(
            page,
            "| `{name}` | [{title}]({docs}) | {dialects} | {base} | {key} | {label} |"
        );
    }
    page.push_str(SENT);
    for kind in KINDS {
        let all = |parts: Vec<String>| Some(parts.join(", ")).filter(|all| !all.is_empty());
        let quoted = |(name, value): &(&str, &str)| format!("`{name}: {value}`");
        let [paths, headers, fields] = [
            all(paths(kind).iter().map(|(_, path)| format!("`{path}`")).collect()),
            all(kind.headers.iter().map(quoted).collect()),
            all(kind.renames.iter().map(|(name, own)| own_name(name, *own, "`")).collect()),
        ]
        .map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
        let proof = proof(kind, "`");
        let _ = writeln!(page, "| `{}` | {proof} | {paths} | {headers} | {fields} |", kind.name);
    }
    page.push_str(MODELS);
    for (source, model) in models::all() {
        let (kinds, names) = (source.kinds.join(", "), model.names.join("`, `"));
        let mut cells = cells(source, model);
        cells[SEEN] = format!("[{}]({})", source.seen, source.url);
        let _ = writeln!(page, "| {kinds} | `{names}` | {} |", cells.join(" | "));
    }
    page.push_str("\n## The least that is needed\n");
    for kind in KINDS {
        let _ = write!(page, "\n### {}\n\n```toml\n{}```\n", kind.name, example(kind));
    }
    page
}

/// The least that is needed to ask a provider of this kind.
#[must_use]
pub fn example(kind: &Kind) -> String {
    let mut text = match kind.name {
        "compatible" => "[providers.mine]\nkind = \"compatible\"\n".to_owned(),
        name => format!("[providers.{name}]\n"),
    };
    match kind.name {
        "azure" => text.push_str("base_url = \"https://RESOURCE.openai.azure.com/openai/v1\"\n"),
        "compatible" => text.push_str("base_url = \"http://127.0.0.1:9000/v1\"\n"),
        _ => {}
    }
    match kind.auth {
        Auth::Google => text.push_str("key = \"file:/etc/hearth/account.json\"\n"),
        _ if kind.key_env.is_empty() => {}
        _ => {
            let _ = writeln!(text, "key = \"env:{}\"", kind.key_env);
        }
    }
    if kind.auth == Auth::Aws {
        text.push_str("secret_key = \"env:AWS_SECRET_ACCESS_KEY\"\n");
    }
    for (name, usual) in [("project", "my-project"), ("region", "us-east-1")] {
        if kind.base_url.contains(&format!("{{{name}}}")) {
            let usual = if kind.auth == Auth::Google {
                usual.replace("east-1", "central1")
            } else {
                usual.to_owned()
            };
            let _ = writeln!(text, "{name} = \"{usual}\"");
        }
    }
    text
}

fn dialects(kind: &Kind) -> Vec<&'static str> {
    kind.speaks.iter().map(|(dialect, _)| dialect.name()).collect()
}

/// Dialects and their paths; a stream's after the other, where it has one of its own.
fn paths(kind: &Kind) -> Vec<(&'static str, String)> {
    let of = |(dialect, path): &(Dialect, &str)| {
        let [whole, stream] = [false, true].map(|stream| kinds::method(*dialect, stream));
        let more = Some(stream).filter(|stream| *stream != whole);
        let each = [Some(whole), more].into_iter().flatten();
        each.map(|method| (dialect.name(), format!("{path}{method}"))).collect::<Vec<_>>()
    };
    kind.speaks.iter().flat_map(of).collect()
}

/// How its key is sent, names of headers within marks.
fn proof(kind: &Kind, mark: &str) -> String {
    let bearer = format!("{mark}Authorization: Bearer KEY{mark}");
    match kind.auth {
        Auth::Bearer if kind.key_env.is_empty() => format!("{bearer}, if there is one"),
        Auth::Bearer => bearer,
        Auth::Header(name) => format!("{mark}{name}: KEY{mark}"),
        Auth::Aws => {
            format!("Signature Version 4; without {mark}secret_key{mark} {bearer}")
        }
        Auth::Google => {
            format!("{mark}Authorization: Bearer TOKEN{mark}, the token fetched for the account")
        }
    }
}

/// What a field is called there.
fn own_name(name: &str, own: Option<&str>, mark: &str) -> String {
    match own {
        Some(own) => format!("{mark}{name}{mark} is {mark}{own}{mark}"),
        None => format!("{mark}{name}{mark} is not sent"),
    }
}

/// A time as an operator writes it.
fn shown(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// What is known of a model beside its names, column by column.
const COLUMNS: [&str; 10] = [
    "CONTEXT",
    "PROMPT MAX",
    "ANSWER MAX",
    "CANNOT",
    "$PROMPT",
    "$FROM CACHE",
    "$INTO CACHE",
    "$ANSWER",
    "$ELSE",
    "AS OF",
];

/// The column of the day.
const SEEN: usize = 9;

fn cells(source: &Source, model: &Model) -> [String; 10] {
    let tokens = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let price = |micro: Option<u64>| micro.map_or("-".to_owned(), dollars);
    let Model { tokens: most, price: rates, .. } = model;
    let cannot = if model.embeds { "chats".to_owned() } else { model.without.join(", ") };
    let pair = |rates: &TokenPrices| [dollars(rates.input), dollars(rates.output)].join(" / ");
    let batch = model.batch.iter().map(|rates| format!("flex: {}", pair(rates)));
    let tiers = model.tiers.iter();
    let tiers =
        tiers.map(|tier| format!("above {}: {}", tier.above_input_tokens, pair(&tier.rates)));
    let more = batch.chain(tiers).collect::<Vec<_>>().join("; ");
    [
        tokens(most.context),
        tokens(most.prompt),
        tokens(most.output),
        or_dash(&cannot).to_owned(),
        dollars(rates.input),
        price(rates.cache_read),
        price(rates.cache_write),
        dollars(rates.output),
        or_dash(&more).to_owned(),
        source.seen.clone(),
    ]
}

/// Micro-dollars as dollars.
fn dollars(micro: u64) -> String {
    Money(i64::try_from(micro).unwrap_or(i64::MAX).saturating_mul(1000)).decimals()
}

/// The table for a terminal.
#[must_use]
pub fn table() -> String {
    let mut text = String::new();
    let mut row = |name: &str, label: &str, key: &str, base: &str, dialects: &str| {
        let _ = writeln!(text, "{name:<11} {label:<9} {key:<31} {base:<50} {dialects}");
    };
    row("NAME", "MAY SEE", "KEY", "BASE URL", "DIALECTS");
    for kind in KINDS {
        // Vertex's is longer than a line.
        let base = kind.base_url.split("/projects/").next().unwrap_or_default();
        let (label, dialects) = (kind.max_label.name(), dialects(kind).join(" "));
        row(kind.name, label, or_dash(kind.key_env), or_dash(base), &dialects);
    }
    text.push_str(
        "\n`hearth providers NAME` shows one with the lines for hearth.toml and the models that are\n\
         known of it; `hearth providers --prices` writes their list prices as a price sheet.\n",
    );
    text
}

/// One kind for a terminal.
#[must_use]
pub fn details(kind: &Kind) -> String {
    let mut lines = vec![
        ("base URL", or_dash(kind.base_url).to_owned()),
        ("key", or_dash(kind.key_env).to_owned()),
        ("sent as", proof(kind, "")),
        ("may see", kind.max_label.name().to_owned()),
        ("docs", kind.docs.to_owned()),
    ];
    let header = |(name, value): &(&str, &str)| ("header", format!("{name}: {value}"));
    lines.extend(kind.headers.iter().map(header));
    let field = |(name, own): &(&str, Option<&str>)| ("field", own_name(name, *own, ""));
    lines.extend(kind.renames.iter().map(field));
    let paths = paths(kind);
    let paths = paths.iter().map(|(dialect, path)| (*dialect, path.clone()));
    let times = times::ALL.iter().map(|(option, time)| (*option, shown(*time)));
    let (lines, paths, times) =
        (aligned(lines), aligned(paths.collect()), aligned(times.collect()));
    let (title, example, known) = (kind.title, example(kind), known(kind));
    format!(
        "{title}\n\n{lines}\npaths behind the base URL\n{paths}\ntimes, where its section says \
         nothing\n{times}\n{example}{known}"
    )
}

/// Lines of two columns.
fn aligned(lines: Vec<(&str, String)>) -> String {
    let wide = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.into_iter().map(|(name, value)| format!("{name:<wide$}  {value}\n")).collect()
}

/// The models of a kind for a terminal; nothing where none are known.
fn known(kind: &Kind) -> String {
    let head = COLUMNS.map(str::to_owned);
    let rows = models::of(kind).map(|(source, model)| (&*model.names[0], cells(source, model)));
    let rows: Vec<_> = [("MODEL", head)].into_iter().chain(rows).collect();
    if rows.len() == 1 {
        return String::new();
    }
    let mut wide = [0; COLUMNS.len()];
    for (_, cells) in &rows {
        for (most, cell) in wide.iter_mut().zip(cells) {
            *most = cell.len().max(*most);
        }
    }
    let name_wide = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text =
        "\nmodels that are known; list prices in dollars per million tokens\n".to_owned();
    for (name, cells) in &rows {
        let _ = write!(text, "{name:<name_wide$}");
        for (cell, wide) in cells.iter().zip(wide) {
            let _ = write!(text, "  {cell:<wide$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// One kind for a program.
#[must_use]
pub fn json(kind: &Kind) -> Value {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let models = models::of(kind).map(|(source, model)| models::shown(source, model));
    let models: Vec<Value> = models.collect();
    let paths = |stream: bool| -> Value {
        let of = |(dialect, path): &(Dialect, &str)| {
            (dialect.name().to_owned(), format!("{path}{}", kinds::method(*dialect, stream)).into())
        };
        Value::Object(kind.speaks.iter().map(of).collect())
    };
    let (scheme, header) = match kind.auth {
        Auth::Bearer => ("bearer", "authorization"),
        Auth::Header(name) => ("header", name),
        Auth::Aws => ("sigv4", "authorization"),
        Auth::Google => ("google", "authorization"),
    };
    let of_times = times::ALL.iter().map(|(option, time)| ((*option).to_owned(), shown(*time)));
    json!({
        "name": kind.name,
        "title": kind.title,
        "dialects": dialects(kind),
        "base_url": some(kind.base_url),
        "paths": paths(false),
        "stream_paths": paths(true),
        "key_variable": some(kind.key_env),
        "auth": { "scheme": scheme, "header": header },
        "headers": kind.headers.iter().copied().collect::<BTreeMap<_, _>>(),
        "renames": kind.renames.iter().copied().collect::<BTreeMap<_, _>>(),
        "max_label": kind.max_label.name(),
        "times": of_times.collect::<BTreeMap<_, _>>(),
        "docs": kind.docs,
        "models": models,
    })
}
