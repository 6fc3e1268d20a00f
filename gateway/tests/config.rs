//! The configuration as an operator meets it: through the real binary, its messages and its exit
//! codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::{Args as _, FromArgMatches as _};
use gateway::config::{Config, Flags, reference};
use gateway::route::Routes;
use hearth_tests::dice::Dice;

/// A fresh directory per test; left behind only when the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn hearth(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.args(args).current_dir(folder).env_clear().envs(env.iter().copied());
    command.output().unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_line() {
    let folder = Folder::new("file");
    for (text, parts) in [
        ("\n[server]\nlisten = \"here\"\n", ["hearth.toml:3", "`here` is not an address"]),
        ("[server]\nlissten = \"[::1]:1\"\n", ["hearth.toml:2", "did you mean server.listen?"]),
        ("models = [\"demo\"]\n\n[engine]\nlisten = \"x\"", ["hearth.toml:4", "server.listen"]),
        ("[engine]\nrows_max = 0\n", ["hearth.toml:2", "between 1 and 4096"]),
        ("[engine]\nrows_max = [1]\n", ["hearth.toml:2", "takes one text or number"]),
        ("[server]\ndrain = 30\n", ["hearth.toml:2", "with its unit"]),
        ("server = 1\n", ["hearth.toml:1", "write [server]"]),
        ("[server\n", ["hearth.toml:1", ""]),
        ("[log]\nformat = \"xml\"\n", ["hearth.toml:2", "text, json"]),
        ("models = []\n", ["hearth.toml:1", "at least one model"]),
        ("models = [\"demo\", \"demo\"]\n", ["model demo", "--model SOURCE=NAME"]),
    ] {
        folder.file("hearth.toml", text);
        refused(&hearth(&folder.0, &["plan"], &[]), 64, &parts);
    }
}

#[test]
fn wrong_flags_and_variables_are_refused_by_name() {
    let folder = Folder::new("flags");
    for (args, env, parts) in [
        (&["serve", "--lissten", "x"][..], ("A", ""), ["--lissten", "--listen"]),
        (&["serve", "--rows-max", "many"], ("A", ""), ["--rows-max", "`many`"]),
        (&["serve", "--config", "no.toml"], ("A", ""), ["no.toml", "no such file"]),
        (&["serve"], ("HEARTH_DEVICE", "tpu"), ["HEARTH_DEVICE", "`tpu`"]),
        (&["serve"], ("HEARTH_API_KEY", "short"), ["HEARTH_API_KEY", "8 characters"]),
        (&["serve", "--listen", "0.0.0.0:1"], ("A", ""), ["0.0.0.0:1", "HEARTH_API_KEY"]),
        (&["serve", "-m", "no/such/model"], ("A", ""), ["--model", "hearth pull"]),
        (&["serve", "--adapter", "dmo:x=."], ("A", ""), ["adapter dmo:x", "there is: [demo]"]),
        (&["node", "--adapter", "dmo:x=."], ("A", ""), ["adapter dmo:x", "there is: [demo]"]),
        (&["serve", "--fsync", "sometimes"], ("A", ""), ["--fsync", "always, everysec"]),
        (&["serve", "--fsync", "everysec"], ("A", ""), ["store.fsync", "store.data is missing"]),
        (&["serve"], ("HEARTH_STORE_URL", "postgres://x"), ["store.url", "store.data"]),
        (&["frobnicate"], ("A", ""), ["frobnicate", "--help"]),
    ] {
        refused(&hearth(&folder.0, args, &[env]), 64, &parts);
    }
}

#[test]
fn other_failures_have_their_own_codes() {
    let folder = Folder::new("codes");
    let junk = folder.file("junk.gguf", "not a model");
    let junk = junk.to_str().unwrap();
    refused(&hearth(&folder.0, &["plan", junk], &[]), 65, &["junk.gguf"]);
    refused(&hearth(&folder.0, &["plan", "--device", "cuda:0"], &[]), 69, &["--device cpu"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&hearth(&folder.0, &["serve", "--listen", &address], &[]), 78, &["--listen"]);
    drop(taken);
    let url = format!("http://{address}");
    let chat = hearth(&folder.0, &["chat", "--url", &url], &[]);
    refused(&chat, 69, &["hearth serve"]);
    let too_big = &["plan", "--cache-memory", "30TiB"];
    refused(&hearth(&folder.0, too_big, &[]), 78, &["--cache-memory"]);
}

#[test]
fn later_layers_win_and_secrets_do_not_print() {
    let folder = Folder::new("layers");
    let file = folder.file(
        "hearth.toml",
        "[server]\nlisten = \"127.0.0.1:1\"\napi_keys = [\"from-the-file\"]\n\
         [engine]\nrows_max = 3\nthreads = \"auto\"\n",
    );
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let matches =
        command.get_matches_from(["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:3"]);
    let flags = Flags::from_arg_matches(&matches).unwrap();
    let env = [("HEARTH_LISTEN", "127.0.0.1:2"), ("HEARTH_DRAIN", "5s"), ("HEARTH_LISTN", "x")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = Config::load(&flags, env.into_iter()).unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen.port(), 3, "the flag wins");
    assert_eq!(config.drain.as_secs(), 5, "the variable wins over the default");
    assert_eq!(config.rows_max, Some(3), "the file wins over the default");
    assert_eq!(loaded.warnings, ["HEARTH_LISTN is not used; did you mean HEARTH_LISTEN?"]);
    assert_eq!(config.api_keys[0].reveal(), "from-the-file");
    assert!(!format!("{config:?}").contains("from-the-file"));
}

/// In any layer; checked as any other value; and no message shows what was found.
#[test]
fn values_may_stand_elsewhere() {
    let folder = Folder::new("elsewhere");
    let secret = "the-secret-itself";
    let keys = folder.file("key", &format!("{secret}\n"));
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&keys, mode(0o600)).unwrap();
    let keys = keys.to_str().unwrap();
    let file = folder.file(
        "hearth.toml",
        &format!("[server]\napi_keys = [\"file:{keys}\", \"env:OTHER\"]\ndrain = \"env:DRAIN\"\n"),
    );
    let load = |args: &[&str], env: &[(&str, &str)]| {
        let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
        let args = [&["--config", file.to_str().unwrap()], args].concat();
        let flags = Flags::from_arg_matches(&command.get_matches_from(args)).unwrap();
        let env = env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Config::load(&flags, env).map_err(|error| error.to_string())
    };
    let good = [("OTHER", "another-secret"), ("DRAIN", "7s"), ("ROWS", "9"), ("PORT", "[::1]:5")];
    let variable = [("HEARTH_ROWS_MAX", "env:ROWS")];
    let all = [&good[..], &variable].concat();
    let loaded = load(&["--listen", "env:PORT"], &all).unwrap();
    let config = &loaded.config;
    let keys_found: Vec<_> = config.api_keys.iter().map(gateway::config::Secret::reveal).collect();
    assert_eq!(keys_found, [secret, "another-secret"]);
    assert_eq!((config.drain.as_secs(), config.rows_max), (7, Some(9)));
    assert_eq!(config.listen.to_string(), "[::1]:5");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    std::fs::set_permissions(keys, mode(0o644)).unwrap();
    let loaded = load(&[], &good).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    for part in ["server.api_keys", keys, "open to every user"] {
        assert!(loaded.warnings[0].contains(part), "{:?}", loaded.warnings);
    }
    a_providers_key_is_warned_of(&folder, keys);

    let with = |name: &'static str, text: &'static str| {
        good.iter().map(|(n, t)| if *n == name { (*n, text) } else { (*n, *t) }).collect::<Vec<_>>()
    };
    let bad = "/bad-secret\u{7f}";
    for (args, env, parts) in [
        (&[][..], with("DRAIN", bad), &["hearth.toml:3", "server.drain", "env:DRAIN"][..]),
        (&[], with("OTHER", bad), &["hearth.toml:2", "server.api_keys", "env:OTHER"]),
        (&[], with("OTHER", ""), &["env:OTHER is empty"]),
        (&["--listen", "env:PORT"], with("PORT", bad), &["--listen", "env:PORT"]),
        (&["--model", "env:PORT"], with("PORT", bad), &["--model", "env:PORT"]),
        (&["--listen", "env:NOT_THERE"], good.to_vec(), &["--listen", "env:NOT_THERE is not set"]),
        (&["--listen", "file:/no/such"], good.to_vec(), &["--listen", "file:/no/such"]),
        (&["--listen", "env:a b"], good.to_vec(), &["--listen", "env:NAME"]),
    ] {
        let refused = load(args, &env).unwrap_err();
        for part in parts {
            assert!(refused.contains(part), "{refused}, not {part}");
        }
        assert!(!refused.contains("bad-secret") && !refused.contains("a b"), "{refused}");
    }
}

/// As any other key that lies where everybody reads it.
fn a_providers_key_is_warned_of(folder: &Folder, keys: &str) {
    let of = |value: &str| {
        let text = format!("[providers.openai]\nkey = \"{value}\"\n");
        let file = folder.file("provider.toml", &text);
        let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
        let args = ["--config", file.to_str().unwrap(), "--model", "demo"];
        let flags = Flags::from_arg_matches(&command.get_matches_from(args)).unwrap();
        let loaded = Config::load(&flags, std::iter::empty()).unwrap();
        let key = loaded.config.routing.providers["openai"].key.as_ref().unwrap();
        (key.reveal().to_owned(), loaded.warnings)
    };
    let (key, warnings) = of(&format!("file:{keys}"));
    assert_eq!((key.as_str(), warnings.len()), ("the-secret-itself", 1));
    for part in ["providers.openai", keys, "open to every user"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    assert_eq!(of("sk-itself"), ("sk-itself".to_owned(), Vec::new()));
}

#[test]
fn generated_pages_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (path, wanted) in
        [("docs/config.md", reference::page()), ("deploy/hearth.toml", reference::file())]
    {
        let path = root.join(path);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let path = path.display();
        assert_eq!(found, wanted, "{path} is out of date: BLESS=1 cargo test -p gateway");
    }
}

#[test]
fn the_reference_file_sets_the_defaults() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let file = root.join("deploy/hearth.toml");
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let matches = command.get_matches_from(["--config", file.to_str().unwrap()]);
    let flags = Flags::from_arg_matches(&matches).unwrap();
    let loaded = Config::load(&flags, std::iter::empty()).unwrap();
    assert_eq!(loaded.config, Config::defaults());
}

#[test]
fn completions_name_every_command() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let output = hearth(&folder.0, &["completions", shell], &[]);
        let script = String::from_utf8(output.stdout).unwrap();
        for command in
            ["serve", "chat", "backup", "restore", "migrate", "pull", "plan", "bench", "doctor"]
        {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn the_disk_of_the_books_is_looked_at() {
    let folder = Folder::new("doctor");
    let file = folder.file("file", "no folder");
    let below = [folder.0.join("data"), file.join("data")];
    let [there, nowhere] = below.map(|path| {
        let args = ["doctor", "--listen", "127.0.0.1:0", "--data", path.to_str().unwrap()];
        String::from_utf8(hearth(&folder.0, &args, &[]).stdout).unwrap()
    });
    let line = there.lines().find(|line| line.contains(" disk ")).expect("a line");
    assert!(line.contains("flushed in ") && line.contains(" free"), "{line}");
    assert!(nowhere.contains("BAD   disk"), "{nowhere}");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn plan_speaks_json() {
    let folder = Folder::new("plan");
    let output = hearth(&folder.0, &["plan", "demo", "--json", "--context", "256"], &[]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((plan["model"].as_str(), plan["context"].as_u64()), (Some("demo"), Some(256)));
    assert!(plan["total_bytes"].as_u64().unwrap() > 0);
}

/// A configuration as an editor, a template or a disk may leave it: it is read, or refused in words
/// that name a place.
#[test]
fn whatever_stands_in_a_file_is_read_or_refused() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    let full = read("deploy/hearth.toml");
    let set: Vec<&str> =
        full.lines().filter(|line| line.contains(" = ") || line.starts_with('[')).collect();
    let mut texts = vec![full.clone(), set.join("\n")];
    for page in ["docs/routing.md", "docs/caching.md", "docs/providers.md", "docs/signin.md"] {
        let page = read(page);
        texts.extend(
            page.split("```toml\n")
                .skip(1)
                .map(|part| part.split("```").next().unwrap().to_owned()),
        );
    }
    let folder = Folder::new("damaged");
    let mut dice = Dice(0x5eed);
    let (mut whole, mut refused) = (0, 0);
    for at in 0..1_500 {
        let damaged = dice.damage(texts[at % texts.len()].as_bytes());
        let path = folder.0.join("hearth.toml");
        std::fs::write(&path, &damaged).unwrap();
        match Config::load(&Flags::of_file(Some(path)), std::iter::empty()) {
            Ok(loaded) => {
                whole += 1;
                // What is routed where is checked when the models are known.
                let _ = Routes::new(&loaded.config.routing, &["demo".to_owned()]);
            }
            Err(error) => {
                refused += 1;
                assert!(!error.at.is_empty() && !error.problem.is_empty(), "{error}");
            }
        }
    }
    assert!(whole > 150 && refused > 150, "{whole} read, {refused} refused");
}
