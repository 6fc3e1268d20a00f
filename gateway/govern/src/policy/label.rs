//! How secret something is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The lowest first.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Anybody may see it.
    Public,
    /// The company's own: what is said where nothing else is.
    #[default]
    Internal,
    /// For few.
    Confidential,
    /// For nobody outside this machine room.
    Restricted,
}

impl Label {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::Public, Self::Internal, Self::Confidential, Self::Restricted];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }

    /// The label of what is made of both: the higher one.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        self.max(other)
    }
}

/// A label that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a label; write public, internal, confidential or restricted")]
pub struct NotLabel(String);

impl FromStr for Label {
    type Err = NotLabel;

    fn from_str(text: &str) -> Result<Self, NotLabel> {
        let known = Self::ALL.into_iter().find(|label| label.name() == text);
        known.ok_or_else(|| NotLabel(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_written_and_joined_upward() {
        for label in Label::ALL {
            assert_eq!(label.to_string().parse(), Ok(label));
            let json = serde_json::to_string(&label).expect("a label is JSON");
            assert_eq!(json, format!("\"{label}\""));
            assert_eq!(label.join(Label::Public), label);
            assert_eq!(Label::Restricted.join(label), Label::Restricted);
        }
        for wrong in ["", "Public", "secret", " public"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
    }
}
