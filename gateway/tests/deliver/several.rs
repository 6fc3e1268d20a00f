//! Several gateways on one database: each exports its own chain, and what one that is gone has
//! left.

use hearth_tests::services::postgres;

use super::exports::{once, records};
use super::receiver::{Asked, Receiver};
use super::world::{Folder, World, sinks};

fn of(asked: &[Asked], chain: &str) -> Vec<govern::audit::Record> {
    let all = asked.iter().flat_map(|asked| records(&asked.body));
    once(all.filter(|record| record.chain == chain).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_exports_its_own_chain_and_what_others_left() {
    let folder = Folder::new();
    let url = postgres::shared().fresh();
    let one = World::open(&folder, &url, "one").await;
    let two = World::open(&folder, &url, "two").await;
    let receiver = Receiver::new(&[]);
    let place = receiver.url();
    let (first, second) = (one.deliver(sinks(&[&place])), two.deliver(sinks(&[&place])));
    one.note(30).await;
    two.note(40).await;
    let heads = [one.head().await, two.head().await];
    let both = |asked: &[Asked]| [of(asked, "one").len() as i64, of(asked, "two").len() as i64];
    receiver.wait("both chains", |asked| both(asked) == heads);
    // Nobody sent what was the other's.
    for asked in receiver.asked() {
        let chains: std::collections::BTreeSet<String> =
            records(&asked.body).into_iter().map(|record| record.chain).collect();
        assert_eq!(chains.len(), 1, "{chains:?}");
    }
    let lines: usize = receiver.asked().iter().map(|asked| asked.body.lines().count()).sum();
    assert_eq!(lines as i64, heads[0] + heads[1], "and nothing twice");

    // The second one dies before it has exported what it wrote.
    drop(second);
    two.note(7).await;
    let head = two.head().await;
    receiver.wait("what it left", |asked| of(asked, "two").len() as i64 == head);
    drop(two);
    govern::audit::verify(of(&receiver.asked(), "two").into_iter(), &[]).expect("whole");
    govern::audit::verify(of(&receiver.asked(), "one").into_iter(), &[]).expect("whole");
    drop(first);
}

/// A gateway that got another name exports what it wrote under the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_leaves_nothing_behind() {
    let folder = Folder::new();
    let url = folder.file("hearth.db");
    let old = World::open(&folder, &url, "old").await;
    old.note(12).await;
    let head = old.head().await;
    drop(old);
    let new = World::open(&folder, &url, "new").await;
    new.note(3).await;
    let receiver = Receiver::new(&[]);
    let _deliver = new.deliver(sinks(&[&receiver.url()]));
    let wanted = [head, new.head().await];
    receiver.wait("both", |asked| {
        [of(asked, "old").len() as i64, of(asked, "new").len() as i64] == wanted
    });
}
