//! The tables of kinds and models as people read them: on the terminal, and on the pages, which
//! cannot be wrong.

use std::path::Path;
use std::process::Command;

use gateway::config::routing::{
    OverflowConfig, OverflowWhen, PoolConfig, ProviderConfig, Routing, RuleConfig, TargetTable,
};
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
        // A service account takes a key of its own; this way none is needed.
        None if line.starts_with("key = \"file:") => "key = \"metadata\"\n".to_owned(),
        None => format!("{line}\n"),
    });
    lines.collect()
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
    let page = page("routing.md");
    let blocks = blocks(&page);
    assert!(blocks.len() >= 3, "docs/routing.md has examples");
    let all = with_keys(&blocks.concat());
    let routing: Routing = toml::from_str(&all).expect("docs/routing.md");
    let refused = Routes::new(&routing, &["demo".to_owned()]).err();
    assert_eq!(refused, None, "docs/routing.md");
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
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["base_url"], Value::Null);
    let (code, said) = hearth(&["providers", "nobody"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("`nobody`") && said.contains("openai, azure"), "{said}");
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
