//! Keys as `openssl` makes them.

use std::process::Command;
use std::sync::OnceLock;

/// An RSA key in PEM. It takes a moment to make, and one is enough for a program.
///
/// # Panics
/// There is no `openssl`, or it fails.
pub fn key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let made = Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).expect("PEM")
    })
}
