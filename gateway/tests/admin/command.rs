//! `hearth admin` through the real binary, against the real routes.

use std::process::{Command, Output, Stdio};

use crate::world::World;

/// A server of a world.
struct Shop {
    world: World,
    url: String,
}

impl Shop {
    async fn open(name: &str) -> Self {
        let world = World::new(name).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = world.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { world, url }
    }

    /// Runs a line; words with spaces are written with underscores.
    async fn hearth(&self, line: &str, key: &str) -> Output {
        let words: Vec<String> = line.split(' ').map(|word| word.replace('_', " ")).collect();
        let (url, key) = (self.url.clone(), key.to_owned());
        let run = move || {
            Command::new(env!("CARGO_BIN_EXE_hearth"))
                .arg("admin")
                .args(words)
                .env_clear()
                .env("HEARTH_URL", url)
                .env("HEARTH_ADMIN_KEY", key)
                .stdin(Stdio::null())
                .output()
                .expect("the binary runs")
        };
        tokio::task::spawn_blocking(run).await.expect("a thread")
    }

    /// What a line prints when it ends well.
    #[track_caller]
    fn says<'a>(&'a self, line: &'a str) -> impl Future<Output = String> + 'a {
        let here = std::panic::Location::caller();
        async move {
            let output = self.hearth(line, &self.world.root).await;
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{here}: {line}: {errors}");
            String::from_utf8(output.stdout).expect("text")
        }
    }

    /// The exit code and the message of a line that fails.
    async fn fails(&self, line: &str, key: &str) -> (i32, String) {
        let output = self.hearth(line, key).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!key.is_empty() && !text.contains(key), "{text}");
        (output.status.code().unwrap_or_default(), text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_key_to_the_line_that_proves_it() {
    let shop = Shop::open("command").await;
    let sheet = std::env::temp_dir().join(format!("hearth-sheet-{}.json", std::process::id()));
    let models = r#"[{"model": "*", "input": 1000000, "output": 2000000}]"#;
    std::fs::write(&sheet, format!(r#"{{"name": "autumn", "models": {models}}}"#)).expect("a file");
    shop.says(&format!("prices set {}", sheet.display())).await;
    std::fs::remove_file(&sheet).expect("it is there");
    let prices = shop.says("prices list").await;
    assert!(prices.contains("INPUT ($/M tokens)") && prices.contains("$2.00"), "{prices}");

    let missing = "keys create --team research --project bots --label ci";
    let (code, text) = shop.fails(missing, &shop.world.root).await;
    assert_eq!(code, 64);
    assert!(text.contains("no team 'research'") && text.contains("--create"), "{text}");
    let key = shop.says(&format!("{missing} --create")).await;
    let key = key.trim();
    assert!(key.starts_with("hk-"), "{key}");
    // What is there is used and not made again.
    let again = shop.says("keys create --team research --project bots --label cd --create").await;
    assert_ne!(again.trim(), key);
    let teams = shop.says("teams list").await;
    assert_eq!(teams.matches("research").count(), 1, "{teams}");
    let keys = shop.says("keys list --team research").await;
    assert!(
        keys.lines().count() == 3 && keys.contains(&key[..15]) && !keys.contains(key),
        "{keys}"
    );

    shop.says("budgets create --name research --team research --month 5 --day 0.50 --alert 80")
        .await;
    shop.world.spend(key, 1_000);
    shop.world.governor.flush().await;
    let budgets = shop.says("budgets list").await;
    assert!(budgets.contains("ALLOWED ($)") && budgets.contains("$4.999"), "{budgets}");
    let unclear = "budgets raise research --by 2.50 --until 2099-01-01 --reason a_demo";
    let (code, text) = shop.fails(unclear, &shop.world.root).await;
    assert!(code == 64 && text.contains("--limit"), "{text}");
    let raised = shop.says(&format!("{unclear} --limit month")).await;
    assert!(raised.contains("$7.50"), "{raised}");

    let usage = shop.says("usage --by team,model --from 2026-11-01 --to 2026-11-02").await;
    let row = usage.lines().nth(1).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, ["research", "small", "1", "1000", "0", "0", "$0.001"], "{usage}");
    let csv = shop.says("usage --by team --csv").await;
    assert!(csv.starts_with("team,requests,"), "{csv}");
    let explained = shop.says("explain --of-key ci --model small --input-tokens 9000000").await;
    assert!(explained.starts_with("would be refused: key ci"), "{explained}");

    let rotated = shop.says("keys rotate ci --overlap 60").await;
    assert!(rotated.starts_with("hk-") && rotated.trim() != key);
    let (code, text) = shop.fails("keys revoke ci", &shop.world.root).await;
    assert!(code == 64 && text.contains("several keys are called 'ci'"), "{text}");
    let revoked = shop.says(&format!("keys revoke {} --reason it_leaked", &key[..15])).await;
    assert!(revoked.contains("was revoked"), "{revoked}");
    let records = shop.says("audit list --kind admin").await;
    assert!(
        records.contains("keys.revoke") && records.contains(&shop.world.root[..15]),
        "{records}"
    );
    let verified = shop.says("audit verify").await;
    assert!(verified.contains("all whole and in order\nanchor gateway-1:"), "{verified}");
    let lines = shop.says("audit export --kind admin").await;
    assert!(lines.lines().count() > 5 && lines.lines().all(|line| line.starts_with('{')));
    let list: serde_json::Value =
        serde_json::from_str(&shop.says("--json keys list").await).expect("JSON");
    assert_eq!(list["data"].as_array().map(Vec::len), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_to_do() {
    let shop = Shop::open("errors").await;
    let root = shop.world.root.clone();
    let key = shop.says("keys create --team red --project bots --label ci --create").await;
    for (line, shown, code, told) in [
        ("teams list", "hk-not-a-key", 69, "HEARTH_ADMIN_KEY"),
        ("teams list", key.trim(), 69, "tree.read"),
        ("keys revoke nobody", root.as_str(), 64, "keys list"),
        ("keys create --label x --grant owner", root.as_str(), 64, "ROLE@SCOPE"),
        ("budgets create --name b --team red --day -1", root.as_str(), 64, ""),
        ("budgets create --name b --team red --day much", root.as_str(), 64, "limits[0].usd"),
        ("teams delete red", root.as_str(), 64, "project 'bots'"),
        ("usage --by colour", root.as_str(), 64, "colour"),
        ("--url http://127.0.0.1:9 teams list", root.as_str(), 69, "hearth serve"),
        ("--url nowhere teams list", root.as_str(), 64, "--url"),
        ("prices set /nowhere.json", root.as_str(), 64, "/nowhere.json"),
    ] {
        let (found, text) = shop.fails(line, shown).await;
        assert_eq!(found, code, "{line}: {text}");
        assert!(text.contains(told), "{line}: {text}");
    }
    let nobody = shop.hearth("teams list", "").await;
    assert_eq!(nobody.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("HEARTH_ADMIN_KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_tried_and_texts_erased() {
    let shop = Shop::open("try").await;
    let master = govern::secret::Master::generate();
    let current = govern::secret::Master::parse(master.expose()).expect("a key");
    let keyring = govern::secret::Keyring { current, old: Vec::new() };
    shop.world.governor.record_with(std::sync::Arc::new(keyring));
    let file = std::env::temp_dir().join(format!("hearth-change-{}.json", std::process::id()));
    let price = r#"{"kind": "price", "body": {"models": []}}"#;
    std::fs::write(&file, price).expect("a file");
    let line = format!("policy dry-run --file {} --from 2026-11-01", file.display());
    let said = shop.says(&line).await;
    assert!(said.contains("0 requests: 0 would have been refused"), "{said}");
    assert!(said.contains("not judged: tools"), "{said}");
    std::fs::remove_file(&file).expect("it is there");
    let (code, text) = shop.fails("policy dry-run --from yesterday", &shop.world.root).await;
    assert_eq!(code, 64, "{text}");
    assert!(shop.says("bodies list").await.contains("nothing is recorded"));
    assert_eq!(shop.says("bodies erase --before 2026-11-01").await, "0 erased\n");
    let (code, text) = shop.fails("bodies erase", &shop.world.root).await;
    assert_eq!(code, 64);
    assert!(text.contains("'user' or 'before'"), "{text}");
    let (code, text) = shop.fails("bodies show op_0", &shop.world.root).await;
    assert_eq!(code, 64, "{text}");
}
