//! Every dialect that callers speak against every one that providers speak: what is sent, what
//! comes back, and what is lost on the way.

mod answers;
mod asked;
mod back;
mod chat_client;
mod completions_client;
mod errors;
mod frame;
mod golden;
mod page;
mod properties;
mod random;
mod relays;
mod replay;
mod requests;
mod round;
mod rules;
mod several;
mod side;
mod told;
mod via;

#[path = "../gemini/client.rs"]
mod gemini_client;
#[path = "../messages/made.rs"]
mod made;
#[path = "../messages/client.rs"]
mod messages_client;
#[path = "../responses/checker.rs"]
mod responses_client;
