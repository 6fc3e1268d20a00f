//! The tables of kinds and models as people read them, on the terminal and on the pages, and what
//! the pages show of `hearth.toml`: none of it can be wrong.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use gateway::config::routing::{
    OverflowConfig, OverflowWhen, PoolConfig, ProviderConfig, Routing, RuleConfig, TargetTable,
};
use gateway::config::{Config, Flags};
use gateway::route::Routes;
use gateway::upstream::{Kind, Provider, kinds::KINDS, reference};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
    std::fs::read_to_string(root.join("docs").join(name)).unwrap_or_default()
}

#[test]
fn the_generated_page_is_up_to_date() {
    let wanted = reference::page();
    if std::env::var_os("BLESS").is_some() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
        std::fs::write(root.join("docs/providers.md"), &wanted).expect("written");
    }
    let found = page("providers.md");
    assert_eq!(found, wanted, "out of date: BLESS=1 cargo test -p gateway --test upstream");
}

/// Names of a section's options, from what a wrong one is answered with.
fn options<T: DeserializeOwned>() -> Vec<String> {
    let error = toml::from_str::<T>("no-such-option = 1").err().expect("refused").to_string();
    let (_, list) = error.rsplit_once("expected").expect("a list of what is known");
    let names: Vec<_> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!names.is_empty(), "{error}");
    names
}

#[test]
fn every_option_stands_on_its_page() {
    let (providers, routing) = (page("providers.md"), page("routing.md"));
    let pools = [
        options::<PoolConfig>(),
        options::<TargetTable>(),
        options::<OverflowConfig>(),
        options::<OverflowWhen>(),
        options::<RuleConfig>(),
    ]
    .concat();
    for (name, page, options) in
        [("providers.md", providers, options::<ProviderConfig>()), ("routing.md", routing, pools)]
    {
        for option in options {
            assert!(page.contains(&format!("| `{option}` |")), "docs/{name}: {option}");
        }
    }
}

/// The blocks of a page in TOML.
fn blocks(page: &str) -> Vec<&str> {
    let parts = page.split("```toml\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default()).collect()
}

/// A reference to a key that nobody has here becomes a key.
fn with_keys(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(" = \"env:") {
        Some((name, rest)) => {
            let (_, behind) = rest.split_once('"').expect("the reference's end");
            format!("{name} = \"any-key\"{behind}\n")
        }
        None => match line.split_once(" = \"file:") {
            // A service account takes a key of its own; this way none is needed.
            Some((name, _)) => format!("{name} = \"metadata\"\n"),
            None => format!("{line}\n"),
        },
    });
    lines.collect()
}

/// An option that is shown behind a comment's mark is set.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(option) if option.split(' ').nth(1) == Some("=") => format!("{option}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Reads a text as the server reads its file, `data` being its folder, and finds who answers.
fn read(name: &str, text: &str, data: Option<&str>) -> Config {
    let path = std::env::temp_dir().join(format!("hearth-pages-{}.toml", std::process::id()));
    std::fs::write(&path, with_keys(text)).expect("written");
    let mut flags = Flags::of_file(Some(path.clone()));
    if let Some(data) = data {
        flags = flags.and("store.data", data.to_owned());
    }
    let loaded = Config::load(&flags, std::iter::empty());
    std::fs::remove_file(&path).expect("it is there");
    let loaded = loaded.unwrap_or_else(|why| panic!("{name}: {why}"));
    assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
    let refused = Routes::new(&loaded.config.routing, &["demo".to_owned()]).err();
    assert_eq!(refused, None, "{name}");
    loaded.config
}

#[test]
fn what_the_pages_show_can_be_used() {
    for kind in KINDS {
        let example = reference::example(kind);
        assert!(page("providers.md").contains(&example), "{}", kind.name);
        let routing: Routing = toml::from_str(&with_keys(&example)).expect(kind.name);
        let (name, config) = routing.providers.first_key_value().expect(kind.name);
        let made = Provider::new(name, config);
        let made = made.unwrap_or_else(|why| panic!("{}: {why}", kind.name));
        assert_eq!(made.kind.name, kind.name);
    }
    // Blocks of one page stand in one file.
    let shown = |name: &str, least: usize| {
        let page = page(name);
        let blocks = blocks(&page);
        assert!(blocks.len() >= least, "{name} has examples");
        blocks.concat()
    };
    let routing = read("routing.md", &shown("routing.md", 3), None).routing;
    assert!(routing.pools.len() >= 5, "{:?}", routing.pools.keys());
    let routing = read("README.md", &shown("../README.md", 1), None).routing;
    assert!(routing.pools["assistant"].overflow.is_some());
    let caching = shown("caching.md", 1);
    let cache = read("caching.md", &caching, None).cache;
    assert!(cache.enabled && !cache.any && cache.redis.is_none(), "{cache:?}");
    // What is shared is sealed with the folder's key.
    let cache = read("caching.md", &uncommented(&caching), Some("nowhere")).cache;
    assert!(cache.enabled && cache.any && cache.redis.is_some(), "{cache:?}");
    let config = read("govern.md", &shown("govern.md", 2), Some("nowhere"));
    assert!(config.alerts.smtp.is_some() && !config.alerts.webhook.is_empty());
    assert_eq!(config.audit.export.len(), 5);
}

/// A page that begins to show a file is read by a test, too.
#[test]
fn no_page_shows_what_nobody_reads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
    let docs = std::fs::read_dir(root.join("docs")).expect("the pages");
    let docs = docs.map(|entry| entry.expect("an entry").file_name());
    let docs = docs.map(|name| name.into_string().expect("UTF-8"));
    let pages = docs.filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"));
    let showing: BTreeSet<String> = pages
        .chain(["../README.md".to_owned()])
        .filter(|name| !blocks(&page(name)).is_empty())
        .collect();
    let known = [
        "../README.md",
        // Another program's file.
        "agents.md",
        "caching.md",
        "govern.md",
        "providers.md",
        "routing.md",
        // A file of its own: a server of `tests/tests/door` is set up by it.
        "signin.md",
    ];
    assert_eq!(showing, BTreeSet::from(known.map(str::to_owned)));
}

fn hearth(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hearth")).args(args).env_clear().output();
    let output = output.expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn the_command_prints_the_table() {
    let (code, table) = hearth(&["providers"]);
    assert_eq!(code, Some(0));
    for kind in KINDS {
        assert!(table.lines().any(|line| line.split(' ').next() == Some(kind.name)), "{table}");
    }
    let (_, one) = hearth(&["providers", "bedrock"]);
    let bedrock = Kind::named("bedrock").expect("a kind");
    for part in [bedrock.title, bedrock.docs, bedrock.base_url, &reference::example(bedrock)] {
        assert!(one.contains(part), "{one}");
    }
    let (_, lines) = hearth(&["providers", "--json"]);
    let rows: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), KINDS.len());
    assert_eq!(rows[0]["name"], "openai");
    assert_eq!(rows[0]["dialects"][1], "responses");
    assert_eq!(rows[0]["max_label"], "internal");
    let models = rows[0]["models"].as_array().expect("models");
    let mini = models.iter().find(|model| model["names"][0] == "gpt-4o-mini").expect("it is known");
    assert_eq!((&mini["context"], &mini["price"]["input"]), (&json!(128_000), &json!(150_000)));
    let (_, one) = hearth(&["providers", "openai"]);
    let mini = one.lines().find(|line| line.starts_with("gpt-4o-mini ")).expect("a line");
    assert!(mini.contains(" 128000 ") && mini.contains(" 0.15 "), "{mini}");
    let (_, line) = hearth(&["providers", "azure", "--json"]);
    let azure: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(azure["auth"], json!({ "scheme": "header", "header": "api-key" }));
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["base_url"], Value::Null);
    let (code, said) = hearth(&["providers", "nobody"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("`nobody`") && said.contains("openai, azure"), "{said}");
}

/// What a kind is sent and how long it may take: the same on the terminal, for programs, and on the
/// page; the times are those that providers are made with.
#[test]
fn what_a_kind_is_sent_is_told() {
    let page = page("providers.md");
    let (_, said) = hearth(&["providers", "mistral"]);
    let line = |name: &str, value: &str| {
        let is = |line: &str| {
            line.split_once("  ").is_some_and(|(own, rest)| own == name && rest.trim() == value)
        };
        assert!(said.lines().any(is), "{name}: {value}: {said}");
    };
    line("sent as", "Authorization: Bearer KEY");
    line("chat", "/chat/completions");
    line("embeddings", "/embeddings");
    line("field", "seed is random_seed");
    line("field", "user is not sent");
    let (_, said) = hearth(&["providers", "anthropic"]);
    for part in ["sent as   x-api-key: KEY", "header    anthropic-version: 2023-06-01"] {
        assert!(said.contains(part), "{said}");
    }
    let (_, said) = hearth(&["providers", "gemini"]);
    for part in ["/models/{model}:generateContent", "/models/{model}:streamGenerateContent?alt=sse"]
    {
        assert!(said.contains(part) && page.contains(&format!("`{part}`")), "{said}");
    }
    let row = "| `mistral` | `Authorization: Bearer KEY` | `/chat/completions`, `/embeddings` | - | \
               `stream_options` is not sent, `user` is not sent, ";
    assert!(page.contains(row), "{row}");
    let (_, line) = hearth(&["providers", "mistral", "--json"]);
    let mistral: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(mistral["auth"], json!({ "scheme": "bearer", "header": "authorization" }));
    assert_eq!(mistral["renames"]["seed"], "random_seed");
    assert_eq!(mistral["renames"].get("user"), Some(&Value::Null));
    assert_eq!(mistral["headers"], json!({}));
    let (_, line) = hearth(&["providers", "bedrock", "--json"]);
    let bedrock: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(bedrock["paths"], json!({ "converse": "/model/{model}/converse" }));
    assert_eq!(bedrock["stream_paths"], json!({ "converse": "/model/{model}/converse-stream" }));

    let config = ProviderConfig {
        kind: Some("compatible".to_owned()),
        base_url: Some("http://127.0.0.1:9".to_owned()),
        ..ProviderConfig::default()
    };
    let made = Provider::new("p", &config).expect("a provider");
    for (option, time) in [
        ("first_byte_timeout", made.first_byte),
        ("idle_timeout", made.idle),
        ("total_timeout", made.total),
        ("stream_timeout", made.stream),
    ] {
        let seconds = format!("{}s", time.as_secs());
        assert_eq!(mistral["times"][option], seconds, "{option}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{option}` |")));
        assert!(row.is_some_and(|row| row.ends_with(&format!("; `{seconds}` where absent |"))));
    }
    assert_eq!(mistral["times"]["connect_timeout"], "5s");
}

#[test]
fn the_command_writes_price_sheets() {
    let (code, text) = hearth(&["providers", "work=openai", "anthropic", "--prices"]);
    assert_eq!(code, Some(0), "{text}");
    let sheet: Value = serde_json::from_str(&text).expect("a sheet");
    let models = sheet["models"].as_array().expect("models");
    let price = |name: &str| models.iter().find(|price| price["model"] == name);
    let mini = json!({
        "model": "work/gpt-4o-mini", "input": 150_000, "output": 600_000, "cache_read": 75_000,
    });
    assert_eq!(price("work/gpt-4o-mini"), Some(&mini));
    assert!(price("anthropic/claude-haiku-4-5").is_some() && price("openai/gpt-4o-mini").is_none());
    let (code, all) = hearth(&["providers", "--prices"]);
    assert_eq!(code, Some(0));
    assert!(all.contains("\"openai/gpt-4o-mini\"") && all.contains("\"xai/"), "{all}");
    for (name, problem) in [
        ("vllm", "no models of the kind `vllm`"),
        ("work=nobody", "there is no kind `nobody`"),
        ("a b=openai", "`a b`: a name has"),
    ] {
        let (code, said) = hearth(&["providers", name, "--prices"]);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(problem), "{said}");
    }
}
