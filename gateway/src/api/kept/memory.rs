//! What is kept where nobody governs: in this process's memory, whose room is bounded. The oldest
//! go first, none stays longer than an hour, and a restart forgets them all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use govern::kept::{CHAIN_MAX, KeptError, Kind, Range, Sheet};

/// Bytes of all that is kept, as JSON.
const BYTES_MAX: usize = 64 << 20;

/// What a sheet takes beside its content.
const SHEET_BYTES: usize = 256;

/// Longest time that something is kept.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// Whose it is, its kind, an item's conversation (else empty), its name. Of a part of a response,
/// its name and then that.
type Name = (u64, Kind, String, String);

/// All of it.
#[derive(Debug, Default)]
pub(in super::super) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Name, Entry>,
    /// By age, each with the number that it was kept under; those that are gone are among them.
    order: VecDeque<(Instant, u64, Name)>,
    bytes: usize,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    sheet: Sheet,
    /// Another entry of the same name has another number.
    number: u64,
    /// Somebody asks whoever makes it to stop.
    stop: bool,
}

fn name(owner: u64, (kind, conversation, id): (Kind, &str, &str)) -> Name {
    let conversation = if kind == Kind::Item { conversation } else { "" };
    (owner, kind, conversation.to_owned(), id.to_owned())
}

fn name_of(owner: u64, sheet: &Sheet) -> Name {
    if sheet.kind == Kind::Part {
        return (owner, Kind::Part, sheet.id.clone(), sheet.parent.clone());
    }
    name(owner, (sheet.kind, &sheet.parent, &sheet.id))
}

fn size(sheet: &Sheet) -> usize {
    SHEET_BYTES + sheet.content.expose().len()
}

impl Memory {
    /// The state, without what is over.
    fn state(&self, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.make_room(now);
        state
    }

    pub(super) fn keep(
        &self,
        owner: u64,
        sheets: Vec<Sheet>,
        into: Option<&str>,
        now: Instant,
    ) -> Result<(), KeptError> {
        if sheets.iter().map(size).sum::<usize>() > BYTES_MAX {
            return Err(KeptError::TooLong);
        }
        let mut state = self.state(now);
        let mut next = 0;
        if let Some(conversation) = into {
            let items = sheets.iter().filter(|sheet| sheet.kind == Kind::Item);
            for item in items.clone() {
                if state.entries.contains_key(&name_of(owner, item)) {
                    return Err(KeptError::Twice(item.id.clone()));
                }
            }
            let missing = || KeptError::Missing(conversation.to_owned());
            let whole = name(owner, (Kind::Conversation, "", conversation));
            let mut sheet = state.entries.get(&whole).ok_or_else(missing)?.sheet.clone();
            next = sheet.place;
            sheet.place += i64::try_from(items.count()).unwrap_or(i64::MAX);
            let label = sheets.iter().map(|sheet| sheet.label).max();
            sheet.label = label.map_or(sheet.label, |label| label.join(sheet.label));
            state.put(owner, sheet, now);
        }
        for mut sheet in sheets {
            if sheet.kind == Kind::Item {
                sheet.place = next;
                next += 1;
            }
            state.put(owner, sheet, now);
        }
        state.make_room(now);
        Ok(())
    }

    pub(super) fn keep_over(
        &self,
        owner: u64,
        sheet: Sheet,
        now: Instant,
    ) -> Result<(), KeptError> {
        if size(&sheet) > BYTES_MAX {
            return Err(KeptError::TooLong);
        }
        let mut state = self.state(now);
        let before = state.entries.get(&name_of(owner, &sheet));
        let before = &before.ok_or_else(|| KeptError::Missing(sheet.id.clone()))?.sheet;
        let sheet = Sheet {
            label: sheet.label.join(before.label),
            at: before.at,
            parent: before.parent.clone(),
            place: before.place,
            ..sheet
        };
        state.put(owner, sheet, now);
        state.make_room(now);
        Ok(())
    }

    pub(super) fn kept(&self, owner: u64, of: (Kind, &str, &str), now: Instant) -> Option<Sheet> {
        self.state(now).entries.get(&name(owner, of)).map(|entry| entry.sheet.clone())
    }

    pub(super) fn all(&self, owner: u64, kind: Kind, ids: &[&str], now: Instant) -> Vec<Sheet> {
        let state = self.state(now);
        let one = |id: &&str| match kind {
            Kind::Part => {
                let from = (owner, kind, (*id).to_owned(), String::new());
                let of = |(name, _): &(&Name, &Entry)| {
                    (name.0, name.1) == (owner, kind) && name.2 == *id
                };
                let all = state.entries.range(from..).take_while(of);
                all.max_by_key(|(_, entry)| entry.number).map(|(_, entry)| entry.sheet.clone())
            }
            _ => state.entries.get(&name(owner, (kind, "", id))).map(|entry| entry.sheet.clone()),
        };
        ids.iter().filter_map(one).collect()
    }

    pub(super) fn chain(
        &self,
        owner: u64,
        id: &str,
        now: Instant,
    ) -> Result<Vec<Sheet>, KeptError> {
        let state = self.state(now);
        let mut all: Vec<Sheet> = Vec::new();
        let mut next = id.to_owned();
        while !next.is_empty() {
            let found = state.entries.get(&name(owner, (Kind::Response, "", &next)));
            let found = found.filter(|_| all.len() < CHAIN_MAX);
            let sheet = found.map(|entry| entry.sheet.clone()).ok_or(KeptError::Missing(next))?;
            next = sheet.parent.clone();
            all.push(sheet);
        }
        all.reverse();
        Ok(all)
    }

    pub(super) fn items(
        &self,
        owner: u64,
        conversation: &str,
        range: Range,
        now: Instant,
    ) -> Vec<Sheet> {
        let state = self.state(now);
        let from = name(owner, (Kind::Item, conversation, ""));
        let of = |(of, _): &(&Name, &Entry)| (of.0, of.1, &of.2) == (from.0, from.1, &from.2);
        let mut all: Vec<&Sheet> =
            state.entries.range(from.clone()..).take_while(of).map(|(_, e)| &e.sheet).collect();
        all.sort_by_key(|sheet| if range.ascending { sheet.place } else { -sheet.place });
        let wanted = all.into_iter().filter(|sheet| match (range.after, range.ascending) {
            (None, _) => true,
            (Some(after), true) => sheet.place > after,
            (Some(after), false) => sheet.place < after,
        });
        wanted.take(range.limit).cloned().collect()
    }

    pub(super) fn forget(&self, owner: u64, of: (Kind, &str, &str), now: Instant) -> bool {
        if of.0 == Kind::Conversation {
            let all = Range { after: None, ascending: true, limit: usize::MAX };
            for item in self.items(owner, of.2, all, now) {
                self.state(now).forget(&name_of(owner, &item));
            }
        }
        let mut state = self.state(now);
        if of.0 == Kind::Response {
            let parts = state.entries.range((owner, Kind::Part, String::new(), String::new())..);
            let parts = parts.take_while(|(name, _)| (name.0, name.1) == (owner, Kind::Part));
            let own: Vec<Name> =
                parts.map(|(name, _)| name).filter(|name| name.3 == of.2).cloned().collect();
            for name in own {
                state.forget(&name);
            }
        }
        state.forget(&name(owner, of))
    }

    pub(super) fn still_making(&self, owner: u64, id: &str, now: Instant) -> Option<bool> {
        let state = self.state(now);
        state.entries.get(&name(owner, (Kind::Response, "", id))).map(|entry| entry.stop)
    }

    pub(super) fn stop_making(&self, owner: u64, id: &str, now: Instant) {
        let mut state = self.state(now);
        if let Some(entry) = state.entries.get_mut(&name(owner, (Kind::Response, "", id))) {
            entry.stop = true;
        }
    }
}

impl State {
    fn put(&mut self, owner: u64, sheet: Sheet, now: Instant) {
        let name = name_of(owner, &sheet);
        self.forget(&name);
        self.count += 1;
        self.bytes += size(&sheet);
        self.order.push_back((now, self.count, name.clone()));
        self.entries.insert(name, Entry { sheet, number: self.count, stop: false });
    }

    fn make_room(&mut self, now: Instant) {
        while let Some((at, ..)) = self.order.front() {
            let old = now.saturating_duration_since(*at) > TIME_MAX;
            if !old && self.bytes <= BYTES_MAX {
                return;
            }
            let Some((_, number, name)) = self.order.pop_front() else { return };
            if self.entries.get(&name).is_some_and(|entry| entry.number == number) {
                self.forget(&name);
            }
        }
    }

    fn forget(&mut self, name: &Name) -> bool {
        let gone = self.entries.remove(name);
        self.bytes -= gone.as_ref().map_or(0, |entry| size(&entry.sheet));
        gone.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use govern::policy::Label;
    use govern::secret::Secret;

    fn sheet(kind: Kind, id: &str, parent: &str, bytes: usize) -> Sheet {
        Sheet {
            kind,
            id: id.to_owned(),
            parent: parent.to_owned(),
            place: 0,
            label: Label::Internal,
            at: 0,
            lost_at: 0,
            content: Secret::new(vec![b' '; bytes]),
        }
    }

    fn response(id: &str, bytes: usize) -> Vec<Sheet> {
        vec![sheet(Kind::Response, id, "", bytes)]
    }

    #[test]
    fn known_to_its_owner_alone() {
        let (memory, now) = (Memory::default(), Instant::now());
        let name = (Kind::Response, "", "a");
        memory.keep(1, response("a", 10), None, now).expect("kept");
        assert!(memory.kept(1, name, now).is_some() && memory.kept(2, name, now).is_none());
        assert!(!memory.forget(2, name, now) && memory.forget(1, name, now));
        assert!(memory.kept(1, name, now).is_none());
        assert_eq!(memory.state(now).bytes, 0);
    }

    #[test]
    fn bounded_in_room_and_time() {
        let (memory, now) = (Memory::default(), Instant::now());
        let there = |id: &str, now| memory.kept(1, (Kind::Response, "", id), now).is_some();
        for id in ["a", "b", "c"] {
            memory.keep(1, response(id, BYTES_MAX / 2 - SHEET_BYTES), None, now).expect("kept");
        }
        assert!(!there("a", now) && there("b", now) && there("c", now));
        assert!(memory.keep(1, response("e", BYTES_MAX), None, now).is_err(), "too long");
        let later = now + TIME_MAX + Duration::from_secs(1);
        memory.keep(1, response("d", 1), None, later).expect("kept");
        assert!(there("d", later) && !there("c", later), "only the young one");
        assert_eq!(memory.state(later).entries.len(), 1);
    }

    #[test]
    fn items_have_an_order_and_go_with_their_conversation() {
        let (memory, now) = (Memory::default(), Instant::now());
        let whole = || vec![sheet(Kind::Conversation, "c", "", 1)];
        memory.keep(1, whole(), None, now).expect("kept");
        memory.keep(2, whole(), None, now).expect("kept");
        let item = |id| vec![sheet(Kind::Item, id, "c", 1)];
        for id in ["z", "y", "x"] {
            memory.keep(1, item(id), Some("c"), now).expect("kept");
        }
        assert!(matches!(memory.keep(1, item("x"), Some("c"), now), Err(KeptError::Twice(_))));
        assert!(matches!(memory.keep(1, item("w"), Some("d"), now), Err(KeptError::Missing(_))));
        let ids = |after, ascending| -> Vec<String> {
            let range = Range { after, ascending, limit: 2 };
            memory.items(1, "c", range, now).into_iter().map(|sheet| sheet.id).collect()
        };
        assert_eq!(
            (ids(None, true), ids(None, false)),
            (vec!["z".into(), "y".into()], vec!["x".into(), "y".into()])
        );
        assert_eq!((ids(Some(1), true), ids(Some(1), false)), (vec!["x".into()], vec!["z".into()]));
        assert!(memory.forget(1, (Kind::Conversation, "", "c"), now));
        let state = memory.state(now);
        assert_eq!(state.entries.len(), 1, "the other owner's");
    }
}
