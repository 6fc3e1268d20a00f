//! The smallest governor that sells something: one organisation, one key, one price.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::budget::window::Period;
use govern::entity::{Budget, Entity, Key, Limit, Organisation, PriceSheet, Project, Team};
use govern::governor::{Clock, EditError, OpenError};
use govern::identity::Principal;
use govern::identity::key::Minted;
use govern::journal::JournalError;
use govern::ledger::writer::Note;
use govern::price::{ModelPrice, TokenPrices};
use govern::store::StoreError;
use govern::store::documents::Edit;
use govern::{Ask, Denied, Governor, Id, Money, Operation, Scope, Settings};

/// 2026-03-28, a day before Berlin's clocks are set.
pub(super) const BEGIN: i64 = 1_774_695_600_000;

/// A folder that goes with the test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// In a folder, with SQLite where no URL says otherwise.
pub(super) fn settings(folder: &Path, url: Option<String>, clock: Clock) -> Settings {
    Settings {
        url: url.unwrap_or_else(|| folder.join("hearth.db").display().to_string()),
        journal: folder.join("journal"),
        gateway: "gateway-1".to_owned(),
        clock,
        fsync: govern::Fsync::default(),
        sharing: govern::Sharing::default(),
    }
}

/// Opens a governor as soon as the one before it has written everything down.
pub(super) async fn open(settings: &Settings) -> Governor {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match Governor::open(settings).await {
            Ok((governor, _)) => return governor,
            Err(
                OpenError::Journal(JournalError::Taken(_)) | OpenError::Store(StoreError::InUse(_)),
            ) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) async fn put(governor: &Governor, edits: Vec<Edit>) {
    let made = governor.edit(|_, _| Ok::<_, EditError>((edits, Note::default(), ())));
    made.await.expect("an edit");
}

pub(super) fn limit(nano: i64) -> Limit {
    Limit {
        period: Period::Total,
        nano_usd: Money(nano),
        soft: false,
        alert_percent: Vec::new(),
        raises: Vec::new(),
    }
}

pub(super) fn key(organisation: &Id, project: &Id, user: Option<Id>) -> Key {
    let Minted { prefix, hash, .. } = Minted::new();
    Key {
        id: Id::new(Key::KIND, BEGIN),
        organisation: organisation.clone(),
        project: Some(project.clone()),
        user,
        label: "a key".to_owned(),
        prefix,
        hash,
        ..Key::default()
    }
}

/// Input and output at so many nano-dollars a token.
pub(super) fn price(input: u64, output: u64) -> ModelPrice {
    let rates =
        TokenPrices { input: input * 1000, output: output * 1000, ..TokenPrices::default() };
    ModelPrice { model: "*".to_owned(), rates, ..ModelPrice::default() }
}

pub(super) struct Shop {
    pub(super) governor: Governor,
    pub(super) principal: Principal,
    pub(super) project: Id,
    pub(super) organisation: Id,
}

impl Shop {
    pub(super) async fn open(settings: &Settings, price: ModelPrice) -> Self {
        let governor = open(settings).await;
        if let Some(shop) = Self::found(&governor) {
            return shop;
        }
        let organisation = Organisation::new("shop", BEGIN);
        let team = Team {
            id: Id::new(Team::KIND, BEGIN),
            organisation: organisation.id.clone(),
            name: "team".to_owned(),
            ..Team::default()
        };
        let project = Project {
            id: Id::new(Project::KIND, BEGIN),
            team: team.id.clone(),
            name: "project".to_owned(),
            ..Project::default()
        };
        let key = key(&organisation.id, &project.id, None);
        let sheet = PriceSheet::new("prices", vec![price], 0);
        let edits = vec![
            Edit::put(&organisation),
            Edit::put(&team),
            Edit::put(&project),
            Edit::put(&key),
            Edit::put(&sheet),
        ];
        put(&governor, edits).await;
        Self::found(&governor).expect("it was made just now")
    }

    /// The shop that is there.
    fn found(governor: &Governor) -> Option<Self> {
        let directory = governor.directory();
        let key = directory.keys().find(|key| key.label == "a key")?;
        Some(Self {
            principal: directory.principal(key)?,
            project: key.project.clone()?,
            organisation: key.organisation.clone(),
            governor: governor.clone(),
        })
    }

    pub(super) fn budget(&self, limits: Vec<Limit>) -> Budget {
        Budget {
            id: Id::new(Budget::KIND, BEGIN),
            organisation: self.organisation.clone(),
            name: "budget".to_owned(),
            scope: Scope::Project(self.project.clone()),
            model: None,
            limits,
            time_zone: None,
            created_at: BEGIN,
        }
    }

    pub(super) fn admit(&self, input: u64, max_output: u32) -> Result<Arc<Operation>, Denied> {
        self.admit_as("", input, max_output)
    }

    pub(super) fn admit_as(
        &self,
        request: &str,
        input: u64,
        max_output: u32,
    ) -> Result<Arc<Operation>, Denied> {
        let ask = self.ask(request, input, max_output);
        self.governor.admit(&self.principal, &ask)
    }

    pub(super) fn ask(&self, request: &str, input: u64, max_output: u32) -> Ask {
        Ask {
            model: "model".to_owned(),
            surface: "chat",
            input_tokens: input,
            choices: 1,
            room: max_output,
            request_id: request.into(),
            ..Ask::default()
        }
    }

    /// Spent and held of a budget's first limit.
    pub(super) fn standing(&self, budget: &Id) -> (i64, i64) {
        let standing = self.governor.books().standing(budget, self.governor.now());
        let first = &standing.expect("an account")[0];
        (first.spent.0, first.held.0)
    }
}

/// An engine: makes all tokens that are paid for, up to so many, and says how many that were.
pub(super) fn generate(operation: &Operation, most: u32) -> u32 {
    let mut made = 0;
    while made < most.min(operation.allowance()) {
        made += 1;
        operation.made(made);
        operation.hands_out(made.into(), 0);
    }
    made
}
