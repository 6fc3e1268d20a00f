//! Objects of a shape: which names, and what stands behind them.

use std::collections::{HashMap, HashSet};

use super::pattern::Names;
use super::shape::Goal;

/// Objects.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    /// In the order in which they are written.
    pub(super) properties: Vec<(String, Goal)>,
    /// Patterns do not overlap.
    pub(super) patterns: Vec<(String, Goal)>,
    /// Of all other names.
    pub(super) rest: Goal,
    pub(super) required: Vec<String>,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
}

impl Object {
    pub(super) fn is_any(&self) -> bool {
        let Self { properties, patterns, rest, required, min, max } = self;
        properties.is_empty()
            && patterns.is_empty()
            && rest.0.is_empty()
            && required.is_empty()
            && *min == 0
            && max.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        let least = self.min.max(self.required.len() as u64);
        self.max.is_some_and(|max| max < least)
    }

    /// Properties by name.
    pub(super) fn index(&self) -> HashMap<&str, &Goal> {
        self.properties.iter().map(|(name, goal)| (name.as_str(), goal)).collect()
    }

    /// The schema of a name that is no property.
    fn other(&self, name: &str, names: &mut Names) -> Goal {
        let met = self.patterns.iter().find(|(pattern, _)| names.matches(pattern, name));
        met.map_or(&self.rest, |(_, goal)| goal).clone()
    }

    /// Objects that are both. Where patterns of the two overlap, why not.
    pub(super) fn meet(&self, other: &Self, names: &mut Names) -> Result<Self, String> {
        let (mine, theirs) = (self.index(), other.index());
        let mut properties = Vec::with_capacity(self.properties.len());
        for (name, goal) in &self.properties {
            let met = theirs.get(name.as_str()).map(|goal| (*goal).clone());
            let met = met.unwrap_or_else(|| other.other(name, names));
            properties.push((name.clone(), goal.and(&met)));
        }
        for (name, goal) in &other.properties {
            if !mine.contains_key(name.as_str()) {
                properties.push((name.clone(), self.other(name, names).and(goal)));
            }
        }
        let mut required = self.required.clone();
        required.extend(other.required.iter().cloned());
        unique(&mut required);
        Ok(Self {
            properties,
            patterns: self.meet_patterns(other, names)?,
            rest: self.rest.and(&other.rest),
            required,
            min: self.min.max(other.min),
            max: lesser(self.max, other.max),
        })
    }

    fn meet_patterns(
        &self,
        other: &Self,
        names: &mut Names,
    ) -> Result<Vec<(String, Goal)>, String> {
        let mut all: Vec<(String, Goal)> = Vec::new();
        for (pattern, goal) in &self.patterns {
            let same = other.patterns.iter().find(|(theirs, _)| theirs == pattern);
            let met = same.map_or(&other.rest, |(_, goal)| goal);
            all.push((pattern.clone(), goal.and(met)));
        }
        for (pattern, goal) in &other.patterns {
            if self.patterns.iter().any(|(mine, _)| mine == pattern) {
                continue;
            }
            for (mine, _) in &self.patterns {
                names.disjoint(mine, pattern)?;
            }
            all.push((pattern.clone(), goal.and(&self.rest)));
        }
        Ok(all)
    }

    /// Allows these names alone.
    pub(super) fn only_names(&mut self, allowed: &[String], never: u32, names: &mut Names) {
        let kept: HashSet<&str> = allowed.iter().map(String::as_str).collect();
        for (name, goal) in &mut self.properties {
            if !kept.contains(name.as_str()) {
                *goal = Goal::one(never);
            }
        }
        let known: HashSet<String> = self.properties.iter().map(|(name, _)| name.clone()).collect();
        for name in allowed.iter().filter(|name| !known.contains(*name)) {
            let goal = self.other(name, names);
            self.properties.push((name.clone(), goal));
        }
        self.patterns.clear();
        self.rest = Goal::one(never);
    }

    /// Makes each required name a property.
    pub(super) fn name_required(&mut self, names: &mut Names) {
        let known: HashSet<String> = self.properties.iter().map(|(name, _)| name.clone()).collect();
        for name in self.required.iter().filter(|name| !known.contains(*name)) {
            let goal = self.other(name, names);
            self.properties.push((name.clone(), goal));
        }
    }
}

/// Keeps the first of each.
pub(super) fn unique(names: &mut Vec<String>) {
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
}

pub(super) fn lesser(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
