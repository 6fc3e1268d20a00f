//! What was lost or is to be changed: the first key, somebody's second factor, the master key. The
//! real binary, on a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use gateway::signin::master;
use govern::entity::{Entity as _, Grant, User};
use govern::governor::{Clock, EditError};
use govern::identity::session::{Sessions, totp_place};
use govern::ledger::writer::Note;
use govern::secret::Keyring;
use govern::store::documents::Edit;
use govern::{Governor, Id, Scope};
use sqlx::Executor as _;
use tokio::runtime::Runtime;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hearth-lost-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("data")).expect("a folder");
        Self(path)
    }

    /// Opens the database of a folder below.
    async fn open(&self, data: &str) -> Governor {
        let data = self.0.join(data);
        let settings = govern::Settings {
            url: data.join("hearth.db").display().to_string(),
            journal: data.join("journal"),
            gateway: "gateway-1".to_owned(),
            clock: Clock::System,
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        // The one before lets go when its last task has ended.
        for _ in 0..200 {
            if let Ok((governor, _)) = Governor::open(&settings).await {
                return governor;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Governor::open(&settings).await.expect("a governor").0
    }

    fn hearth(&self, line: &str, env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(line.split(' ')).current_dir(&self.0).env_clear().envs(env.iter().copied());
        command.env("HEARTH_GATEWAY", "gateway-1").stdin(Stdio::null());
        command.output().expect("it runs")
    }

    /// What a line prints that ends so.
    #[track_caller]
    fn says(&self, line: &str, code: i32, env: &[(&str, &str)]) -> String {
        let output = self.hearth(line, env);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
        if code == 0 { String::from_utf8(output.stdout).expect("text") } else { errors.into() }
    }
}

/// Waits until the processes before have let go of the database.
#[track_caller]
fn patiently(folder: &Folder, line: &str) -> String {
    for _ in 0..200 {
        let output = folder.hearth(line, &[]);
        if output.status.code() != Some(78) {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{line}: {errors}");
            return String::from_utf8(output.stdout).expect("text");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{line}: somebody else has it all the time");
}

async fn audit(governor: &Governor) -> String {
    governor.flush().await;
    let rows = sqlx::query_scalar::<_, String>("SELECT body FROM audit ORDER BY number");
    rows.fetch_all(governor.store().read()).await.expect("the audit").join("\n")
}

#[test]
fn a_lost_first_key_is_made_up_for() {
    let (folder, runtime) = (Folder::new("key"), Runtime::new().expect("a runtime"));
    let empty = folder.says("admin recover --data data", 64, &[]);
    assert!(empty.contains("no server has kept anything there"), "{empty}");
    let governor = runtime.block_on(folder.open("data"));
    let keys = governor.directory().keys().count();
    let refused = folder.says("admin recover --data data", 78, &[]);
    assert!(
        refused.contains("another process") && refused.contains("Stop the server"),
        "{refused}"
    );
    assert_eq!(governor.directory().keys().count(), keys);
    drop(governor);
    let shown = patiently(&folder, "admin recover --data data");
    let governor = runtime.block_on(folder.open("data"));
    let principal = governor.authenticate(Some(shown.trim()), None).expect("it is good");
    let owner = Grant { role: "owner".to_owned(), scope: Scope::Everything };
    assert_eq!(principal.grants, [owner]);
    let said = runtime.block_on(audit(&governor));
    let prefix = &principal.key.expect("a key").prefix;
    assert!(said.contains("\"recover\"") && said.contains(prefix), "{said}");
    assert!(!said.contains(shown.trim()), "the audit has the secret");
}

/// Somebody with a second factor, and a recorded text's key; what they were before they were
/// sealed.
async fn sealed(governor: &Governor, keyring: &Keyring) -> Id {
    let organisation = governor.directory().organisations().next().expect("one").id.clone();
    let id = Id::new(User::KIND, governor.now());
    let user = User {
        id: id.clone(),
        organisation,
        email: "ann@example.org".to_owned(),
        totp: Some(keyring.seal(b"twenty bytes of code", &totp_place(&id))),
        ..User::default()
    };
    let edited = governor.edit(|_, at| {
        let note = Note { at, kind: "test".to_owned(), ..Note::default() };
        Ok::<_, EditError>((vec![Edit::put(&user)], note, ()))
    });
    edited.await.expect("an edit");
    for number in 1..=1500 {
        let operation = format!("op_{number:04}");
        let text = keyring.seal(operation.as_bytes(), &format!("body-key/{operation}/1"));
        let insert = sqlx::query(
            "INSERT INTO body_keys \
             (operation, attempt, organisation, user_id, at, expires, sealed) VALUES ($1, 1, 'org', '', 1, 2, $2)",
        );
        let inserted = governor.store().write().execute(insert.bind(&operation).bind(text)).await;
        inserted.expect("a row");
    }
    id
}

/// Whether these keys open everything.
async fn opens(governor: &Governor, keyring: &Keyring, user: &Id) -> bool {
    let totp = governor.directory().user(user).and_then(|user| user.totp.clone());
    let code = keyring.open(&totp.expect("a code"), &totp_place(user));
    let rows = sqlx::query_as::<_, (String, String)>("SELECT operation, sealed FROM body_keys");
    let rows = rows.fetch_all(governor.store().read()).await.expect("rows");
    let mut texts = rows.iter().map(|(operation, sealed)| {
        let opened = keyring.open(sealed, &format!("body-key/{operation}/1"));
        opened.is_ok_and(|opened| opened.expose() == operation.as_bytes())
    });
    texts.all(|good| good)
        && code.is_ok_and(|code| code.expose().as_slice() == b"twenty bytes of code")
}

#[test]
fn a_new_master_key_seals_everything_anew() {
    let (folder, runtime) = (Folder::new("master"), Runtime::new().expect("a runtime"));
    let data = folder.0.join("data");
    let before = master::keyring(&data).expect("a key");
    let governor = runtime.block_on(folder.open("data"));
    let user = runtime.block_on(sealed(&governor, &before));
    assert!(runtime.block_on(opens(&governor, &before, &user)));
    folder.says("backup old --data data", 0, &[]);
    let refused = folder.says("admin secrets rotate --data data", 78, &[]);
    assert!(refused.contains("another process"), "{refused}");
    assert!(!data.join("master.key.next").exists(), "nothing was begun");
    drop(governor);
    // Broken off after its first step: a new key, and one text that is sealed with it.
    let begun = master::next(&data).expect("a new key");
    let said = patiently(&folder, "admin secrets rotate --data data");
    assert!(said.contains("1 secrets of one-time codes, 1500 keys"), "{said}");
    let governor = runtime.block_on(folder.open("data"));
    let now = master::keyring(&data).expect("keys");
    assert_eq!(now.current.id(), begun.keyring.current.id(), "the key that was begun with");
    assert!(!runtime.block_on(opens(&governor, &before, &user)), "the old key opens nothing");
    let alone = Keyring { current: now.current, old: Vec::new() };
    assert!(runtime.block_on(opens(&governor, &alone, &user)), "the new one alone opens all");
    let trail = runtime.block_on(audit(&governor));
    assert!(trail.contains("secrets.rotate") && trail.contains("\"texts\":1500"), "{trail}");
    drop(governor);
    // A backup of before comes back, and opens with the key that was kept.
    std::fs::create_dir_all(folder.0.join("other")).expect("a folder");
    folder.says("restore old --data other", 0, &[]);
    let governor = runtime.block_on(folder.open("other"));
    let totp = governor.directory().user(&user).and_then(|user| user.totp.clone());
    let now = master::keyring(&data).expect("keys");
    now.open(&totp.expect("a code"), &totp_place(&user)).expect("the old key is kept");
    drop(governor);
    // Again: another key, and what it seals.
    let said = patiently(&folder, "admin secrets rotate --data data");
    assert!(said.contains("1 secrets") && said.contains("1500 keys"), "{said}");
    // A key that is not at hand changes nothing.
    for entry in std::fs::read_dir(&data).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("master.key")) {
            std::fs::remove_file(path).expect("removed");
        }
    }
    let refused = loop {
        let output = folder.hearth("admin secrets rotate --data data", &[]);
        if output.status.code() != Some(78) {
            break output;
        }
    };
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{text}");
    assert!(text.contains("not at hand"), "{text}");
}

#[test]
fn a_key_that_the_file_names_is_taken_from_there() {
    let (folder, runtime) = (Folder::new("named"), Runtime::new().expect("a runtime"));
    let before = master::keyring(&folder.0.join("data")).expect("a key");
    let governor = runtime.block_on(folder.open("data"));
    let user = runtime.block_on(sealed(&governor, &before));
    drop(governor);
    std::fs::write(folder.0.join("new.key"), "07".repeat(31) + "08").expect("written");
    let signin = "origin = \"https://hearth.example.org\"\nmaster_key = \"file:new.key\"\n\
                  old_master_keys = [\"file:data/master.key\"]\n";
    std::fs::write(folder.0.join("signin.toml"), signin).expect("written");
    std::fs::write(folder.0.join("hearth.toml"), "[store]\nsignin = \"signin.toml\"\n")
        .expect("it");
    let said = patiently(&folder, "admin secrets rotate --data data");
    assert!(said.contains("1500 keys") && said.contains("old_master_keys"), "{said}");
    assert!(!folder.0.join("data/master.key.next").exists());
    let governor = runtime.block_on(folder.open("data"));
    assert!(!runtime.block_on(opens(&governor, &before, &user)));
    let new = govern::secret::Master::parse(&("07".repeat(31) + "08")).expect("a key");
    assert!(runtime.block_on(opens(&governor, &Keyring { current: new, old: Vec::new() }, &user)));
}

/// A server with passwords. Dropping it kills it.
struct Server(Child, String, String);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(folder: &Folder) -> Server {
    let signin = "origin = \"https://hearth.example.org\"\npasswords = true\n";
    std::fs::write(folder.0.join("signin.toml"), signin).expect("written");
    let line = "serve --listen 127.0.0.1:0 --threads 1 --data data --signin signin.toml";
    let child = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(line.split(' '))
        .env_clear()
        .current_dir(&folder.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut server = Server(child.expect("hearth starts"), String::new(), String::new());
    let mut lines = BufReader::new(server.0.stdout.take().expect("stdout")).lines();
    loop {
        let line = lines.next().expect("a server").expect("a line");
        if let Some(found) = line.strip_prefix("first key ") {
            found.trim().clone_into(&mut server.2);
        }
        if let Some((_, url)) = line.split_once("ready in").and_then(|_| line.split_once(": ")) {
            url.trim().clone_into(&mut server.1);
            std::thread::spawn(move || lines.for_each(drop));
            return server;
        }
    }
}

#[test]
fn a_lost_second_factor_is_taken_away() {
    let (folder, runtime) = (Folder::new("factor"), Runtime::new().expect("a runtime"));
    let keyring = master::keyring(&folder.0.join("data")).expect("a key");
    let server = serve(&folder);
    let key = server.2.clone();
    let env = [("HEARTH_URL", server.1.as_str()), ("HEARTH_ADMIN_KEY", key.as_str())];
    let running = folder.says("admin recover --data data", 78, &[]);
    assert!(running.contains("another process"), "{running}");
    folder.says("admin users create bob@example.org", 0, &env);
    let link = folder.says("admin users invite bob@example.org", 0, &env);
    assert!(link.starts_with("https://hearth.example.org/signin/link/"), "{link}");
    drop(server);
    // Somebody with a second factor and a session.
    let (user, token) = runtime.block_on(async {
        let governor = folder.open("data").await;
        let user = sealed(&governor, &keyring).await;
        let sessions = Sessions::of(governor.store());
        let token = sessions.begin(&user, "totp", governor.now()).await.expect("a session");
        (user, token)
    });
    let server = serve(&folder);
    let env = [("HEARTH_URL", server.1.as_str()), ("HEARTH_ADMIN_KEY", key.as_str())];
    let said = folder.says("admin users reset-totp ann@example.org", 0, &env);
    assert!(said.contains("ann@example.org has no second factor"), "{said}");
    let trail = folder.says("admin audit list --json", 0, &env);
    assert!(trail.contains("users.reset-totp") && !trail.contains("\"totp\""), "{trail}");
    drop(server);
    runtime.block_on(async {
        let governor = folder.open("data").await;
        assert_eq!(governor.directory().user(&user).and_then(|user| user.totp.clone()), None);
        let sessions = Sessions::of(governor.store());
        let found = sessions.find(token.expose(), governor.now()).await.expect("a store");
        assert!(found.is_none(), "the session goes on");
    });
}
