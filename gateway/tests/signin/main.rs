//! Signing in, as browsers, services and attackers do: a real provider (`oidc-provider` from npm)
//! on loopback, a governor on a file of its own, and a jar of cookies.

mod browser;
mod oidc;
mod password;
mod service;
mod world;
