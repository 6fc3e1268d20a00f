//! The others that share the database: saying that this gateway lives, hearing what they have
//! changed, giving back what they want, and settling those that are lost.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::{Governor, OpenError, Settings, Shared, Sharing};
use crate::journal::JournalError;
use crate::ledger::writer::{Job, Note, Peer};
use crate::store::slices::{CHANNEL, Lost, Member, WISH};
use crate::store::{Kind, Store, StoreError};
use crate::{Id, id};

/// Longest wait for a connection that hears.
const CONNECT: Duration = Duration::from_secs(5);

/// This gateway among others.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) peer: Peer,
    sharing: Sharing,
    url: String,
    /// Where [`Peers::until_us`] counts from.
    begun: Instant,
    /// Until then its word holds, by this machine's clock: microseconds.
    until_us: AtomicU64,
    /// The last wish that was looked at, by the database's clock.
    wished: AtomicI64,
    /// It was taken for lost with so many operations open, which count from now on.
    late: Option<usize>,
}

impl Peers {
    /// Comes in, where the database is one that gateways share. `left`: how many operations its
    /// journal has open.
    pub(super) async fn come_in(
        store: &Store,
        settings: &Settings,
        left: usize,
    ) -> Result<Option<Self>, OpenError> {
        if store.kind() == Kind::Sqlite {
            return Ok(None);
        }
        let Settings { sharing, gateway, url, journal, .. } = settings;
        let (id, fresh) = journal_id(journal).map_err(JournalError::Io)?;
        let member = Member {
            id,
            name: gateway.clone(),
            token: id::random_letters(20),
            lease: sharing.lease,
        };
        let begun = Instant::now();
        let known = store.come_in(&member, false).await?;
        let late = (!known && !fresh && left > 0).then_some(left);
        let peer = Peer {
            member,
            revision: Arc::default(),
            told: Arc::default(),
            look: Arc::default(),
            renew: Arc::default(),
        };
        let peers = Self {
            peer,
            sharing: sharing.clone(),
            url: url.clone(),
            begun,
            until_us: AtomicU64::new(0),
            wished: AtomicI64::new(0),
            late,
        };
        peers.holds_from(begun);
        Ok(Some(peers))
    }

    /// Nobody knows whether this gateway lives: others may settle what it has leased.
    pub(crate) fn lapsed(&self) -> bool {
        self.begun.elapsed().as_micros() >= u128::from(self.until_us.load(Ordering::Acquire))
    }

    /// Its word was given at this time or later. A sixth of it is left for clocks that differ.
    fn holds_from(&self, at: Instant) {
        let until = at.saturating_duration_since(self.begun) + self.sharing.lease * 5 / 6;
        let until = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.until_us.store(until, Ordering::Release);
    }

    fn revision(&self) -> i64 {
        self.peer.revision.load(Ordering::Acquire)
    }
}

/// A name for a journal, kept beside it: whoever has the journal has its leases. `true`: it is new.
fn journal_id(journal: &Path) -> io::Result<(String, bool)> {
    let mut beside = journal.as_os_str().to_owned();
    beside.push(".id");
    if let Ok(text) = std::fs::read_to_string(&beside)
        && let Some(id) = Id::of(text.trim())
    {
        return Ok((id.to_string(), false));
    }
    let id = format!("journal_{}", id::random_letters(20));
    let mut file = File::create(&beside)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    Ok((id, true))
}

/// What woke this gateway up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Time, or that something has changed.
    Change,
    /// That somebody goes short.
    Wish,
}

impl Governor {
    /// Goes on as one among others: what earlier processes of this journal had leased is given
    /// back, and what others have changed since the documents were read is taken over.
    pub(super) async fn join(&self, revision: i64) -> Result<(), OpenError> {
        let Some(peers) = &self.shared.peers else { return Ok(()) };
        peers.peer.revision.store(revision, Ordering::Release);
        self.shared.store.settle_slices(&peers.peer.member).await?;
        if let Some(operations) = peers.late {
            self.is_back(peers, operations);
        }
        self.renew().await;
        let turn = self.shared.editing.lock().await;
        let behind = self.catch_up().await?;
        drop(turn);
        peers.peer.renew.store(behind, Ordering::Release);
        let weak = Arc::downgrade(&self.shared);
        tokio::spawn(run(weak, peers.peer.look.clone(), peers.sharing.clone(), peers.url.clone()));
        Ok(())
    }

    /// The right to edit among all gateways, with all changes of the others taken over. Only for
    /// whoever has the turn in this process.
    pub(super) async fn turn(
        &self,
    ) -> Result<Option<sqlx::Transaction<'static, sqlx::Any>>, StoreError> {
        if self.shared.peers.is_none() {
            return Ok(None);
        }
        let turn = self.shared.store.turn().await?;
        self.catch_up().await?;
        Ok(Some(turn))
    }

    /// The revision that edits are judged on, where others may edit too.
    pub(super) fn judged_on(&self) -> Option<i64> {
        self.shared.peers.as_ref().map(Peers::revision)
    }

    /// Edits of this gateway were made, so many; others have to hear that they hold here.
    pub(super) fn edited(&self, count: usize) {
        if let Some(Peers { peer, .. }) = &self.shared.peers {
            peer.revision.fetch_add(i64::try_from(count).unwrap_or(0), Ordering::AcqRel);
            peer.renew.store(true, Ordering::Release);
            peer.look.notify_one();
        }
    }

    /// Takes over what others have changed. Only for whoever has the turn in this process.
    async fn catch_up(&self) -> Result<bool, StoreError> {
        let Some(peers) = &self.shared.peers else { return Ok(false) };
        let (known, latest) = (peers.revision(), self.shared.store.revision().await?);
        if latest <= known {
            return Ok(false);
        }
        let (changes, last) = self.shared.store.documents_since(known).await?;
        for change in &changes {
            if let Err(error) = self.take_over(change).await {
                tracing::error!(%error, id = %change.id, "another gateway's change is not understood");
            }
        }
        peers.peer.revision.store(last.max(latest), Ordering::Release);
        Ok(true)
    }

    /// Looks at what others have done. `true`: they wait for a word of this one.
    async fn look(&self, peers: &Peers, heard: Heard) -> Result<bool, StoreError> {
        let Peers { peer, sharing, wished, .. } = peers;
        let news = self.shared.store.news(&peer.member, sharing.lost).await?;
        let mut answer = peer.renew.swap(false, Ordering::AcqRel);
        if news.revision > peers.revision() {
            let _turn = self.shared.editing.lock().await;
            answer |= self.catch_up().await?;
        }
        let before = wished.load(Ordering::Acquire);
        if news.wished > before {
            let keys = self.shared.store.wishes(&peer.member, before).await?;
            wished.store(news.wished, Ordering::Release);
            answer |= self.shared.books.wished(&keys);
        }
        if news.lost {
            for lost in self.shared.store.lost(&peer.member, sharing.lost).await? {
                let note = self.lost(&lost);
                self.shared.push(Job::Lost { lost, note });
            }
        }
        if heard == Heard::Change {
            self.shared.books.next_round(news.others);
            peer.told.notify_waiters();
        }
        Ok(answer)
    }

    fn lost(&self, lost: &Lost) -> Note {
        let Lost { id, name, until, slices, granted } = lost;
        tracing::warn!(gateway = %name, leased = %granted, "a gateway is lost; its leases are free");
        let body = json!({
            "action": "gateway_lost", "gateway": name, "journal": id, "until": until,
            "slices": slices, "nano_usd": granted,
        });
        self.about_gateways(body.to_string())
    }

    /// What was free for others is spent here all the same: a budget may be exceeded by that much.
    fn is_back(&self, peers: &Peers, operations: usize) {
        let name = &peers.peer.member.name;
        tracing::warn!(operations, "this gateway was taken for lost, and is back");
        let body = json!({
            "action": "gateway_back", "gateway": name, "journal": peers.peer.member.id,
            "operations": operations,
        });
        self.note(self.about_gateways(body.to_string()));
    }

    fn about_gateways(&self, body: String) -> Note {
        Note { at: self.now(), kind: "gateway".to_owned(), organisation: String::new(), body }
    }

    /// Says that this gateway lives, and gives back what lies idle.
    async fn renew(&self) {
        let Some(peers) = &self.shared.peers else { return };
        let (begun, revision) = (Instant::now(), peers.revision());
        let (done, renewed) = oneshot::channel();
        self.shared.books.renew(
            self.now(),
            |keeps| {
                self.shared.push(Job::Renew { revision, keeps, done });
            },
            |question| self.shared.ask(question),
        );
        match timeout(peers.sharing.lease, renewed).await {
            Ok(Ok(Ok(true))) => peers.holds_from(begun),
            Ok(Ok(Ok(false))) => self.come_back(peers).await,
            Ok(Ok(Err(error))) => tracing::error!(%error, "this gateway's word is not renewed"),
            Ok(Err(_)) | Err(_) => tracing::error!("this gateway's word is not renewed in time"),
        }
    }

    /// This gateway was taken for lost while it lived, or another process has its journal.
    async fn come_back(&self, peers: &Peers) {
        peers.until_us.store(0, Ordering::Release);
        self.shared.books.void();
        match self.shared.store.come_in(&peers.peer.member, true).await {
            Ok(_) => {
                self.is_back(peers, usize::try_from(self.open_operations()).unwrap_or(0));
                peers.peer.renew.store(true, Ordering::Release);
                peers.peer.look.notify_one();
            }
            Err(error) => tracing::error!(%error, "this gateway grants no money of hard budgets"),
        }
    }
}

/// Lives as long as the governor.
async fn run(shared: Weak<Shared>, look: Arc<Notify>, sharing: Sharing, url: String) {
    let (mut listener, mut tried): (Option<PgListener>, Option<Instant>) = (None, None);
    let mut renewed = Instant::now();
    loop {
        if listener.is_none() && tried.is_none_or(|at| at.elapsed() >= sharing.renew) {
            listener = timeout(CONNECT, listen(&url)).await.ok().and_then(Result::ok);
            tried = Some(Instant::now());
            // What was said before nobody has heard.
            look.notify_one();
        }
        let heard = tokio::select! {
            () = sleep(sharing.poll) => Heard::Change,
            () = look.notified() => Heard::Change,
            heard = hear(&mut listener) => heard,
        };
        let Some(shared) = shared.upgrade() else { return };
        let governor = Governor { shared };
        let Some(peers) = &governor.shared.peers else { return };
        let asked = governor.look(peers, heard).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what other gateways do is not known");
            false
        });
        if asked || renewed.elapsed() >= sharing.renew {
            governor.renew().await;
            renewed = Instant::now();
        }
    }
}

async fn listen(url: &str) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// The next word of another gateway. Where nothing is heard, the database is looked at from time to
/// time.
async fn hear(listener: &mut Option<PgListener>) -> Heard {
    let Some(hearing) = listener else { return std::future::pending().await };
    match hearing.recv().await {
        Ok(word) if word.payload() == WISH => Heard::Wish,
        Ok(_) => Heard::Change,
        Err(_) => {
            *listener = None;
            Heard::Change
        }
    }
}
