//! Which sequences may share the keys and values of a common prefix.
//!
//! Most models: all of them. Where frequencies depend on the sequence's length (longrope, dynamic
//! NTK), the same tokens have other keys in a longer prompt, and sharing them would be wrong
//! without a sign.

use kernels::Beyond;

use super::ModelSpec;

/// The rule of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixRule {
    /// A prefix is worth the same in any sequence.
    Any,
    /// Prompts longer than `limit` tokens share among themselves only.
    Split {
        /// Tokens.
        limit: usize,
    },
    /// Prompts longer than `limit` tokens share with prompts of their own length only.
    Length {
        /// Tokens.
        limit: usize,
    },
}

impl PrefixRule {
    /// Prompts with different numbers must not share pages; 0 for the common case.
    #[must_use]
    pub fn class(self, prompt_len: usize) -> u64 {
        match self {
            Self::Split { limit } if prompt_len > limit => 1,
            Self::Length { limit } if prompt_len > limit => prompt_len as u64,
            _ => 0,
        }
    }
}

impl ModelSpec {
    /// Which sequences may share a prefix's pages.
    #[must_use]
    pub fn prefix_rule(&self) -> PrefixRule {
        let mut rule = PrefixRule::Any;
        for beyond in self.ropes.iter().filter_map(|rope| rope.beyond.as_ref()) {
            rule = match (beyond, rule) {
                (Beyond::Dynamic { limit, .. }, _) => PrefixRule::Length { limit: *limit as usize },
                (_, PrefixRule::Length { .. }) => rule,
                (Beyond::Long { limit, .. }, _) => PrefixRule::Split { limit: *limit as usize },
            };
        }
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_rule() {
        let classes = |rule: PrefixRule| [4, 5, 6].map(|len| rule.class(len));
        assert_eq!(classes(PrefixRule::Any), [0, 0, 0]);
        assert_eq!(classes(PrefixRule::Split { limit: 4 }), [0, 1, 1]);
        assert_eq!(classes(PrefixRule::Length { limit: 4 }), [0, 5, 6]);
    }
}
