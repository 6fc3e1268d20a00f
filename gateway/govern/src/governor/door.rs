//! Who comes in: by a key, or by a certificate that a key is for.

use std::net::IpAddr;

use super::Governor;
use crate::Denied;
use crate::identity::{Principal, key};

impl Governor {
    /// Who shows this key.
    ///
    /// # Errors
    /// The key is not good, or not from there, or not now.
    pub fn authenticate(
        &self,
        shown: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Principal, Denied> {
        key::authenticate(&self.shared.directory(), shown, source, self.shared.clock.now())
    }

    /// Who shows a certificate with these names, and no key.
    ///
    /// # Errors
    /// No key is for it, or several are; or the one that is may not come in from there or now.
    pub fn of_certificate(
        &self,
        names: &[String],
        source: Option<IpAddr>,
    ) -> Result<Principal, Denied> {
        key::of_certificate(&self.shared.directory(), names, source, self.shared.clock.now())
    }
}
