//! How often something would have been refused, in bounded tables.

use std::collections::HashMap;

use super::Count;

/// Names told apart while counting, and those that an answer shows.
const NAMES_MAX: usize = 10_000;
const SHOWN_MAX: usize = 100;

/// What stands for all names beyond the bounds.
const OTHERS: &str = "others";

/// Counts by name.
#[derive(Debug, Default)]
pub(super) struct Counts {
    by_name: HashMap<String, u64>,
    others: u64,
}

impl Counts {
    pub(super) fn add(&mut self, name: &str) {
        if let Some(count) = self.by_name.get_mut(name) {
            *count += 1;
        } else if self.by_name.len() < NAMES_MAX {
            self.by_name.insert(name.to_owned(), 1);
        } else {
            self.others += 1;
        }
    }

    /// The most frequent first.
    pub(super) fn shown(self) -> Vec<Count> {
        let Self { by_name, mut others } = self;
        let mut all: Vec<Count> =
            by_name.into_iter().map(|(name, requests)| Count { name, requests }).collect();
        all.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.name.cmp(&b.name)));
        others += all.iter().skip(SHOWN_MAX).map(|count| count.requests).sum::<u64>();
        all.truncate(SHOWN_MAX);
        all.extend((others > 0).then(|| Count { name: OTHERS.to_owned(), requests: others }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bounds_are_others() {
        let mut counts = Counts::default();
        for number in 0..NAMES_MAX + 7 {
            counts.add(&format!("{number:05}"));
        }
        counts.add("00003");
        let shown = counts.shown();
        assert_eq!(shown.len(), SHOWN_MAX + 1);
        assert_eq!((shown[0].name.as_str(), shown[0].requests), ("00003", 2));
        assert_eq!(shown[SHOWN_MAX].name, OTHERS);
        let all: u64 = shown.iter().map(|count| count.requests).sum();
        assert_eq!(all, NAMES_MAX as u64 + 8);
    }
}
