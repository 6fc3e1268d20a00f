//! Options of how connections begin: TLS, certificates of clients, and whom between here and them
//! is believed.

use std::path::PathBuf;

use govern::policy::Network;

use super::options::{Opt, one};
use super::{Config, values};
use crate::tls::{Clients, Files};

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate; `None`: connections are plain.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Authorities of clients.
    pub client_authorities: Option<PathBuf>,
    /// Lists of what they revoked.
    pub revoked: Option<PathBuf>,
    /// Whether clients show certificates.
    pub clients: Clients,
    /// Whose word on where a request comes from counts.
    pub trusted_proxies: Vec<Network>,
}

impl Tls {
    /// The files, where connections begin with TLS.
    #[must_use]
    pub fn files(&self) -> Option<Files> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else { return None };
        Some(Files {
            certificate: certificate.clone(),
            key: key.clone(),
            client_authorities: self.client_authorities.clone(),
            revoked: self.revoked.clone(),
            clients: self.clients,
        })
    }
}

/// What must hold between these options; an error names the option.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, &'static str)> {
    let Tls { certificate, key, client_authorities, revoked, clients, .. } = &config.tls;
    if certificate.is_some() != key.is_some() {
        return Err(("server.tls_cert", "server.tls_cert and server.tls_key go together"));
    }
    if client_authorities.is_some() && certificate.is_none() {
        return Err(("server.tls_client_ca", "server.tls_cert is missing: there is no TLS"));
    }
    if (*clients != Clients::Unasked) != client_authorities.is_some() {
        let why = "server.tls_client and server.tls_client_ca go together";
        return Err(("server.tls_client", why));
    }
    if revoked.is_some() && client_authorities.is_none() {
        return Err(("server.tls_client_crl", "server.tls_client_ca is missing"));
    }
    Ok(())
}

/// A warning, where keys and answers cross a network for all to read.
#[must_use]
pub fn warning(config: &Config) -> Option<String> {
    let Tls { certificate, trusted_proxies, .. } = &config.tls;
    if config.listen.ip().is_loopback() || certificate.is_some() || !trusted_proxies.is_empty() {
        return None;
    }
    Some(format!(
        "keys, prompts and answers cross the network unencrypted: {} is plain HTTP. Set \
         server.tls_cert and server.tls_key, or put a proxy that speaks TLS before it and name \
         that in server.trusted_proxies",
        config.listen
    ))
}

pub(super) const CERTIFICATE: Opt = Opt {
    key: "server.tls_cert",
    env: "HEARTH_TLS_CERT",
    flag: "tls-cert",
    value: "FILE",
    default: "",
    list: false,
    doc: "Certificate of the server, and those above it, in PEM: with it the server speaks TLS \
          only. Read again when it changes, and at SIGHUP.",
    set: |c, t| one(&mut c.tls.certificate, t, values::file_or_none),
};

pub(super) const KEY: Opt = Opt {
    key: "server.tls_key",
    env: "HEARTH_TLS_KEY",
    flag: "tls-key",
    value: "FILE",
    default: "",
    list: false,
    doc: "The certificate's private key, in PEM.",
    set: |c, t| one(&mut c.tls.key, t, values::file_or_none),
};

pub(super) const CLIENTS: Opt = Opt {
    key: "server.tls_client",
    env: "HEARTH_TLS_CLIENT",
    flag: "tls-client",
    value: "WHETHER",
    default: "none",
    list: false,
    doc: "Whether clients show certificates: `none`, `optional` or `required`. One that a key \
          names stands for that key (docs/govern.md).",
    set: |c, t| {
        one(&mut c.tls.clients, t, |text| match text {
            "none" => Ok(Clients::Unasked),
            "optional" => Ok(Clients::Optional),
            "required" => Ok(Clients::Required),
            _ => Err(format!("`{text}` is not one of none, optional, required")),
        })
    },
};

pub(super) const CLIENT_AUTHORITIES: Opt = Opt {
    key: "server.tls_client_ca",
    env: "HEARTH_TLS_CLIENT_CA",
    flag: "tls-client-ca",
    value: "FILE",
    default: "",
    list: false,
    doc: "Authorities whose certificates clients may show, in PEM.",
    set: |c, t| one(&mut c.tls.client_authorities, t, values::file_or_none),
};

pub(super) const REVOKED: Opt = Opt {
    key: "server.tls_client_crl",
    env: "HEARTH_TLS_CLIENT_CRL",
    flag: "tls-client-crl",
    value: "FILE",
    default: "",
    list: false,
    doc: "Lists of certificates that those authorities revoked, in PEM, one of each authority. \
          With a list that is out of date nobody's certificate counts.",
    set: |c, t| one(&mut c.tls.revoked, t, values::file_or_none),
};

pub(super) const TRUSTED_PROXIES: Opt = Opt {
    key: "server.trusted_proxies",
    env: "HEARTH_TRUSTED_PROXIES",
    flag: "trusted-proxies",
    value: "NETWORK",
    default: "",
    list: true,
    doc: "Networks of proxies whose `X-Forwarded-For` or `Forwarded` says where a request comes \
          from: `10.0.0.0/8`. Of the addresses there the last counts that is in none of them.",
    set: |c, t| {
        let read = t.iter().map(|text| text.trim().parse().map_err(|error| format!("{error}")));
        c.tls.trusted_proxies = read.collect::<Result<_, _>>()?;
        Ok(())
    },
};
