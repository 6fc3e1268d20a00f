//! Roles: named sets of permissions. A permission is asked for at one place of the tree; a grant
//! gives it there and below.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::directory::Directory;
use crate::entity::{Grant, Role};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// One thing that may be done. Written `keys.write`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize, ToSchema)]
        pub enum Permission {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Permission {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is written.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

permissions! {
    /// See organisations, teams and projects.
    TreeRead = "tree.read";
    /// Make, change and delete them, with their policies.
    TreeWrite = "tree.write";
    /// See people and services.
    UsersRead = "users.read";
    /// Invite, change and disable them, and give them roles no wider than one's own.
    UsersWrite = "users.write";
    /// Keep people and groups in step with an identity provider, by SCIM: make, change, disable and
    /// delete them, and give them by their groups what the mapping says.
    Provision = "users.provision";
    /// See keys (never their secrets).
    KeysRead = "keys.read";
    /// Make, rotate and revoke keys, with grants no wider than one's own.
    KeysWrite = "keys.write";
    /// See budgets and what is left of them.
    BudgetsRead = "budgets.read";
    /// Make, change, raise and delete them.
    BudgetsWrite = "budgets.write";
    /// See price sheets.
    PricesRead = "prices.read";
    /// Put a new sheet in force.
    PricesWrite = "prices.write";
    /// See everybody's usage and cost.
    UsageRead = "usage.read";
    /// See roles.
    RolesRead = "roles.read";
    /// Make roles no wider than one's own.
    RolesWrite = "roles.write";
    /// Read and verify the audit trail.
    AuditRead = "audit.read";
    /// Read recorded texts of requests and answers.
    BodiesRead = "bodies.read";
    /// Erase them.
    BodiesErase = "bodies.erase";
    /// Load and unload adapters.
    AdaptersWrite = "adapters.write";
    /// Read the figures for Prometheus.
    MetricsRead = "metrics.read";
}

use Permission as P;

/// A role that is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// Who it is for.
    pub doc: &'static str,
    /// What it allows.
    pub permissions: &'static [Permission],
}

/// The roles that are always there, the widest first.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { name: "owner", doc: "Everything.", permissions: P::ALL },
    BuiltIn {
        name: "admin",
        doc: "The platform team: people, keys, budgets, adapters; neither prices nor roles.",
        permissions: &[
            P::TreeRead,
            P::TreeWrite,
            P::UsersRead,
            P::UsersWrite,
            P::KeysRead,
            P::KeysWrite,
            P::BudgetsRead,
            P::BudgetsWrite,
            P::PricesRead,
            P::UsageRead,
            P::RolesRead,
            P::AdaptersWrite,
            P::MetricsRead,
        ],
    },
    BuiltIn {
        name: "billing",
        doc: "Finance: budgets, prices, usage.",
        permissions: &[
            P::TreeRead,
            P::BudgetsRead,
            P::BudgetsWrite,
            P::PricesRead,
            P::PricesWrite,
            P::UsageRead,
        ],
    },
    BuiltIn {
        name: "auditor",
        doc: "Sees everything, the audit trail among it, and changes nothing.",
        permissions: &[
            P::TreeRead,
            P::UsersRead,
            P::KeysRead,
            P::BudgetsRead,
            P::PricesRead,
            P::UsageRead,
            P::RolesRead,
            P::AuditRead,
        ],
    },
    BuiltIn {
        name: "developer",
        doc: "Makes keys for the projects that the grant covers.",
        permissions: &[P::TreeRead, P::KeysRead, P::KeysWrite, P::BudgetsRead],
    },
    BuiltIn { name: "member", doc: "Asks models, and sees their own usage.", permissions: &[] },
    BuiltIn {
        name: "provisioner",
        doc: "For an identity provider: people and groups by SCIM.",
        permissions: &[P::Provision],
    },
    BuiltIn {
        name: "monitor",
        doc: "For Prometheus: reads /metrics.",
        permissions: &[P::MetricsRead],
    },
];

/// The built-in role of this name.
#[must_use]
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.name == name)
}

/// What a role allows: one that is built in, or one of an organisation's own. `None` where neither
/// has this name. An own role cannot hide one that is built in.
#[must_use]
pub fn permissions_of<'a>(name: &str, own: &'a [Arc<Role>]) -> Option<&'a [Permission]> {
    let of_own = || own.iter().find(|role| role.name == name).map(|role| &role.permissions[..]);
    built_in(name).map(|role| role.permissions).or_else(of_own)
}

/// Whether somebody with the grants `mine` may give the grants `given`: each permission in each
/// place must be theirs in that place.
///
/// # Errors
/// One sentence that names the first thing that they may not give. Of a place that they have
/// nothing to do with it says the same whether the place exists or not.
pub fn no_wider(directory: &Directory, mine: &[Grant], given: &[Grant]) -> Result<(), String> {
    for grant in given {
        let Grant { role, scope } = grant;
        if !mine.iter().any(|own| directory.covers(&own.scope, scope)) {
            return Err(format!("{scope} is not yours to give anything in"));
        }
        let wanted = directory
            .permissions_of(grant)
            .ok_or_else(|| format!("there is no role `{}`", role.escape_debug()))?;
        let held = directory.permissions(mine, scope);
        if let Some(lacking) = wanted.iter().find(|permission| !held.contains(permission)) {
            let lacking = lacking.name();
            return Err(format!("`{role}` allows {lacking} in {scope}, which you may not do"));
        }
    }
    Ok(())
}
