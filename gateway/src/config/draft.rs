//! A configuration in the making. In place of any text an operator may write where it stands:
//! `env:NAME`, `file:PATH` or `vault:PATH#KEY`. It is fetched here, once, before the option checks
//! it; from then on nobody knows where it came from, and no error shows it.

use govern::secret::reference::{Resolved, Sources, Vault};
use govern::secret::{Reference, Secret};

use super::options::Opt;
use super::{Config, outgoing};
use crate::vault::{Env, Http};

/// What was read so far.
pub(super) struct Draft<'a> {
    pub(super) config: Config,
    pub(super) warnings: Vec<String>,
    env: Env<'a>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(config: Config, env: Env<'a>) -> Self {
        Self { config, warnings: Vec::new(), env }
    }

    /// Where variables come from.
    pub(super) fn env(&self) -> Env<'a> {
        self.env
    }

    /// Sets an option. An error says what is wrong, and not where.
    pub(super) fn set(&mut self, option: &Opt, texts: &[&str]) -> Result<(), String> {
        let mut fetched = Vec::new();
        for text in texts {
            // Where the audit goes, `file:` is a place and no reference.
            let place = option.key == outgoing::EXPORT.key && text.trim().starts_with("file:");
            let found = if place { None } else { resolve(text, self.env)? };
            let warning = found.as_ref().and_then(|(_, found)| found.warning.as_ref());
            self.warnings.extend(warning.map(|text| format!("{}: {text}", option.key)));
            fetched.push(found);
        }
        let values: Vec<&str> = texts
            .iter()
            .zip(&fetched)
            .map(|(text, found)| found.as_ref().map_or(*text, |(_, found)| found.value.expose()))
            .collect();
        (option.set)(&mut self.config, &values).map_err(|problem| {
            // An option's own words repeat the value.
            let from: Vec<_> = fetched.iter().flatten().map(|(from, _)| from.to_string()).collect();
            if from.is_empty() {
                return problem;
            }
            format!("{} cannot be used here. What this is: {}", from.join(", "), option.doc)
        })
    }
}

/// What a text refers to; `None`: nothing, it is the value itself.
///
/// # Errors
/// It refers to something that is not there.
pub(crate) fn resolve(text: &str, env: Env<'_>) -> Result<Option<(Reference, Resolved)>, String> {
    let parsed = Reference::parse(text.trim()).map_err(|error| error.to_string())?;
    let Some(reference) = parsed else { return Ok(None) };
    // On a thread of its own: whoever reads a configuration may be within a runtime already.
    let resolved = std::thread::scope(|scope| {
        let fetch = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("{reference}: {error}"))?;
            runtime.block_on(fetch(&reference, env))
        };
        let fetched = scope.spawn(fetch).join();
        fetched.unwrap_or_else(|_| Err(format!("{reference}: a fault in the program")))
    });
    resolved.map(|resolved| Some((reference, resolved)))
}

/// What a text says or refers to, in this process's environment.
///
/// # Errors
/// It refers to something that is not there.
pub(crate) fn resolve_secret(text: &str) -> Result<Secret<String>, String> {
    let found = resolve(text, &|name| std::env::var(name).ok())?;
    Ok(found.map_or_else(|| Secret::new(text.to_owned()), |(_, found)| found.value))
}

async fn fetch(reference: &Reference, env: Env<'_>) -> Result<Resolved, String> {
    let vault = match reference {
        Reference::Vault { .. } => {
            let vault = Http::from_env(env).await;
            Some(vault.map_err(|why| format!("{reference}: {why}"))?)
        }
        Reference::Env(_) | Reference::File(_) => None,
    };
    let sources = Sources { env, vault: vault.as_ref().map(|vault| vault as &dyn Vault) };
    let mut resolved = reference.resolve(sources).await.map_err(|error| error.to_string())?;
    resolved.warning = resolved.warning.or(vault.and_then(|vault| vault.warning));
    Ok(resolved)
}
