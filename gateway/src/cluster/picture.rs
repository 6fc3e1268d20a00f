//! What a gateway knows of a node: its state as the node told it, line by line. A line that does
//! not follow the one before is a gap: what is known is worth nothing then, and the whole is asked
//! for again. Knows no connection and no clock.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

use super::protocol::{
    ADAPTERS_MAX, Changed, Delta, Load, ReadLoad, Served, ServedReader, Snapshot, State,
};
use crate::metrics::GpuReading;

/// Models of one node.
const MODELS_MAX: usize = 64;
/// Pages of one model: 16 million tokens.
const PAGES_MAX: usize = 1 << 20;
/// GPUs of one node.
const GPUS_MAX: usize = 64;
/// Longest name of a GPU: the driver's have 96 bytes.
const GPU_NAME_BYTES_MAX: usize = 128;

/// A node's state.
#[derive(Debug, Default)]
pub(super) struct Picture {
    version: u64,
    pub(super) draining: bool,
    pub(super) gpus: Vec<GpuReading>,
    models: HashMap<String, Known>,
    /// By their whole names: the bases whose engines compute them, and what they are.
    adapters: HashMap<String, (String, String)>,
    /// Models that read and do not write: what they are, and what they have to do.
    readers: HashMap<String, (String, ReadLoad)>,
}

/// A model of a node.
#[derive(Debug)]
pub(super) struct Known {
    fingerprint: String,
    pub(super) load: Load,
    pages: HashSet<u64, Keyed>,
}

/// A model or an adapter that a node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) fingerprint: String,
    /// An adapter's base: its name, and what it is.
    pub(super) base: Option<(String, String)>,
    /// It reads and does not write.
    pub(super) reads: bool,
}

/// Why a picture is worth nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    /// A line is missing.
    #[error("version {found} follows {known}")]
    Gap {
        /// The last version that is known.
        known: u64,
        /// The one told now.
        found: u64,
    },
    /// It tells of a model that it has not told of.
    #[error("it tells of `{0}`, which nobody knows")]
    Unknown(String),
    /// It tells more than it can have.
    #[error("it tells of more than it can have")]
    TooMuch,
    /// No GPU does what it tells.
    #[error("what it tells of GPU {0} cannot be")]
    Gpu(u32),
}

impl Picture {
    /// The picture that a stream begins with.
    ///
    /// # Errors
    /// The line is no whole picture.
    pub(super) fn begin(state: State) -> Result<Self, Lost> {
        let mut picture = Self::default();
        match state {
            State::Snapshot(snapshot) => picture.replace(snapshot)?,
            State::Delta(Delta { version, .. }) | State::Beat(version) => {
                return Err(Lost::Gap { known: 0, found: version });
            }
        }
        Ok(picture)
    }

    /// Takes a line in; `true`: models may have come or gone.
    ///
    /// # Errors
    /// It does not follow from what is known.
    pub(super) fn apply(&mut self, state: State) -> Result<bool, Lost> {
        match state {
            State::Snapshot(snapshot) => {
                self.follows(snapshot.version)?;
                self.replace(snapshot)?;
                return Ok(true);
            }
            State::Beat(version) if version == self.version => {}
            State::Beat(found) => return Err(Lost::Gap { known: self.version, found }),
            State::Delta(delta) => {
                self.follows(delta.version)?;
                self.version = delta.version;
                self.draining = delta.draining;
                if let Some(gpus) = delta.gpus {
                    self.gpus = checked(gpus)?;
                }
                for changed in delta.models {
                    self.change(changed)?;
                }
                for (name, load) in delta.readers {
                    match self.readers.get_mut(&name) {
                        Some((_, known)) => *known = load,
                        None => return Err(Lost::Unknown(name)),
                    }
                }
            }
        }
        Ok(false)
    }

    fn follows(&self, found: u64) -> Result<(), Lost> {
        let known = self.version;
        if known.checked_add(1) == Some(found) { Ok(()) } else { Err(Lost::Gap { known, found }) }
    }

    fn replace(&mut self, snapshot: Snapshot) -> Result<(), Lost> {
        let Snapshot { version, draining, models, readers, gpus } = snapshot;
        let adapters: usize = models.iter().map(|model| model.adapters.len()).sum();
        if models.len() + readers.len() > MODELS_MAX || adapters > ADAPTERS_MAX {
            return Err(Lost::TooMuch);
        }
        let gpus = checked(gpus)?;
        *self = Self { version, draining, gpus, ..Self::default() };
        for Served { name, fingerprint, load, pages, adapters } in models {
            for adapter in adapters {
                let whole = format!("{name}:{}", adapter.name);
                self.adapters.insert(whole, (name.clone(), adapter.fingerprint));
            }
            let pages = pages.into_iter().take(PAGES_MAX).collect();
            self.models.insert(name, Known { fingerprint, load, pages });
        }
        for ServedReader { name, fingerprint, load } in readers {
            self.readers.insert(name, (fingerprint, load));
        }
        Ok(())
    }

    /// What an adapter of this whole name is, where it serves one.
    pub(super) fn adapter(&self, id: &str) -> Option<&str> {
        self.adapters.get(id).map(|(_, fingerprint)| fingerprint.as_str())
    }

    /// It serves this, whatever it does.
    pub(super) fn has(&self, (model, fingerprint): (&str, &str)) -> bool {
        self.find(model, fingerprint).is_some() || self.reader((model, fingerprint)).is_some()
    }

    /// What the model of this name that is this has to do, where it reads and does not write.
    pub(super) fn reader(&self, (name, fingerprint): (&str, &str)) -> Option<&ReadLoad> {
        let known = self.readers.get(name).filter(|(known, _)| known == fingerprint);
        known.map(|(_, load)| load)
    }

    /// What is known of the model of this name that is this; of an adapter's base. Also the name
    /// that the node tells its load under.
    pub(super) fn find(&self, name: &str, fingerprint: &str) -> Option<(&str, &Known)> {
        let own = self.models.get_key_value(name);
        let own = own.filter(|(_, known)| known.fingerprint == fingerprint);
        let beside = || {
            let (base, found) = self.adapters.get(name)?;
            self.models.get_key_value(base).filter(|_| found == fingerprint)
        };
        own.or_else(beside).map(|(name, known)| (name.as_str(), known))
    }

    /// All that it serves, bases before their adapters.
    pub(super) fn offers(&self) -> Vec<Offer> {
        let offer = |name: &String, fingerprint: &String, base| Offer {
            name: name.clone(),
            fingerprint: fingerprint.clone(),
            base,
            reads: false,
        };
        let models = self.models.iter().map(|(name, known)| offer(name, &known.fingerprint, None));
        let adapters = self.adapters.iter().filter_map(|(name, (base, fingerprint))| {
            let known = self.models.get(base)?;
            Some(offer(name, fingerprint, Some((base.clone(), known.fingerprint.clone()))))
        });
        let readers = self.readers.iter().map(|(name, (fingerprint, _))| Offer {
            reads: true,
            ..offer(name, fingerprint, None)
        });
        models.chain(adapters).chain(readers).collect()
    }

    fn change(&mut self, changed: Changed) -> Result<(), Lost> {
        let Changed { name, load, added, removed, all } = changed;
        let Some(known) = self.models.get_mut(&name) else { return Err(Lost::Unknown(name)) };
        known.load = load;
        if let Some(all) = all {
            known.pages.clear();
            known.pages.extend(all);
        }
        for page in &removed {
            known.pages.remove(page);
        }
        known.pages.extend(added);
        if known.pages.len() > PAGES_MAX { Err(Lost::TooMuch) } else { Ok(()) }
    }
}

/// Readings that can be.
fn checked(gpus: Vec<GpuReading>) -> Result<Vec<GpuReading>, Lost> {
    if gpus.len() > GPUS_MAX {
        return Err(Lost::TooMuch);
    }
    let plain =
        |name: &str| name.len() <= GPU_NAME_BYTES_MAX && !name.chars().any(char::is_control);
    let can_be = |gpu: &GpuReading| {
        plain(&gpu.uuid)
            && plain(&gpu.name)
            && gpu.busy_percent.is_none_or(|busy| busy <= 100)
            && gpu.memory_used_bytes.unwrap_or(0) <= gpu.memory_total_bytes.unwrap_or(u64::MAX)
    };
    match gpus.iter().find(|gpu| !can_be(gpu)) {
        Some(gpu) => Err(Lost::Gpu(gpu.index)),
        None => Ok(gpus),
    }
}

impl Known {
    /// Pages of a chain that are held, from its beginning on. A chain's pages go from its end, so
    /// what is held of it is its beginning: a search by halves finds its end.
    pub(super) fn held(&self, chain: &[u64]) -> usize {
        if self.pages.is_empty() || chain.first().is_none_or(|first| !self.pages.contains(first)) {
            return 0;
        }
        chain.partition_point(|page| self.pages.contains(page))
    }
}

/// A hasher for numbers that are hashes already. Tokens make them, and callers make tokens: the
/// key, drawn once, keeps anybody from aiming many of them at one place.
#[derive(Debug, Clone)]
struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = Mix;

    fn build_hasher(&self) -> Mix {
        Mix(self.0)
    }
}

/// See [`Keyed`].
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ self.0) * u128::from(self.0);
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        self.0 = u64::try_from(low ^ high).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::protocol::Adapter;

    fn served(pages: &[u64]) -> Snapshot {
        let (name, fingerprint) = ("m".to_owned(), "f".to_owned());
        let (load, pages) = (Load::default(), pages.to_vec());
        let served = Served { name, fingerprint, load, pages, adapters: Vec::new() };
        Snapshot { version: 7, models: vec![served], ..Snapshot::default() }
    }

    fn delta(version: u64, added: &[u64], removed: &[u64]) -> State {
        let (added, removed) = (added.to_vec(), removed.to_vec());
        let load = Load { waiting: 3, ..Load::default() };
        let changed = Changed { name: "m".to_owned(), load, added, removed, all: None };
        State::Delta(Delta {
            version,
            draining: version > 8,
            models: vec![changed],
            ..Delta::default()
        })
    }

    #[test]
    fn lines_follow_each_other() {
        let mut picture = Picture::begin(State::Snapshot(served(&[1, 2]))).expect("a picture");
        let held = |picture: &Picture| picture.models["m"].held(&[1, 2, 3, 4]);
        assert_eq!(held(&picture), 2);
        picture.apply(State::Beat(7)).expect("a beat");
        picture.apply(delta(8, &[3], &[])).expect("the next");
        assert_eq!((held(&picture), picture.models["m"].load.waiting), (3, 3));
        picture.apply(delta(9, &[], &[3, 2, 9])).expect("the next");
        assert_eq!((held(&picture), picture.draining), (1, true));
        assert!(
            picture.apply(State::Snapshot(Snapshot { version: 10, ..served(&[]) })).expect("whole")
        );
        assert_eq!(held(&picture), 0);
    }

    #[test]
    fn gaps_are_seen() {
        for line in
            [State::Beat(8), delta(9, &[], &[]), delta(7, &[], &[]), State::Snapshot(served(&[]))]
        {
            let mut picture = Picture::begin(State::Snapshot(served(&[1]))).expect("a picture");
            assert!(matches!(picture.apply(line), Err(Lost::Gap { known: 7, .. })));
        }
        assert!(Picture::begin(State::Beat(1)).is_err());
        let mut picture = Picture::begin(State::Snapshot(served(&[1]))).expect("a picture");
        let State::Delta(mut other) = delta(8, &[], &[]) else { unreachable!() };
        other.models[0].name = "x".to_owned();
        assert_eq!(picture.apply(State::Delta(other)), Err(Lost::Unknown("x".to_owned())));
        let all = State::Snapshot(Snapshot {
            models: vec![served(&[]).models[0].clone(); 65],
            ..Snapshot::default()
        });
        assert!(matches!(Picture::begin(all), Err(Lost::TooMuch)));
    }

    #[test]
    fn adapters_are_found_with_the_load_and_the_pages_of_their_base() {
        let adapter = |name: &str| Adapter { name: name.to_owned(), fingerprint: "a".to_owned() };
        let mut all = served(&[1, 2]);
        all.models[0].adapters = vec![adapter("x")];
        let mut picture = Picture::begin(State::Snapshot(all.clone())).expect("a picture");
        picture.apply(delta(8, &[3], &[])).expect("the next");
        let (name, known) = picture.find("m:x", "a").expect("the adapter");
        assert_eq!((name, known.held(&[1, 2, 3, 4]), known.load.waiting), ("m", 3, 3));
        for (name, fingerprint) in [("m:x", "f"), ("m", "a"), ("m:y", "a"), ("x", "a")] {
            assert!(picture.find(name, fingerprint).is_none(), "{name} {fingerprint}");
        }
        let base = Some(("m".to_owned(), "f".to_owned()));
        let offers: Vec<_> = picture.offers().into_iter().map(|o| (o.name, o.base)).collect();
        assert_eq!(offers, [("m".to_owned(), None), ("m:x".to_owned(), base)]);
        all.models[0].adapters = vec![adapter("x"); ADAPTERS_MAX + 1];
        assert_eq!(Picture::begin(State::Snapshot(all)).err(), Some(Lost::TooMuch));
    }

    #[test]
    fn models_that_read_are_told_apart_from_those_that_write() {
        let load = |tokens| ReadLoad { tokens, ..ReadLoad::default() };
        let reader = |name: &str| ServedReader {
            name: name.to_owned(),
            fingerprint: "r".to_owned(),
            load: load(1),
        };
        let whole = |readers| State::Snapshot(Snapshot { readers, ..served(&[]) });
        let mut picture = Picture::begin(whole(vec![reader("e")])).expect("a picture");
        let next = |version, name: &str| {
            let readers = vec![(name.to_owned(), load(5))];
            State::Delta(Delta { version, readers, ..Delta::default() })
        };
        assert_eq!(picture.apply(next(8, "e")), Ok(false));
        assert_eq!(picture.reader(("e", "r")).map(|load| load.tokens), Some(5));
        for (name, known) in [(("e", "r"), true), (("e", "f"), false), (("m", "r"), false)] {
            assert_eq!((picture.has(name), picture.reader(name).is_some()), (known, known));
        }
        assert!(picture.has(("m", "f")) && picture.find("e", "r").is_none());
        let offers = picture.offers().into_iter().map(|offer| (offer.name, offer.reads));
        assert_eq!(offers.collect::<Vec<_>>(), [("m".to_owned(), false), ("e".to_owned(), true)]);
        assert_eq!(picture.apply(next(9, "m")), Err(Lost::Unknown("m".to_owned())));
        let many = (0..64).map(|number| reader(&number.to_string())).collect();
        assert_eq!(
            Picture::begin(whole(many)).err(),
            Some(Lost::TooMuch),
            "one more than there can be"
        );
    }

    #[test]
    fn what_no_gpu_does_is_not_believed() {
        let gpu = || GpuReading { memory_total_bytes: Some(10), ..GpuReading::default() };
        let told = |gpus: Vec<GpuReading>| {
            let whole = State::Snapshot(Snapshot { gpus: gpus.clone(), ..served(&[]) });
            let begun = Picture::begin(whole).map(|picture| picture.gpus);
            let mut picture = Picture::begin(State::Snapshot(served(&[]))).expect("a picture");
            let next = Delta { version: 8, gpus: Some(gpus), ..Delta::default() };
            let changed = picture.apply(State::Delta(next)).map(|_| picture.gpus);
            assert_eq!(begun, changed);
            changed
        };
        let most = GpuReading { busy_percent: Some(100), memory_used_bytes: Some(10), ..gpu() };
        let all = vec![most; GPUS_MAX];
        assert_eq!(told(all.clone()), Ok(all));
        assert_eq!(told(vec![gpu(); GPUS_MAX + 1]), Err(Lost::TooMuch));
        for wrong in [
            GpuReading { busy_percent: Some(101), ..gpu() },
            GpuReading { memory_used_bytes: Some(11), ..gpu() },
            GpuReading { uuid: "x".repeat(GPU_NAME_BYTES_MAX + 1), ..gpu() },
            GpuReading { name: "two\nlines".to_owned(), ..gpu() },
        ] {
            assert_eq!(told(vec![gpu(), wrong.clone()]), Err(Lost::Gpu(0)), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_held_is_found_from_the_beginning() {
        let chain: Vec<u64> =
            (1..=2048).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        for count in [0, 1, 2, 1000, 2047, 2048] {
            let picture =
                Picture::begin(State::Snapshot(served(&chain[..count]))).expect("a picture");
            assert_eq!(picture.models["m"].held(&chain), count);
            assert_eq!(picture.models["m"].held(&[]), 0);
        }
    }

    /// What a gateway does for each request, but for its locks: nodes that hold all, half or none
    /// of a prompt of 32,768 tokens.
    #[test]
    fn a_choice_takes_no_time_however_many_nodes_there_are() {
        use crate::cluster::choose::{Candidate, choose};
        use crate::cluster::look::look;
        use crate::digest::mixed;
        let pages = |from: u64, count: u64| (from..from + count).map(mixed);
        let chain: Vec<u64> = pages(1, 2048).collect();
        // Code that is not optimised is measured too, as far as it shows what grows with the fleet.
        let (most_us, rounds) = if cfg!(debug_assertions) { (1_000, 100_u32) } else { (30, 2_000) };
        for count in [100, 1000] {
            let node = |node: u64| {
                let own = pages(1_000_000 * (node + 1), 6144);
                let held: Vec<u64> = own.chain(pages(1, 1024 * (node % 3))).collect();
                (mixed(node), Picture::begin(State::Snapshot(served(&held))).expect("a picture"))
            };
            let mut nodes: Vec<(u64, Picture)> = (0..count).map(node).collect();
            nodes.sort_by_key(|(number, _)| *number);
            let choice = |round: u64| {
                let looked = look(
                    &nodes,
                    |(number, _)| *number,
                    (&chain, mixed(round)),
                    |(number, picture)| {
                        let held = u64::try_from(picture.models["m"].held(&chain)).expect("small");
                        let (number, held) = (*number, held * 16);
                        Some(Candidate { number, held, open_max: 100, ..Candidate::default() })
                    },
                );
                let candidates: Vec<Candidate> = looked.into_iter().map(|(_, one)| one).collect();
                assert_eq!(choose(&candidates, 32_768, round).expect("one").held, 32_768);
            };
            // The fastest of ten parts: others work on this machine too.
            let part = u64::from(rounds / 10);
            let parts = (0..10).map(|at| {
                let begun = std::time::Instant::now();
                (at * part..(at + 1) * part).for_each(choice);
                begun.elapsed() / (rounds / 10)
            });
            let each = parts.min().expect("ten");
            println!("a choice among {count} nodes takes {each:?}");
            assert!(each < std::time::Duration::from_micros(most_us), "{each:?}");
        }
    }
}
