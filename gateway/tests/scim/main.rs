//! SCIM: what Okta and Entra ID send, who may, and that nobody learns of another organisation.

mod entra;
mod okta;
mod people;
mod rights;
mod tester;
mod world;
