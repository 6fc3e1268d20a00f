//! What a process leaves behind that is killed, a database that goes away, a disk that is full and
//! files that are damaged: every operation that began is settled once, with what was handed out.

#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/journal.rs"]
mod journal;
#[path = "faults/killed.rs"]
mod killed;
#[path = "money/ledger.rs"]
mod ledger;
#[path = "faults/outage.rs"]
mod outage;
#[path = "money/records.rs"]
mod records;
#[path = "faults/rewrap.rs"]
mod rewrap;
#[path = "money/shop.rs"]
mod shop;
#[path = "faults/till.rs"]
mod till;
