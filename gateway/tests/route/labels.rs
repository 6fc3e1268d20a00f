//! Who never sees what: every label, every kind of pool, whatever fails here and there, in every
//! dialect. Each provider itself looks whether it may see what it is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use govern::policy::Label;
use serde_json::json;

use crate::caller::{Answer, Inbound, open, provider, request, send, until};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::speech::{answer, chunk, end, good, half, opening};
use crate::upstream::{Seen, Step, Upstream};

/// How the model of this server does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Here {
    Well,
    Full,
    /// Since before the first request.
    Dead,
    /// In the first request.
    Dies,
    /// A step does not end, and after a moment that is known.
    Hangs,
}

/// How the providers do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum There {
    Well,
    Fail,
    Busy,
    /// Streams end behind their second token, and whole answers break off.
    Cut,
    /// Every other one of them says nothing.
    Silent,
}

const ALL_THERE: [There; 5] = [There::Well, There::Fail, There::Busy, There::Cut, There::Silent];

const WORLDS: [(Here, There); 11] = [
    (Here::Well, There::Well),
    (Here::Full, There::Well),
    (Here::Dead, There::Well),
    (Here::Dies, There::Well),
    (Here::Hangs, There::Well),
    (Here::Well, There::Fail),
    (Here::Well, There::Cut),
    (Here::Well, There::Silent),
    (Here::Dead, There::Cut),
    (Here::Full, There::Busy),
    (Here::Hangs, There::Silent),
];

/// Kinds of the four providers, each of which is another one in each world.
const KINDS: [&str; 5] = ["compatible", "anthropic", "gemini", "vllm", "bedrock"];

/// A pool: its name, the labels that its providers may see, whether the model here is in it, and
/// what its section says. `@` stands for what makes names of models this pool's and a label's own,
/// and `#` for what makes those of pools so: nobody is left alone for what became of others.
struct Pool {
    name: &'static str,
    there: &'static [Label],
    here: bool,
    section: &'static str,
}

const fn pool(
    name: &'static str,
    there: &'static [Label],
    here: bool,
    section: &'static str,
) -> Pool {
    Pool { name, there, here, section }
}

use Label::{Confidential, Internal, Public, Restricted};

const MIXED: &str = "targets = [\"public/m@\", \"org/fake\", \"internal/m@\", \"confidential/m@\"]";

/// Targets of all labels in all roles.
static POOLS: [Pool; 15] = [
    pool(
        "rising",
        &Label::ALL,
        false,
        "targets = [\"public/m@\", \"internal/m@\", \"confidential/m@\", \"restricted/m@\"]",
    ),
    pool(
        "falling",
        &Label::ALL,
        false,
        "hedge_after = \"50ms\"\n\
         targets = [\"restricted/m@\", \"confidential/m@\", \"internal/m@\", \"public/m@\"]",
    ),
    pool(
        "home",
        &Label::ALL,
        true,
        "targets = [\"org/fake\"]\nfallback = [\"public/m@\", \"rising#\"]\n\
         overflow = { to = [\"public/o@\", \"internal/o@\"], when = { queue = 1 } }",
    ),
    pool("pair", &[Public], true, "targets = [\"org/fake\", \"public/m@\"]"),
    pool(
        "pair-abroad-first",
        &[Public],
        true,
        "targets = [\"public/m@\", \"org/fake\"]\nhedge_after = \"50ms\"",
    ),
    pool(
        "hurried",
        &[Public, Internal],
        true,
        "targets = [\"org/fake\", \"public/m@\", \"internal/m@\"]\nhedge_after = \"50ms\"",
    ),
    pool(
        "copied",
        &[],
        true,
        "targets = [\"org/fake\"]\n\
         mirror = { to = \"internal/copied@\", share = 1.0, key = \"MIRROR\" }",
    ),
    pool(
        "continued",
        &[Restricted, Public],
        true,
        "targets = [\"restricted/m@\", \"public/m@\", \"org/fake\"]\nbroken_stream = \"continue\"",
    ),
    pool(
        "continued-and-hurried",
        &[Public, Internal],
        true,
        "targets = [\"internal/m@\", \"public/m@\", \"org/fake\"]\nbroken_stream = \"continue\"\n\
         hedge_after = \"50ms\"",
    ),
    pool("by-weight", &[Public, Internal, Confidential], true, "strategy = \"weighted\"\nMIXED"),
    pool("by-latency", &[Public, Internal, Confidential], true, "strategy = \"latency\"\nMIXED"),
    pool("by-prefix", &[Public, Internal, Confidential], true, "strategy = \"prefix\"\nMIXED"),
    pool(
        "by-rule",
        &[Public],
        true,
        "targets = [\"public/m@\", \"internal/m@\", \"org/fake\"]\n\
         rules = [{ tools = false, to = [\"public/m@\", \"org/fake\"] }]",
    ),
    pool(
        "lowered",
        &[Public],
        false,
        "targets = [\"public/m@\", { target = \"restricted/lowered@\", max_label = \"public\" }]",
    ),
    pool(
        "abroad",
        &[Public, Internal],
        false,
        "targets = [\"internal/m@\"]\nfallback = [\"public/m@\"]\nhedge_after = \"50ms\"",
    ),
];

impl Pool {
    /// Its section, of names that are this label's own.
    fn section(&self, label: Label, mirror: &str) -> String {
        let section = self.section.replace("MIXED", MIXED).replace("MIRROR", mirror);
        // As many tries as it has targets.
        let section = format!("[pools.{}#]\nattempts = 9\n{section}\n", self.name);
        let section = section.replace('@', &format!("-{}#", self.name));
        section.replace('#', &format!("-{}", label.name()))
    }

    /// Somebody may answer a request of this label.
    fn has_anybody(&self, label: Label) -> bool {
        self.here || self.there.iter().any(|most| label <= *most)
    }

    /// Somebody who may answer a request of this label is well.
    fn has_somebody_well(&self, label: Label, (here, there): (Here, There)) -> bool {
        let mut may = self.there.iter().filter(|most| label <= **most);
        self.here && here == Here::Well || may.any(|most| !is_ill(*most, there))
    }
}

/// Whether the provider of this label is ill.
fn is_ill(own: Label, there: There) -> bool {
    match there {
        There::Well => false,
        There::Fail | There::Busy | There::Cut => true,
        There::Silent => [Public, Confidential].contains(&own),
    }
}

/// What the providers have seen.
#[derive(Default)]
struct Watch {
    /// What was too secret for who saw it.
    wrong: Mutex<Vec<String>>,
    copies: AtomicUsize,
}

/// A request says how secret it is and how providers do that are shown it.
fn words(label: Label, there: There) -> String {
    format!("this is {} and meets {there:?}.", label.name())
}

/// A provider that may see so much looks at a request, and does as that says.
fn looks(seen: &Seen, own: Label, watch: &Watch) -> Vec<Step> {
    let text = format!("{} {}", seen.path, String::from_utf8_lossy(&seen.body));
    let all = Label::ALL.into_iter().flat_map(|l| ALL_THERE.map(|there| (l, there)));
    let mut found = all.filter(|(label, there)| text.contains(&words(*label, *there)));
    let (label, there) = found.next().expect("each request bears its label");
    let most = if text.contains("lowered") { Public } else { own };
    if label > most {
        watch.wrong.lock().expect("no panic").push(format!("{} saw {text}", own.name()));
    }
    watch.copies.fetch_add(usize::from(text.contains("copied")), Ordering::SeqCst);
    if !is_ill(own, there) {
        return good(seen, own.name());
    }
    match there {
        There::Busy => answer(429, "retry-after: 7\r\n", b"{}"),
        There::Silent => vec![Step::Silence],
        There::Cut if seen.streams() => {
            vec![opening(seen), chunk(half(seen.tongue(), "cut")), end()]
        }
        There::Cut => vec![Step::Reset],
        There::Well | There::Fail => answer(500, "", b"{}"),
    }
}

/// A gateway, and how things are for it.
struct World {
    here: Here,
    there: There,
    fake: Fake,
    /// Requests that fill the model here.
    _held: Vec<Response<Body>>,
}

/// Keys of each label, and of whoever pays for copies.
struct Ring {
    keys: Vec<String>,
    mirror: String,
}

impl Ring {
    async fn new(house: &House) -> Self {
        let plain = house.gateway("", Setup::default());
        let mut keys = Vec::new();
        for label in Label::ALL {
            let policy = json!({ "label": label.name() });
            keys.push(house.key(&plain.router, label.name(), policy).await);
        }
        let mirror = house.key(&plain.router, "mirror", json!({ "label": "public" })).await;
        Self { keys, mirror }
    }

    fn of(&self, label: Label) -> &str {
        let at = Label::ALL.iter().position(|own| *own == label).expect("one of them");
        &self.keys[at]
    }
}

impl World {
    async fn new(house: &House, number: usize, ring: &Ring, ups: &[Upstream]) -> Self {
        let (here, there) = WORLDS[number];
        let mut config = String::new();
        for (at, (label, upstream)) in Label::ALL.iter().zip(ups).enumerate() {
            let kind = KINDS[(number + at) % KINDS.len()];
            let more = format!(
                "max_label = \"{}\"\nlost_fields = \"drop\"\nfirst_byte_timeout = \"1s\"\n",
                label.name()
            );
            config += &provider(label.name(), kind, &upstream.url, &more);
        }
        for label in Label::ALL {
            config.extend(POOLS.iter().map(|pool| pool.section(label, &ring.mirror)));
        }
        let setup = match here {
            // Slow enough to be full until the end.
            Here::Full => Setup {
                rows: 1,
                waiting: 1,
                endless: true,
                pace: Duration::from_millis(30),
                ..Setup::default()
            },
            Here::Dead | Here::Dies => Setup { fail_at: Some(0), ..Setup::default() },
            Here::Hangs => Setup { hangs: Some(Duration::from_millis(300)), ..Setup::default() },
            Here::Well => Setup::default(),
        };
        let fake = house.gateway(&config, setup);
        let held = prepare(&fake, here, ring.of(Public)).await;
        Self { here, there, fake, _held: held }
    }
}

/// Makes the model here what it is to be; what keeps it so.
async fn prepare(fake: &Fake, here: Here, key: &str) -> Vec<Response<Body>> {
    let mut held = Vec::new();
    match here {
        Here::Full => {
            let model = fake.models.first().expect("the fake");
            for waiting in 0..2 {
                let (path, mut body) = Inbound::Chat.request("org/fake", true, "hi");
                body["max_tokens"] = 4_000.into();
                held.push(open(&fake.router, request(key, &path, &body)).await);
                until("it waits", || model.engine.stats().waiting == waiting).await;
            }
        }
        Here::Dead => {
            let (path, body) = Inbound::Chat.request("org/fake", false, "hi");
            let dead = send(&fake.router, request(key, &path, &body)).await;
            assert!(dead.status >= 500, "{}", dead.text());
        }
        Here::Hangs => fake.gate.close(),
        Here::Well | Here::Dies => {}
    }
    held
}

/// One request.
#[derive(Clone, Copy)]
struct Case<'a> {
    world: &'a World,
    pool: &'static Pool,
    label: Label,
    inbound: Inbound,
    streams: bool,
}

impl Case<'_> {
    /// Asks: what came of it, or what is wrong with that.
    async fn run(self, ring: &Ring, watch: &Watch) -> Result<&'static str, String> {
        let Self { world: World { here, there, fake, .. }, pool, label, inbound, streams } = self;
        let name = format!("{}-{}", pool.name, label.name());
        let (path, body) = inbound.request(&name, streams, &words(label, *there));
        let begun = Instant::now();
        let got = send(&fake.router, request(ring.of(label), &path, &body)).await;
        let told = |what: &str| {
            let case = format!("{here:?} here, {there:?} there, {name}, {inbound:?}");
            let (status, route, text) = (got.status, got.route(), got.text());
            format!("{what}: {case}, streams {streams}: {status} [{route}] {text}")
        };
        let wrong = watch.wrong.lock().expect("no panic").pop();
        if let Some(wrong) = wrong {
            return Err(told(&wrong));
        }
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(told("it took long"));
        }
        self.judge(&got).map_err(told)
    }

    /// Whether the answer is right.
    fn judge(self, got: &Answer) -> Result<&'static str, &'static str> {
        let Self { world: World { here, there, .. }, pool, label, inbound, streams } = self;
        let text = got.text();
        if !pool.has_anybody(label) {
            // That is said, with its reason, whatever else is wrong.
            let most = pool.there.iter().max().expect("it has providers");
            let said = text.contains(&format!("may see {} at most", most.name()));
            return if got.status == 403 && said { Ok("denied") } else { Err("not denied") };
        }
        if got.status != 200 {
            let well = pool.has_somebody_well(label, (*here, *there));
            let passes = [429, 500, 502, 503, 504].contains(&got.status);
            return if passes && !well { Ok("failed") } else { Err("somebody could answer") };
        }
        let by = got.route().split(['/', ';']).next().unwrap_or_default();
        let most = Label::ALL.into_iter().find(|most| most.name() == by);
        // A target may be trusted less than its provider.
        let lowered = got.route().contains("/lowered");
        match most.map(|most| if lowered { Public } else { most }) {
            Some(most) if label > most || !pool.there.contains(&most) => {
                return Err("answered by somebody who may not");
            }
            None if by != "org" || !pool.here => return Err("answered by nobody"),
            _ => {}
        }
        if !streams {
            return if text.contains("Hello") { Ok("whole") } else { Err("no answer") };
        }
        let (ends, breaks) = (inbound.ends(&text), inbound.breaks(&text));
        match (ends, breaks) {
            (true, false) if text.contains("\"continued_by\":\"org/fake\"") => Ok("continued"),
            (true, false) => Ok("streamed"),
            // Nobody else could be asked when it began.
            (false, true) if by == "org" && [Here::Dies, Here::Hangs].contains(here) => Ok("broke"),
            (false, true) if *there == There::Cut => Ok("broke"),
            _ => Err("no end, or a wrong one"),
        }
    }

    /// It is copied to who may see it.
    fn is_copied(self) -> bool {
        self.pool.name == "copied" && self.label <= Internal
    }
}

/// All of them; each world meets each pool and label, and each pool all dialects.
fn cases(worlds: &[World]) -> Vec<Case<'_>> {
    let mut all = Vec::new();
    for (at, pool) in POOLS.iter().enumerate() {
        for (number, label) in Label::ALL.into_iter().enumerate() {
            for (turn, streams) in [false, true].into_iter().enumerate() {
                for (place, world) in worlds.iter().enumerate() {
                    let inbound = Inbound::ALL[(at + number + turn + place) % Inbound::ALL.len()];
                    all.push(Case { world, pool, label, inbound, streams });
                }
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_what_is_too_secret() {
    let house = House::new().await;
    let watch = Arc::new(Watch::default());
    let mut ups = Vec::new();
    for own in Label::ALL {
        let watch = Arc::clone(&watch);
        ups.push(Upstream::start(move |seen| looks(seen, own, &watch)).await);
    }
    let ring = Ring::new(&house).await;
    let mut worlds = Vec::new();
    for number in 0..WORLDS.len() {
        worlds.push(World::new(&house, number, &ring, &ups).await);
    }
    let cases = cases(&worlds);
    let copies = cases.iter().filter(|case| case.is_copied()).count();
    let asked = cases.into_iter().map(|case| case.run(&ring, &watch));
    let all: Vec<_> = stream::iter(asked).buffer_unordered(24).collect().await;
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for came in all {
        match came {
            Ok(what) => *tally.entry(what).or_default() += 1,
            Err(what) => wrong.push(what),
        }
    }
    // Copies are made on the side. Who was to have none would have had it long before the last.
    until("the copies are made", || watch.copies.load(Ordering::SeqCst) >= copies).await;
    worlds.iter().for_each(|world| world.fake.gate.open());
    wrong.append(&mut watch.wrong.lock().expect("no panic"));
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(watch.copies.load(Ordering::SeqCst), copies);
    // Everything was met, and there was something to look at.
    println!("{tally:?}");
    for (what, least) in
        [("whole", 200), ("streamed", 200), ("failed", 50), ("denied", 50), ("broke", 5)]
    {
        assert!(tally.get(what).is_some_and(|count| *count >= least), "{what}: {tally:?}");
    }
    assert!(tally.get("continued").is_some_and(|count| *count > 0), "{tally:?}");
    assert!(ups.iter().all(|upstream| upstream.count() > 50), "each of them was asked");
}
