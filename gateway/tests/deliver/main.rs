//! Alerts and the audit leave the machine: through failures, restarts and kills, to real receivers.

mod alerts;
mod away;
mod exports;
mod house;
mod killed;
mod mail;
mod programs;
mod receiver;
mod several;
mod syslog;
mod world;
