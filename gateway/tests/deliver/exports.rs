//! The audit goes to files and collectors: every record, in order, whatever fails on the way.

use std::time::Duration;

use govern::audit::{Record, verify};

use super::receiver::{Asked, Does, Receiver};
use super::world::{Folder, World, sinks, until};

/// Records of JSON lines.
pub(crate) fn records(lines: &str) -> Vec<Record> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    lines.lines().map(read).collect()
}

/// Records without those that came twice. What comes again follows what came before it.
pub(crate) fn once(all: Vec<Record>) -> Vec<Record> {
    let mut out: Vec<Record> = Vec::new();
    for record in all {
        let known = out.iter().find(|known| known.number == record.number);
        match known {
            Some(known) => assert_eq!(*known, record),
            None => out.push(record),
        }
    }
    out
}

/// All that a collector took, as one chain that is whole from its first record on.
#[track_caller]
pub(crate) fn whole(asked: &[Asked]) -> Vec<Record> {
    let all: Vec<Record> = asked.iter().flat_map(|asked| records(&asked.body)).collect();
    let all = once(all);
    if let Err(broken) = verify(all.iter().cloned(), &[]) {
        panic!("{broken}");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_every_record_in_order() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    world.note(1200).await;
    let elsewhere = Receiver::new(&[]);
    let receiver = Receiver::new(&[
        Does::Answers(200),
        Does::Answers(500),
        Does::Resets,
        Does::Redirects(elsewhere.port),
        Does::Answers(413),
        Does::Answers(413),
        Does::Answers(200),
    ]);
    let place = receiver.url().replace("http://", "http://:collector-token@");
    let deliver = world.deliver(sinks(&[&place]));
    let head = world.head().await;
    let all = |asked: &[Asked]| {
        let took = asked.iter().filter(|asked| asked.met == Does::Answers(200));
        took.map(|asked| asked.body.lines().count()).sum::<usize>() as i64
    };
    receiver.wait("all is there", |asked| all(asked) >= head);
    let took = receiver.took();
    assert_eq!(whole(&took).len() as i64, head);
    assert_eq!(all(&took), head, "nothing twice where every failure was one");
    assert!(elsewhere.asked().is_empty(), "a redirect was followed");
    for asked in receiver.asked() {
        assert_eq!(asked.header("authorization"), "Bearer collector-token");
        assert_eq!(asked.header("content-type"), "application/x-ndjson");
    }
    let sizes: Vec<usize> =
        receiver.asked().iter().map(|asked| asked.body.lines().count()).collect();
    assert_eq!(sizes[..7], [500, 500, 500, 500, 500, 250, 125], "smaller where it was too large");
    until("no lag", async || world.metric("hearth_audit_export_lag_records") == 0).await;
    assert_eq!(world.metric("hearth_audit_export_records_total"), head);
    assert_eq!(world.metric("hearth_delivery_failures_total"), 5);

    // The next process goes on where this one was.
    deliver.finish(Duration::from_secs(5)).await;
    world.note(3).await;
    drop(world);
    let world = World::new(&folder).await;
    let _deliver = world.deliver(sinks(&[&place]));
    receiver.wait("three more", |asked| all(asked) >= head + 3);
    assert_eq!(all(&receiver.took()), head + 3);
    whole(&receiver.took());
}

/// While a place is away nothing piles up in memory, and the lag is seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_waits_in_the_database() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    let receiver = Receiver::new(&[Does::Answers(503); 4]);
    let _deliver = world.deliver(sinks(&[&receiver.url()]));
    world.note(10).await;
    let head = world.head().await;
    until("the lag", async || world.metric("hearth_audit_export_lag_records") == head).await;
    receiver.wait("taken at last", |asked| asked.iter().any(|a| a.met == Does::Answers(200)));
    until("no lag", async || world.metric("hearth_audit_export_lag_records") == 0).await;
    whole(&receiver.took());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_rotated_under_us() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    let path = folder.file("audit.jsonl");
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let _deliver = world.deliver(sinks(&[&format!("file:{path}")]));
    world.note(5).await;
    let first = world.head().await as usize;
    until("the first", async || read(&path).lines().count() == first).await;
    let moved = folder.file("audit.jsonl.1");
    std::fs::rename(&path, &moved).expect("renamed");
    world.note(7).await;
    until("the second", async || read(&path).lines().count() == 7).await;
    // A process that was killed may leave half a line.
    std::fs::remove_file(&path).expect("removed");
    let half = &read(&moved)[..70];
    std::fs::write(&path, half).expect("written");
    world.note(2).await;
    until("the third", async || read(&path).lines().count() == 2).await;
    let third = read(&path);
    let all = records(&format!("{}{third}", read(&moved)));
    assert_eq!(all.len(), first + 2);
    assert_eq!(all[first].number, first as i64 + 8);
}

/// What goes out is verified: whoever altered the database is told of.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_is_exported_and_told() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    world.note(9).await;
    let sql = "UPDATE audit SET body = '{}' WHERE number = 4";
    sqlx::query(sql).execute(world.governor.store().write()).await.expect("altered");
    sqlx::query("DELETE FROM audit WHERE number = 6")
        .execute(world.governor.store().write())
        .await
        .expect("dropped");
    let receiver = Receiver::new(&[]);
    let collector = Receiver::new(&[]);
    let settings = gateway::deliver::settings::Settings {
        webhooks: vec![super::world::webhook(&receiver.url(), None)],
        ..sinks(&[&collector.url()])
    };
    let _deliver = world.deliver(settings);
    let asked = receiver.wait("told of both", |asked| asked.len() == 2);
    let mut told: Vec<String> = asked
        .iter()
        .map(|asked| {
            let body: serde_json::Value = serde_json::from_str(&asked.body).expect("JSON");
            format!("{} {} {}", body["kind"], body["audit"]["number"], body["audit"]["why"])
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "\"audit_broken\" 4 \"its fields do not belong to its hash\"",
            "\"audit_broken\" 6 \"it should stand here, and number 7 does\"",
        ]
    );
    let head = world.head().await;
    collector.wait("the rest", |asked| {
        asked.iter().flat_map(|asked| records(&asked.body)).any(|record| record.number == head)
    });
}
