//! `hearth admin recover`: another key that may do everything, for whoever can write the database
//! anyway. A server that runs has the database or the journal to itself, so this refuses then.

use super::House;
use crate::cli::exit::{self, Outcome};

/// Makes the key and shows it.
pub(super) fn run(house: &House) -> Outcome {
    let (config, _) = house.config()?;
    crate::cli::runtime(1)?.block_on(async {
        let governor = house.open(&config).await?;
        let key = governor.recovery_key().await;
        let key = key.map_err(|error| exit::unavailable(error.to_string()))?;
        governor.flush().await;
        exit::print(&format!("{}\n", key.shown))?;
        eprintln!(
            "It may do everything and is shown this once. Revoke it when you have made others: \
             `hearth admin keys revoke {}`.",
            key.prefix
        );
        Ok(())
    })
}
