//! Responses and conversations that are kept, so that a later request can go on with them.
//!
//! They lie in the governor's database, sealed, for as long as the configuration or the
//! organisation says; where nobody governs they lie in this process's memory for an hour. They are
//! known to whoever shares the books with the one who made them (a project, or a fixed key), and
//! to nobody else. What is made of one is no less secret than it.

mod found;
mod memory;
mod passing;
mod responses;
mod shelf;

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use govern::kept::{KeptError, Kind, Sheet};
use govern::policy::Label;
use govern::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;
use wire::responses::{Keeping, Request};
use wire::{ApiError, ErrorKind};

use super::App;
use super::envelope::Caller;
use super::error::Failure;
use super::surface::Page;

use found::IDS_MAX;
pub(super) use found::note;
pub(super) use passing::{Own, pass};
pub(super) use responses::{Listing, cancel, delete, get, include, items};
pub(super) use shelf::{Owner, Shelf};

/// Items of a conversation that a request can go on with.
pub(super) const ITEMS_MAX: usize = 10_000;

/// Longest wait of an answer's last byte for what it leaves behind.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an answer says that could not be kept.
pub(super) const MISSED: &str = "This response could not be kept.";

/// What a request goes on with.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Items of earlier requests and responses, or of a conversation.
    history: Vec<Value>,
    /// Items of other responses that the request refers to.
    others: Vec<Value>,
    /// How secret they are.
    pub(super) label: Option<Label>,
    /// Where the conversation goes on.
    next: i64,
    /// See [`Past::estimate`].
    tokens: OnceLock<u64>,
}

/// What a response leaves behind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kept {
    /// Items of its own request.
    input: Vec<Value>,
    response: Value,
    /// The conversation that it belongs to, and where it stood then.
    conversation: Option<(String, i64)>,
}

/// The same, without what it was asked.
#[derive(Deserialize)]
struct Made {
    response: Value,
}

/// The response that an item of this id is of, if it is one that was made here.
fn maker(item: &str) -> Option<String> {
    let (_, number) = item.rsplit_once('_')?;
    Some(format!("resp_{}", number.get(..NUMBER)?))
}

/// Letters of a response's number.
const NUMBER: usize = 24;

/// Ids of what this response consists of, one after the other.
pub(super) fn ids_of(response: &str) -> impl FnMut(&str) -> String + Send + use<> {
    let number = response.strip_prefix("resp_").unwrap_or_default().to_owned();
    let mut count = 0_u32;
    move |prefix| {
        count += 1;
        format!("{prefix}_{number}{count:04x}")
    }
}

fn outputs(response: &Value) -> impl Iterator<Item = &Value> {
    response.get("output").and_then(Value::as_array).into_iter().flatten()
}

/// What a sheet says.
pub(super) fn read<T: for<'a> Deserialize<'a>>(sheet: &Sheet) -> Result<T, Failure> {
    serde_json::from_slice(sheet.content.expose()).map_err(|_| damaged())
}

/// A sheet that says this, made now.
pub(super) fn sheet(kind: Kind, id: &str, label: Label, content: &Value) -> Sheet {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Sheet {
        kind,
        id: id.to_owned(),
        parent: String::new(),
        place: 0,
        label,
        at: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        lost_at: 0,
        content: Secret::new(content.to_string().into_bytes()),
    }
}

/// The id of an item, as far as it has one.
pub(super) fn id_of(item: &Value) -> &str {
    item.get("id").and_then(Value::as_str).unwrap_or_default()
}

/// How secret is what a caller says, by the policies above it and by what it goes on with.
pub(super) fn label(caller: &Caller) -> Label {
    let past = caller.past_label();
    let layers = caller.who.as_ref().map(|who| who.principal.layers()).unwrap_or_default();
    let own = layers.iter().filter_map(|layer| layer.policy.label).max();
    past.max(own).unwrap_or_default()
}

pub(super) fn unknown(what: &str, id: &str) -> Failure {
    let short: String = id.chars().take(64).collect();
    let code = match what {
        "response" => "response_not_found",
        "conversation" => "conversation_not_found",
        _ => "item_not_found",
    };
    let message = format!("The {what} '{short}' is not kept here, or not any more.");
    Failure::new(ErrorKind::NotFound, code, message)
}

/// Why something that is named cannot be had.
pub(super) fn failed(what: &str, error: &KeptError) -> Failure {
    match error {
        KeptError::Missing(id) => unknown(what, id),
        other => trouble(other),
    }
}

fn damaged() -> Failure {
    Failure::new(ErrorKind::Internal, "damaged", "What is kept under this name cannot be read.")
}

fn trouble(error: &KeptError) -> Failure {
    match error {
        KeptError::Missing(id) => unknown("item", id),
        KeptError::Twice(id) => {
            let message = format!("The conversation has an item '{id}' already.");
            Failure::new(ErrorKind::Invalid, "item_exists", message)
        }
        KeptError::TooLong => Failure::new(ErrorKind::TooLarge, "too_long", error.to_string()),
        KeptError::Store(_) | KeptError::NoKey => {
            tracing::error!(%error, "what is kept cannot be reached");
            let message = "What is kept cannot be reached at the moment; try again.";
            Failure::new(ErrorKind::Unavailable, "unavailable", message)
        }
        KeptError::Sealed(_) | KeptError::Erased => {
            tracing::error!(%error, "something that is kept cannot be read");
            damaged()
        }
    }
}

/// Says at the end of a stream that it could not be kept, in a comment, which every client skips.
pub(super) fn missed(out: &mut Vec<u8>) {
    out.extend_from_slice(format!(": hearth {}\n\n", json!({ "notice": MISSED })).as_bytes());
}

/// How a response that is under way will be kept.
pub(super) struct Keep {
    shelf: Arc<Shelf>,
    owner: Owner,
    label: Label,
    /// The response that it goes on with; else empty.
    previous: String,
    input: Vec<Value>,
    /// Its conversation, and where that stood.
    conversation: Option<(String, i64)>,
    /// Ids of inputs that were in the conversation already.
    referred: HashSet<String>,
    /// How far it has come. Nobody else writes under its name meanwhile.
    stage: Mutex<Stage>,
    /// Which of its request's answers is kept: of two that come at once, one has its caller.
    claim: Arc<AtomicUsize>,
}

/// What of a response is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Nothing,
    Begun,
    /// The response is whole, and its items have no place yet.
    Written,
    Whole,
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keep").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Keep {
    /// Of a request with this input that goes on with this; `None`: nothing is to be kept.
    fn of(
        app: &App,
        caller: &Caller,
        (keeping, past): (&Keeping, &Past),
        (input, referred): (impl FnOnce() -> Vec<Value>, Vec<String>),
    ) -> Option<Arc<Self>> {
        keeping.store.then(|| {
            Arc::new(Self {
                shelf: Arc::clone(&app.kept),
                owner: Owner::of(caller),
                label: label(caller),
                previous: keeping.previous.clone().unwrap_or_default(),
                input: input(),
                conversation: keeping.conversation.clone().map(|id| (id, past.next)),
                referred: referred.into_iter().collect(),
                stage: Mutex::new(Stage::Nothing),
                claim: Arc::clone(&caller.claim),
            })
        })
    }

    fn response(&self, response: &Value) -> Sheet {
        let content = json!({ "input": self.input, "response": response,
            "conversation": self.conversation });
        let made = sheet(Kind::Response, id_of(response), self.label, &content);
        Sheet { parent: self.previous.clone(), ..made }
    }

    /// Items of its conversation. `anew`: what it says gets other names there, for some providers
    /// give each of their answers the same.
    fn items(&self, response: &Value, anew: bool) -> Vec<Sheet> {
        let Some((conversation, _)) = &self.conversation else { return Vec::new() };
        let own = self.input.iter().filter(|item| !self.referred.contains(id_of(item)));
        let mut ids = ids_of(id_of(response));
        let mut name = |item: &Value| match id_of(item) {
            id if anew => ids(id.split('_').next().unwrap_or_default()),
            id => id.to_owned(),
        };
        let said = outputs(response).map(|item| {
            let mut item = item.clone();
            item["id"] = json!(name(&item));
            item
        });
        let item = |item: &Value| Sheet {
            parent: conversation.clone(),
            ..sheet(Kind::Item, id_of(item), self.label, item)
        };
        own.map(item).chain(said.map(|said| item(&said))).collect()
    }

    /// Names of items that a provider made.
    fn parts(&self, response: &Value) -> Vec<Sheet> {
        let parent = id_of(response);
        let foreign = |item: &&Value| {
            !id_of(item).is_empty() && maker(id_of(item)).as_deref() != Some(parent)
        };
        let part = |item| Sheet {
            parent: parent.to_owned(),
            ..sheet(Kind::Part, id_of(item), self.label, &Value::Null)
        };
        outputs(response).filter(foreign).map(part).collect()
    }

    /// Keeps a response that is whole.
    async fn keep(self: Arc<Self>, response: Value) -> Result<(), KeptError> {
        let mut stage = self.stage.lock().await;
        if *stage == Stage::Whole {
            return Ok(());
        }
        if *stage == Stage::Begun {
            self.shelf.keep_over(&self.owner, self.response(&response)).await?;
            *stage = Stage::Written;
        }
        let written = *stage == Stage::Written;
        match self.put(&response, written, self.repeats(&response)).await {
            Err(KeptError::Twice(_)) => self.put(&response, written, true).await?,
            put => put?,
        }
        *stage = Stage::Whole;
        Ok(())
    }

    /// Two items of the response have one name.
    fn repeats(&self, response: &Value) -> bool {
        let mut names = HashSet::new();
        self.conversation.is_some() && outputs(response).any(|item| !names.insert(id_of(item)))
    }

    async fn put(&self, response: &Value, written: bool, anew: bool) -> Result<(), KeptError> {
        let mut sheets = self.items(response, anew);
        sheets.extend(self.parts(response));
        if !written {
            sheets.push(self.response(response));
        }
        if sheets.is_empty() {
            return Ok(());
        }
        let into = self.conversation.as_ref().map(|(id, _)| &**id);
        self.shelf.keep(&self.owner, sheets, into).await
    }

    /// Keeps a response that is being made, by somebody who is lost at that time; unless all of it
    /// came at once and is kept.
    pub(super) async fn begin(&self, response: &Value, lost_at: i64) -> Result<(), KeptError> {
        let mut stage = self.stage.lock().await;
        if *stage == Stage::Nothing {
            let begun = Sheet { lost_at, ..self.response(response) };
            self.shelf.keep(&self.owner, vec![begun], None).await?;
            *stage = Stage::Begun;
        }
        Ok(())
    }

    /// Keeps one over what was begun that came to no end of its own, or could not be kept then.
    pub(super) async fn over(self: &Arc<Self>, response: &Value) -> Result<(), KeptError> {
        if matches!(response["status"].as_str(), Some("completed" | "incomplete")) {
            return Arc::clone(self).keep(response.clone()).await;
        }
        let stage = self.stage.lock().await;
        match *stage {
            Stage::Nothing | Stage::Begun => {
                self.shelf.keep_over(&self.owner, self.response(response)).await
            }
            Stage::Written | Stage::Whole => Ok(()),
        }
    }

    /// The whole of it is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.stage.try_lock().is_ok_and(|stage| *stage == Stage::Whole)
    }

    /// Whether this is the answer that is kept of its request.
    fn claims(self: &Arc<Self>) -> bool {
        let own = Arc::as_ptr(self).addr();
        let claim = self.claim.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire);
        claim.is_ok() || claim == Err(own)
    }
}

/// Keeps a response that is whole, before its last byte leaves. `false`: it could not be kept.
pub(super) async fn keep(keep: &Arc<Keep>, response: Value) -> bool {
    if !keep.claims() {
        // Another answer to the same request is being kept, and has the caller in a moment.
        return pending().await;
    }
    // On its own feet: a caller who leaves now finds it later all the same.
    let kept = tokio::spawn(Arc::clone(keep).keep(response));
    match timeout(PATIENCE, kept).await {
        Ok(Ok(Ok(()))) => return true,
        Ok(Ok(Err(error))) => tracing::error!(%error, "a response was not kept"),
        Ok(Err(error)) => tracing::error!(%error, "a response was not kept"),
        Err(_) => tracing::error!("a response is kept too slowly"),
    }
    false
}

impl Past {
    /// Tokens of what stands before a request, of which nobody has counted any.
    pub(super) fn estimate(&self) -> u64 {
        *self.tokens.get_or_init(|| {
            let all: Vec<&Value> = self.history.iter().chain(&self.others).collect();
            if all.is_empty() {
                0
            } else {
                wire::glance::estimate_items(&serde_json::to_string(&all).unwrap_or_default())
            }
        })
    }
}

/// Puts items where they are referred to; what the request goes on with, and the ids of those that
/// are of that.
fn resolve<'a>(
    caller: &'a Caller,
    keeping: &Keeping,
    input: &mut [Value],
) -> Result<(&'a Past, Vec<String>), Failure> {
    let past = past(caller, keeping)?;
    let references = wire::responses::references(input);
    let referred: HashSet<&str> = references.iter().copied().collect();
    // Each stands for a whole item.
    if references.len() > IDS_MAX || referred.len() < references.len() {
        let why = format!("at most {IDS_MAX} items can be referred to, and each of them once");
        return Err(invalid("input", &why));
    }
    let there: HashSet<&str> = past.history.iter().map(id_of).collect();
    if keeping.conversation.is_some() {
        let new = |item: &&Value| !referred.contains(id_of(item));
        if let Some(item) = input.iter().filter(new).find(|item| there.contains(id_of(item))) {
            return Err(trouble(&KeptError::Twice(id_of(item).to_owned())));
        }
    }
    let known = referred.iter().filter(|id| there.contains(*id)).map(|id| (*id).to_owned());
    let known: Vec<String> = known.collect();
    if !referred.is_empty() {
        // Of several with one name the newest is meant.
        let all = past.others.iter().chain(&past.history);
        let all: HashMap<&str, &Value> = all.map(|item| (id_of(item), item)).collect();
        let find = |id: &str| all.get(id).copied().cloned();
        wire::responses::resolve(input, &mut { find })?;
    }
    Ok((past, known))
}

fn invalid(field: &str, why: &str) -> Failure {
    let message = format!("Invalid value for '{field}': {why}.");
    ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(field).into()
}

/// Why something is refused that was looked for in the request before it was read.
const TWICE: &str = "a field stands twice in the request";

/// Whether what a request says is what was found in it before it was read.
fn fits(caller: &Caller, keeping: &Keeping) -> Result<(), Failure> {
    if keeping.conversation.is_some() && !keeping.store {
        let why = "a conversation keeps its items: it needs 'store': true";
        return Err(invalid("conversation", why));
    }
    if keeping.background != caller.background {
        return Err(invalid("background", TWICE));
    }
    Ok(())
}

/// What was found of what a request goes on with.
fn past<'a>(caller: &'a Caller, keeping: &Keeping) -> Result<&'a Past, Failure> {
    static NOTHING: Past = Past {
        history: Vec::new(),
        others: Vec::new(),
        label: None,
        next: 0,
        tokens: OnceLock::new(),
    };
    match &caller.past {
        Some(past) => past.as_deref().map_err(Failure::clone),
        None if keeping.goes_on() => Err(invalid("previous_response_id", TWICE)),
        None => Ok(&NOTHING),
    }
}

/// Makes a request whole: what it goes on with is put in front of it, and items where they are
/// referred to; both, as in [`resolve`].
pub(super) fn make_whole<'a>(
    caller: &'a Caller,
    request: &mut Request,
) -> Result<(&'a Past, Vec<String>), Failure> {
    let is_open = request.is_open();
    let (past, referred) = resolve(caller, &request.keeping, &mut request.input)?;
    if is_open {
        request.join(&past.history)?;
    }
    Ok((past, referred))
}

/// The same, and its page knows how the response is kept.
///
/// # Errors
/// What it goes on with is not known, or asks for what is not kept here.
pub(super) fn open(
    app: &App,
    caller: &Caller,
    request: &mut Request,
    page: &mut Page,
) -> Result<(), Failure> {
    fits(caller, &request.keeping)?;
    let (past, referred) = make_whole(caller, request)?;
    let input = || request.input.clone();
    page.keep = Keep::of(app, caller, (&request.keeping, past), (input, referred));
    Ok(())
}
