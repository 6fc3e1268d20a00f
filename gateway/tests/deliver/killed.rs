//! The process is killed while it delivers: nothing is lost, and every chain keeps its order.

use super::exports::{once, records, whole};
use super::house::{House, logged_nothing_of};
use super::receiver::{Does, Receiver};
use super::world::{Folder, until};

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_everything() {
    let folder = Folder::new();
    // Both stall: the process is killed with an alert and a batch on their way.
    let people = Receiver::new(&[Does::Stalls]);
    let collector = Receiver::new(&[Does::Stalls]);
    let file = folder.file("audit.jsonl");
    let config = format!(
        "[alerts]\nwebhook = [\"{}?key=webhook-url-secret\"]\n\
         webhook_secret = \"env:SIGNS\"\n[audit]\n\
         export = [\"http://me:collector-secret@127.0.0.1:{}/take\", \"file:{file}\"]\n",
        people.url(),
        collector.port
    );
    let env = [("SIGNS", "webhook-signing-secret")];
    let house = House::start(&folder, &config, &env);
    house.budget().await;
    house.chat().await;
    people.wait("an alert on its way", |asked| asked.len() == 1);
    collector.wait("a batch on its way", |asked| asked.len() == 1);
    house.kill();

    // Twice more, at any moment of the work.
    for requests in [3, 5] {
        let house = House::start(&folder, &config, &env);
        for _ in 0..requests {
            house.chat().await;
        }
        house.kill();
    }

    let house = House::start(&folder, &config, &env);
    house.chat().await;
    let head = house.head().await;
    collector.wait("all of the chain", |asked| {
        let took = asked.iter().filter(|asked| asked.met == Does::Answers(200));
        took.flat_map(|asked| records(&asked.body)).any(|record| record.number == head)
    });
    assert_eq!(whole(&collector.took()).len() as i64, head, "the collector");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let last = format!("\"number\":{head},");
    until("all is in the file", async || read().contains(&last)).await;
    let lines = once(records(&read()));
    govern::audit::verify(lines.iter().cloned(), &[]).expect("the file");
    assert_eq!(lines.len() as i64, head, "the file");

    let asked = people.wait("the alert, again", |asked| asked.len() >= 2);
    assert_eq!(asked[0].header("webhook-id"), asked[1].header("webhook-id"));
    assert_eq!(asked[0].body, asked[1].body);

    // A file that was rotated, and SIGHUP: the process lives and goes on.
    std::fs::rename(&file, folder.file("audit.jsonl.1")).expect("renamed");
    house.signal("-HUP");
    house.chat().await;
    until("a new file", async || !records(&read()).is_empty()).await;
    let metrics = house.ask("GET /metrics", &serde_json::Value::Null).await;
    let metrics = metrics.as_str().expect("a text");
    for name in ["hearth_audit_export_lag_records{", "hearth_alerts_waiting{"] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let secrets = ["webhook-url-secret", "webhook-signing-secret", "collector-secret"];
    for secret in secrets {
        assert!(!metrics.contains(secret), "{secret} is in the metrics");
    }
    drop(house);
    logged_nothing_of(&folder, &secrets);
}
