//! `hearth admin secrets rotate`: seals everything with a new master key. Where the sign-in file
//! names the key, the new one is named there before; else this makes it, beside the database.

use std::sync::Arc;

use clap::Subcommand;
use govern::secret::Keyring;

use super::House;
use crate::cli::exit::{self, Outcome};
use crate::signin::{file, master};

#[derive(Debug, Subcommand)]
pub(super) enum Secrets {
    /// Seal everything with the master key that the sign-in file names, or with a new one in the
    /// data folder
    Rotate(House),
}

impl Secrets {
    pub(super) fn run(&self) -> Outcome {
        let Self::Rotate(house) = self;
        let (config, data) = house.config()?;
        let named = config.signin.as_deref().map(file::names_master).transpose();
        let named = named.map_err(exit::usage)?.unwrap_or(false);
        crate::cli::runtime(1)?.block_on(async {
            // First of all: while a server runs no key is made.
            let governor = house.open(&config).await?;
            let rewrap = async |keyring: &Arc<Keyring>| {
                let done = governor.rewrap(keyring).await;
                done.map_err(|error| exit::unavailable(error.to_string()))
            };
            let (done, kept) = if named {
                let keyring =
                    file::keyring(config.signin.as_deref(), &data).map_err(exit::usage)?;
                (rewrap(&keyring).await?, "The keys in old_master_keys".to_owned())
            } else {
                let next = master::next(&data).map_err(exit::cannot_write)?;
                let done = rewrap(&next.keyring).await?;
                let kept = next.take_over().map_err(exit::cannot_write)?;
                (done, kept.display().to_string())
            };
            exit::print(&format!(
                "sealed anew: {} secrets of one-time codes, {} keys of recorded texts\n{kept}: \
                 needed for backups of before, and for nothing else\n",
                done.codes, done.texts
            ))
        })
    }
}
