//! The services that tests run: they answer, come back after a stop, and leave nothing behind,
//! not even when the test is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth_tests::services::{Postgres, Redis, Stop, postgres};

/// Processes that work in a folder or below: servers, their children, and the guard.
fn processes_in(folder: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    all.filter(|entry| {
        // Of a folder that was removed the link still says the name.
        fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    })
    .map(|entry| fs::read_to_string(entry.path().join("comm")).unwrap_or_default())
    .collect()
}

fn ping(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"PING\r\n").ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    Some(answer)
}

fn refuses(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

#[test]
fn postgres_answers_and_keeps_what_was_committed() {
    let server = Postgres::start();
    server.create("shop");
    server.query("shop", "CREATE TABLE sold (what text); INSERT INTO sold VALUES ('a'), ('b')");
    for how in [Stop::Immediate, Stop::Fast] {
        server.stop(how);
        assert!(refuses(server.port()), "{how:?}");
        server.stop(how);
        server.start_again();
        assert_eq!(server.query("shop", "SELECT what FROM sold ORDER BY 1"), "a\nb");
        server.query("shop", "DELETE FROM sold WHERE what > 'b'");
    }
    assert_eq!(server.query("shop", "SHOW fsync"), "on");
    assert!(!processes_in(server.folder()).is_empty(), "the search finds what runs");
    let (folder, port) = (server.folder().to_owned(), server.port());
    drop(server);
    assert_eq!(processes_in(&folder), Vec::<String>::new());
    assert!(refuses(port) && !folder.exists());
}

#[test]
fn redis_answers_and_forgets() {
    let server = Redis::start();
    assert_eq!(ping(server.port()).as_deref(), Some("+PONG\r\n"));
    for how in [Stop::Immediate, Stop::Fast] {
        server.stop(how);
        assert!(refuses(server.port()), "{how:?}");
        server.stop(how);
        server.start_again();
        assert_eq!(ping(server.port()).as_deref(), Some("+PONG\r\n"));
    }
    // A second start fails, and does not lose the server that runs.
    assert!(catch_unwind(AssertUnwindSafe(|| server.start_again())).is_err());
    let (folder, port) = (server.folder().to_owned(), server.port());
    drop(server);
    assert_eq!(processes_in(&folder), Vec::<String>::new());
    assert!(refuses(port) && !folder.exists());
}

#[test]
fn a_stopped_service_is_cleared_away_too() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let folders = [postgres.folder().to_owned(), redis.folder().to_owned()];
    postgres.stop(Stop::Fast);
    redis.stop(Stop::Fast);
    drop((postgres, redis));
    for folder in folders {
        assert_eq!(processes_in(&folder), Vec::<String>::new());
        assert!(!folder.exists());
    }
}

#[test]
fn tests_that_share_a_server_do_not_meet() {
    let urls: Vec<String> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| postgres::shared().fresh())).collect();
        makers.into_iter().map(|maker| maker.join().expect("a database")).collect()
    });
    for url in &urls {
        let (_, database) = url.rsplit_once('/').expect("a URL");
        assert_eq!(postgres::shared().url(database), *url);
        // It would fail where another had made it.
        postgres::shared().query(database, "CREATE TABLE mine ()");
    }
}

/// Starts both, says where, and waits for its own end.
#[test]
#[ignore = "a process of its own for the next test"]
fn process_to_be_killed() {
    let (postgres, redis) = (postgres::shared(), Redis::start());
    println!("\nfolder {}", postgres.folder().display());
    println!("folder {}", redis.folder().display());
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn nothing_outlives_a_test_that_is_killed() {
    let mut test = Command::new(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", "process_to_be_killed", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(test.stdout.take().expect("its output")).lines();
    let folders: Vec<PathBuf> = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("folder ").map(PathBuf::from))
        .take(2)
        .collect();
    let [postgres, redis] = &folders[..] else { panic!("it says two folders: {folders:?}") };
    // The guard, the server and, for PostgreSQL, the server's own processes.
    assert!(processes_in(postgres).len() > 3 && processes_in(redis).len() == 2);
    // SIGKILL: nothing of the test runs after this.
    test.kill().expect("it is killed");
    test.wait().expect("it ends");
    let until = Instant::now() + Duration::from_secs(60);
    for folder in &folders {
        while folder.exists() || !processes_in(folder).is_empty() {
            assert!(Instant::now() < until, "left behind: {:?}", processes_in(folder));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
