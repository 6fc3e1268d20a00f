//! What later requests go on with: responses, and conversations with their items. A project sees
//! its own and nobody else's.
//!
//! Each is sealed with a key of its own, and that key with the master key, as recorded texts are
//! (`crate::bodies`), and the keys lie beside theirs: what an administrator erases, what is over
//! and what its caller deletes can be read from no copy any more. What the contents say is no
//! business of this file.

use sqlx::Error;

use crate::bodies::key_place;
use crate::identity::Principal;
use crate::policy::Label;
use crate::secret::{Keyring, Master, Secret, SecretError};
use crate::store::StoreError;
use crate::{Id, Millis};

/// Responses that go on with each other: more than that is no conversation.
pub const CHAIN_MAX: usize = 1000;

/// Bytes of one content.
pub const BYTES_MAX: usize = 32 << 20;

/// Attempt under which a key lies among those of recorded texts.
pub(crate) const ATTEMPT: i64 = 0;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An answer with what it was asked.
    Response,
    /// A list of items that grows.
    Conversation,
    /// One of its items.
    Item,
    /// The name of an item that a provider made, under the response that it is of.
    Part,
}

impl Kind {
    /// Its word in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Conversation => "conversation",
            Self::Item => "item",
            Self::Part => "part",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Response, Self::Conversation, Self::Item, Self::Part]
            .into_iter()
            .find(|k| k.name() == name)
    }
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// The organisation.
    pub organisation: Id,
    /// The project.
    pub project: Id,
    /// Who keeps it, for whoever erases what somebody said; empty: nobody.
    pub user: String,
}

impl Tenant {
    /// `None`: whoever asks has no project, and so nothing to keep.
    #[must_use]
    pub fn of(principal: &Principal) -> Option<Self> {
        Some(Self {
            organisation: principal.organisation.id.clone(),
            project: principal.project.as_ref()?.id.clone(),
            user: principal.user.as_ref().map(|user| user.id.to_string()).unwrap_or_default(),
        })
    }
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// What it is.
    pub kind: Kind,
    /// Its name; an item's is its own within its conversation.
    pub id: String,
    /// An item's conversation, a part's response; the response that one goes on with; else empty.
    pub parent: String,
    /// Where an item stands; where a conversation's next one will.
    pub place: i64,
    /// How secret it is.
    pub label: Label,
    /// When it was made; milliseconds since 1970.
    pub at: Millis,
    /// It is being made still, by somebody who is taken for lost from then on; 0: it is whole.
    pub lost_at: Millis,
    /// What it says.
    pub content: Secret<Vec<u8>>,
}

/// Which items of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Only those after this place (before it, where the last come first).
    pub after: Option<i64>,
    /// The first come first.
    pub ascending: bool,
    /// So many at most.
    pub limit: usize,
}

/// Why something cannot be kept, or read.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be opened.
    #[error(transparent)]
    Sealed(#[from] SecretError),
    /// Its key was erased.
    #[error("its key was erased, so nobody can read it any more")]
    Erased,
    /// There is no master key.
    #[error("there is no master key")]
    NoKey,
    /// There is no such thing.
    #[error("{0} is not kept, or not any more")]
    Missing(String),
    /// An item of this name is there already.
    #[error("{0} is in the conversation already")]
    Twice(String),
    /// It is longer than [`BYTES_MAX`].
    #[error("it is too long to be kept")]
    TooLong,
}

impl From<Error> for KeptError {
    fn from(error: Error) -> Self {
        Self::Store(error.into())
    }
}

/// A row: what is kept, sealed.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its key's name, which nothing else has.
    pub(crate) row_id: String,
    pub(crate) sheet: Sheet,
    pub(crate) expires: Millis,
    /// Sealed with its key.
    pub(crate) content: String,
    /// The key, sealed; empty: it was erased.
    pub(crate) sealed: String,
}

/// What a content belongs to: it opens nowhere else.
fn place(tenant: &Tenant, sheet: &Sheet) -> String {
    let Tenant { organisation, project, .. } = tenant;
    format!("kept/{organisation}/{project}/{}/{}/{}", sheet.kind.name(), sheet.parent, sheet.id)
}

impl Row {
    pub(crate) fn seal(
        keyring: &Keyring,
        tenant: &Tenant,
        row_id: String,
        (sheet, expires): (Sheet, Millis),
    ) -> Self {
        let text = Master::generate();
        let key = Master::parse(text.expose()).expect("a fresh key is one");
        let content = key.seal(sheet.content.expose(), &place(tenant, &sheet));
        let sealed = keyring.seal(text.expose().as_bytes(), &key_place(&row_id, ATTEMPT));
        Self { row_id, sheet, expires, content, sealed }
    }

    pub(crate) fn open(self, keyring: &Keyring, tenant: &Tenant) -> Result<Sheet, KeptError> {
        let Self { row_id, mut sheet, content, sealed, .. } = self;
        if sealed.is_empty() {
            return Err(KeptError::Erased);
        }
        let text = keyring.open(&sealed, &key_place(&row_id, ATTEMPT))?;
        let text = text.into_text().ok_or(SecretError::Altered)?;
        sheet.content = Master::parse(text.expose())?.open(&content, &place(tenant, &sheet))?;
        Ok(sheet)
    }
}
