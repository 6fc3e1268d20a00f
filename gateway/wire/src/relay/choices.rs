//! The choices of a stream that is passed on: how many were asked for, and which have finished. One
//! that has finished says nothing of the others.

/// Choices that are kept apart: a bound on what strangers make us remember.
const MANY: u32 = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Choices {
    asked: usize,
    finished: Vec<u32>,
    /// Those of the first 64 that have begun, a bit for each; 0: nobody says.
    begun: u64,
}

impl Choices {
    pub(super) fn new(asked: u32) -> Self {
        let asked = usize::try_from(asked.clamp(1, MANY)).unwrap_or(usize::MAX);
        Self { asked, finished: Vec::new(), begun: 0 }
    }

    /// Takes note of some that finish; whether all have now.
    pub(super) fn finish(&mut self, news: &[u32]) -> bool {
        for index in news {
            if !self.have_finished() && !self.finished.contains(index) {
                self.finished.push(*index);
            }
        }
        self.have_finished()
    }

    /// Takes note of some that have begun.
    pub(super) fn begin(&mut self, about: u64) {
        self.begun |= about;
    }

    /// Whether as many as the provider has begun have finished: Google may make fewer than it was
    /// asked for, and has no word for the end of all.
    pub(super) fn are_those_that_came(&self) -> bool {
        let ended = self.finished.iter().filter_map(|index| 1_u64.checked_shl(*index));
        self.begun != 0 && ended.fold(0, |all, one| all | one) & self.begun == self.begun
    }

    /// A provider may number them as it likes.
    fn have_finished(&self) -> bool {
        self.finished.len() >= self.asked
    }

    /// Those that are still to finish.
    pub(super) fn open(&self) -> impl Iterator<Item = u32> {
        let all = if self.have_finished() { 0 } else { self.asked };
        (0..).take(all).filter(|index| !self.finished.contains(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_have_to_finish() {
        let mut choices = Choices::new(3);
        assert!(!choices.finish(&[]) && !choices.finish(&[1]) && !choices.finish(&[1, 1]));
        assert_eq!(choices.open().collect::<Vec<_>>(), [0, 2]);
        assert!(!choices.finish(&[2]) && choices.finish(&[0]) && choices.finish(&[]));
        assert_eq!(choices.open().count(), 0);
        // Of one its number says nothing.
        let mut one = Choices::new(0);
        assert_eq!(one.open().collect::<Vec<_>>(), [0]);
        assert!(!one.finish(&[]) && one.finish(&[7]));
        assert_eq!(one.open().count(), 0);
        // Where it is known who has begun, it is known whether anybody else is to come.
        let mut two = Choices::new(2);
        assert!(!two.finish(&[0]) && !two.are_those_that_came());
        two.begin(0b01);
        assert!(two.are_those_that_came());
        two.begin(0b10);
        assert!(!two.are_those_that_came());
        // A stranger's numbers are not remembered for ever.
        let mut many = Choices::new(u32::MAX);
        let all: Vec<u32> = (0..5000).collect();
        assert!(many.finish(&all));
        assert_eq!(many.finished.len(), 1024);
    }
}
