//! `hearth backup`, `hearth restore` and `hearth migrate` as an operator meets them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use govern::Governor;
use govern::governor::Clock;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hearth-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A governor in a folder below, after its first start.
    fn governor(&self, runtime: &tokio::runtime::Runtime) -> Governor {
        std::fs::create_dir_all(self.0.join("data")).expect("a folder");
        let settings = govern::Settings {
            url: self.file("data/hearth.db"),
            journal: self.file("data/journal").into(),
            gateway: "gateway-1".to_owned(),
            clock: Clock::System,
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        let (governor, first) = runtime.block_on(Governor::open(&settings)).expect("a governor");
        assert!(first.is_some());
        governor
    }

    fn hearth(&self, args: &[&str], env: &[(&str, &str)], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(args).current_dir(&self.0).env_clear().envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        // One that refuses what it is given may not read it.
        let _ = child.stdin.take().expect("its input").write_all(input);
        child.wait_with_output().expect("it ends")
    }

    #[track_caller]
    fn check(&self, args: &[&str], code: i32, parts: &[&str]) -> Output {
        let output = self.hearth(args, &[], b"");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{args:?}: `{part}` is missing in: {said}");
        }
        output
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn there_and_back() {
    let folder = Folder::new("back");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let governor = folder.governor(&runtime);
    folder.check(&["backup", "all", "--data", "data"], 0, &["documents 4", "audit 1", " s: "]);
    let mode = std::fs::metadata(folder.0.join("all")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // In place of one that is there, and to standard output: the same rows.
    folder.check(&["backup", "all", "--store-url", "data/hearth.db"], 0, &["documents 4"]);
    let output = folder.check(&["backup", "-", "--data", "data"], 0, &["backed up"]);
    let lines = |text: &[u8]| String::from_utf8_lossy(text).lines().count();
    let file = std::fs::read(folder.0.join("all")).expect("a file");
    assert_eq!(lines(&output.stdout), lines(&file));
    let left = std::fs::read_dir(&folder.0).expect("a folder").count();
    assert_eq!(left, 2, "the data and one file");

    // The server runs: from it, yes; into it, no.
    folder.check(&["restore", "all", "--data", "data", "--replace"], 78, &["stop it first"]);
    folder.check(&["migrate", "data/hearth.db", "moved.db"], 78, &["stop it first"]);
    drop(governor);
    // Waits for its writer.
    drop(runtime);
    folder.check(&["restore", "all", "--data", "data"], 64, &["documents", "--replace"]);
    folder.check(&["restore", "all", "--data", "data", "--replace"], 0, &["restored"]);
    folder.check(&["restore", "all", "--data", "new/data"], 0, &["restored", "documents 4"]);
    let mode = std::fs::metadata(folder.0.join("new/data")).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let restored = folder.hearth(&["restore", "-", "--store-url", "piped.db"], &[], &file);
    assert!(restored.status.success(), "{restored:?}");

    // The address, with a password perhaps, is in a file.
    std::fs::write(folder.0.join("url"), "elsewhere.db\n").expect("a file");
    folder.check(&["migrate", "data/hearth.db", "file:url"], 0, &["copied", "documents 4"]);
    folder.check(&["migrate", "elsewhere.db", "moved.db"], 0, &["copied", "documents 4"]);
    let by_env = folder.hearth(&["backup", "b"], &[("HEARTH_DATA", "data")], b"");
    assert!(by_env.status.success(), "{by_env:?}");
}

#[test]
fn what_cannot_be_is_refused_with_its_code() {
    let folder = Folder::new("codes");
    std::fs::write(folder.0.join("junk"), "junk\n").expect("a file");
    folder.check(&["backup", "b"], 64, &["--data"]);
    folder.check(&["backup", "b", "--data", "none"], 64, &["no database none/hearth.db"]);
    folder.check(&["backup", "b", "--data", "d", "--store-url", "u"], 64, &["--store-url"]);
    folder.check(&["backup", "b", "--store-url", "mysql://a:b@c/d"], 64, &["`mysql://...`"]);
    folder.check(&["backup", "b", "--store-url", "env:NONE"], 64, &["env:NONE is not set"]);
    let closed = "postgres://u:password@127.0.0.1:1/d";
    let output = folder.check(&["backup", "b", "--store-url", closed], 69, &["the database"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("password"));
    assert!(!folder.0.join("b").exists(), "half a backup is none");
    folder.check(&["restore", "none", "--data", "d"], 64, &["none"]);
    folder.check(&["restore", "junk", "--data", "d"], 65, &["not a backup"]);
    folder.check(&["migrate", "none.db", "to.db"], 64, &["no database none.db"]);
    let left: Vec<_> = std::fs::read_dir(&folder.0).expect("a folder").flatten().collect();
    assert!(left.iter().all(|file| !file.path().display().to_string().ends_with(".part")));
    folder.check(&["backup", "no/folder/b", "--data", "d"], 73, &["no/folder/b"]);
}
