//! SCIM 2.0 (RFC 7643, RFC 7644): an identity provider keeps people and groups of one organisation
//! in step with its own. What Okta and Entra ID send is what this honours.
//!
//! People are the same [`govern::entity::User`]s who sign in; groups mean what the mapping of the
//! sign-in file says. Every route stands in one table ([`routes`]) with its permission, which is
//! asked for in the organisation of the key that is shown: nothing of another one can be named.

mod answer;
mod asked;
mod filter;
mod groups;
mod list;
mod patch;
mod schemas;
mod table;
mod users;

pub(crate) use answer::shaped;
pub use table::{Route, Rules, router, routes};

/// Where the routes begin.
pub const BASE: &str = "/scim/v2";
