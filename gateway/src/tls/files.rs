//! PEM files, read whole and compared as they are, so that half a change is seen as one.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{Files, TlsError};

/// Lists of an authority with a million certificates fit; anything longer is a mistake.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What the files hold.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Vec<u8>,
    revoked: Vec<u8>,
}

fn wrong(file: &Path, why: impl Into<String>) -> TlsError {
    TlsError { file: file.display().to_string(), why: why.into() }
}

impl Contents {
    /// Reads all of them.
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        let maybe = |file: &Option<_>| file.as_deref().map_or(Ok(Vec::new()), bytes);
        Ok(Self {
            certificate: bytes(&files.certificate)?,
            key: bytes(&files.key)?,
            client_authorities: maybe(&files.client_authorities)?,
            revoked: maybe(&files.revoked)?,
        })
    }

    /// The server's certificate with those above it, and its key.
    pub(super) fn own(
        &self,
        files: &Files,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        // The parser's own words could repeat what it read.
        let key = key.map_err(|_| wrong(&files.key, "no private key in PEM is in it"))?;
        Ok((chain, key))
    }

    /// Whose certificates clients may show.
    pub(super) fn authorities(&self, file: &Path) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file, &self.client_authorities)? {
            roots.add(certificate).map_err(|error| wrong(file, error.to_string()))?;
        }
        Ok(roots)
    }

    /// Lists of certificates that count no more.
    pub(super) fn revoked(
        &self,
        file: &Path,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let read: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&self.revoked).collect();
        let lists = read.map_err(|error| wrong(file, error.to_string()))?;
        if lists.is_empty() {
            return Err(wrong(file, "no revocation list in PEM (X509 CRL) is in it"));
        }
        Ok(lists)
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error: std::io::Error| wrong(file, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(file, format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = read.map_err(|error| wrong(file, error.to_string()))?;
    if all.is_empty() { Err(wrong(file, "no certificate in PEM is in it")) } else { Ok(all) }
}
