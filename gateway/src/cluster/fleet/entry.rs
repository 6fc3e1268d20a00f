//! A node and why it is why. Several may know it: the configuration, the node itself, and names
//! and services, each of which may let it go. It goes when nobody is left.

use std::time::{Duration, Instant};

/// A node that names itself does so every second; one that has not for so long, and does not
/// speak either, is forgotten.
const FORGET: Duration = Duration::from_secs(3);
/// The same for one that a name or a service stood for; and how long one that was let go and has
/// nothing to do is kept, since names change their minds.
const FORGET_FOUND: Duration = Duration::from_secs(15);

/// A name or a service that stands for nodes: its place among all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finder(pub(super) usize);

/// Who knows a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configuration.
    Listed,
    /// A name or a service.
    Found(Finder),
    /// The node itself.
    Joined,
}

/// What a node does, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doing {
    /// It speaks.
    pub(super) up: bool,
    /// It has requests that have not ended.
    pub(super) busy: bool,
}

/// Who knows a node, and since when nobody does.
#[derive(Debug, Default)]
pub(super) struct Why {
    listed: bool,
    /// It named itself at this time.
    joined: Option<Instant>,
    /// These stand for it.
    finders: Vec<Finder>,
    /// One of them said so at this time.
    found: Option<Instant>,
    /// The last of them has let it go at this time.
    let_go: Option<Instant>,
}

impl Why {
    /// It is there, or is there still.
    pub(super) fn named(&mut self, origin: Origin, now: Instant) {
        match origin {
            Origin::Listed => self.listed = true,
            Origin::Joined => self.joined = Some(now),
            Origin::Found(finder) => {
                self.found = Some(now);
                if !self.finders.contains(&finder) {
                    self.finders.push(finder);
                }
            }
        }
        self.let_go = None;
    }

    /// This one does not stand for it any more; `true`: it was the last that knew it.
    pub(super) fn dropped(&mut self, finder: Finder, now: Instant) -> bool {
        let Some(at) = self.finders.iter().position(|known| *known == finder) else { return false };
        self.finders.swap_remove(at);
        let joins = self.joined.is_some_and(|at| now.duration_since(at) <= FORGET);
        let last = self.finders.is_empty() && !joins && !self.listed;
        self.let_go = last.then_some(now);
        last
    }

    /// It gets nothing new.
    pub(super) fn is_let_go(&self) -> bool {
        self.let_go.is_some()
    }

    /// It is to be followed still. `longest` is how long a request takes at most.
    pub(super) fn stays(&self, doing: Doing, longest: Option<Duration>, now: Instant) -> bool {
        let within = |time: Option<Instant>, most: Duration| {
            time.is_some_and(|time| now.duration_since(time) <= most)
        };
        if self.let_go.is_some() {
            let may_end = longest.is_none_or(|most| within(self.let_go, most));
            return doing.up && may_end && (doing.busy || within(self.let_go, FORGET_FOUND));
        }
        let is_named = within(self.joined, FORGET) || within(self.found, FORGET_FOUND);
        self.listed || doing.up || is_named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Doing = Doing { up: true, busy: false };
    const BUSY: Doing = Doing { up: true, busy: true };
    const DEAD: Doing = Doing { up: false, busy: false };
    const LONGEST: Option<Duration> = Some(Duration::from_secs(60));

    /// A node that these know, and whether it is let go when finders 0 and 1 drop it.
    fn check(origins: &[Origin], expect: [bool; 2]) -> Why {
        let (mut why, now) = (Why::default(), Instant::now());
        origins.iter().for_each(|origin| why.named(*origin, now));
        let dropped = [0, 1].map(|finder| why.dropped(Finder(finder), now));
        assert_eq!(dropped, expect, "{origins:?}");
        assert_eq!(why.is_let_go(), expect.contains(&true), "{origins:?}");
        why
    }

    #[test]
    fn it_goes_with_the_last_that_knows_it() {
        let [zero, one] = [0, 1].map(|finder| Origin::Found(Finder(finder)));
        check(&[zero], [true, false]);
        check(&[zero, zero, one], [false, true]);
        for stays in [Origin::Listed, Origin::Joined] {
            check(&[stays], [false, false]);
            check(&[stays, zero, one], [false, false]);
            check(&[zero, one, stays], [false, false]);
        }
        let mut why = check(&[zero], [true, false]);
        for back in [zero, one, Origin::Joined, Origin::Listed] {
            why.named(back, Instant::now());
            assert!(!why.is_let_go(), "{back:?}");
        }
    }

    #[test]
    fn who_has_ceased_to_name_itself_is_let_go_with_its_name() {
        let (mut why, now) = (Why::default(), Instant::now());
        why.named(Origin::Joined, now);
        why.named(Origin::Found(Finder(0)), now);
        assert!(why.dropped(Finder(0), now + FORGET * 2));
    }

    #[test]
    fn how_long_it_is_followed() {
        let begun = Instant::now();
        let stays = |why: &Why, doing, seconds| {
            why.stays(doing, LONGEST, begun + Duration::from_secs(seconds))
        };
        let mut why = Why::default();
        why.named(Origin::Joined, begun);
        assert_eq!([3, 4].map(|s| stays(&why, DEAD, s)), [true, false]);
        assert!(stays(&why, IDLE, 1000));
        why.named(Origin::Found(Finder(0)), begun);
        assert_eq!([15, 16].map(|s| stays(&why, DEAD, s)), [true, false]);

        let mut why = Why::default();
        why.named(Origin::Found(Finder(0)), begun);
        assert!(why.dropped(Finder(0), begun));
        assert!(!stays(&why, DEAD, 0));
        assert_eq!([15, 16].map(|s| stays(&why, IDLE, s)), [true, false]);
        assert_eq!([60, 61].map(|s| stays(&why, BUSY, s)), [true, false]);
        assert!(why.stays(BUSY, None, begun + Duration::from_secs(3600)), "nothing ends it");
        why.named(Origin::Listed, begun);
        assert!(stays(&why, DEAD, 1000));
    }
}
