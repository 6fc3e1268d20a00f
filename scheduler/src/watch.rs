//! What changed among the pages that can be found, for whoever routes requests to where their
//! beginning lies. Off until asked for. It is bounded: a watcher that does not read in time is
//! told to begin again from the whole set. It knows hashes, no pages and no tokens.

/// Changes kept until they are read. A step makes a few; a pool has some hundred thousand pages.
pub const PAGE_CHANGES_MAX: usize = 65_536;

/// A page became findable under a hash, or the last one under it ceased to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageChange {
    /// As [`crate::prefix_hashes`] has it.
    pub hash: u64,
    /// Whether a page is held under it now.
    pub held: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// `None`: nobody watches.
    changes: Option<Vec<PageChange>>,
    /// Changes were not noted: the set has to be read anew.
    lost: bool,
}

impl Watch {
    pub(crate) fn is_on(&self) -> bool {
        self.changes.is_some()
    }

    /// Notes changes from now on. What is there already has to be read.
    pub(crate) fn begin(&mut self) {
        self.changes.get_or_insert_default();
        self.lost = true;
    }

    /// Notes a change.
    pub(crate) fn note(&mut self, hash: u64, held: bool) {
        match &mut self.changes {
            Some(changes) if !self.lost && changes.len() < PAGE_CHANGES_MAX => {
                changes.push(PageChange { hash, held });
            }
            Some(_) => self.lose(),
            None => {}
        }
    }

    /// Too much changes to be noted one by one.
    pub(crate) fn lose(&mut self) {
        if let Some(changes) = &mut self.changes {
            changes.clear();
            self.lost = true;
        }
    }

    /// Moves the changes since the last call to the end of `into`. False: some were lost, and the
    /// set has to be read.
    pub(crate) fn drain(&mut self, into: &mut Vec<PageChange>) -> bool {
        if let Some(changes) = &mut self.changes {
            into.append(changes);
        }
        !std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_read_anew() {
        let mut watch = Watch::default();
        watch.note(1, true);
        let mut read = Vec::new();
        assert!(watch.drain(&mut read) && read.is_empty(), "nobody watched");
        watch.begin();
        assert!(!watch.drain(&mut read), "what was there before is not known");
        for hash in 0..=PAGE_CHANGES_MAX as u64 {
            watch.note(hash, true);
        }
        assert!(!watch.drain(&mut read) && read.is_empty(), "one too many");
        watch.note(7, false);
        assert!(watch.drain(&mut read));
        assert_eq!(read, [PageChange { hash: 7, held: false }]);
    }
}
