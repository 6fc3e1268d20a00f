//! Responses and conversations that are kept, so that a later request can go on with them.
//!
//! They lie in the governor's database, sealed, for as long as the configuration or the
//! organisation says; where nobody governs they lie in this process's memory for an hour. They are
//! known to whoever shares the books with the one who made them (a project, or a fixed key), and
//! to nobody else. What is made of one is no less secret than it.

mod memory;
mod passing;
mod responses;
mod shelf;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use govern::kept::{KeptError, Kind, Range, Sheet};
use govern::policy::Label;
use govern::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use wire::responses::{Request, is_bare_thought};
use wire::{ApiError, ErrorKind};

use super::App;
use super::envelope::Caller;
use super::error::Failure;
use super::surface::Page;

pub(super) use passing::{Own, concerns, pass};
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

/// What a request says that it goes on with.
#[derive(Deserialize)]
struct GoesOn {
    previous_response_id: Option<Value>,
    conversation: Option<Value>,
    input: Option<Value>,
}

/// The same, of one that refers to no items.
#[derive(Deserialize)]
struct Without {
    previous_response_id: Option<Value>,
    conversation: Option<Value>,
}

/// Looks up what a request goes on with; `None`: it begins anew, or says what makes no sense, which
/// its parser will find.
pub(super) async fn look_up(
    app: &App,
    caller: &Caller,
    body: &[u8],
) -> Option<Result<Arc<Past>, Failure>> {
    // Most refer to nothing: then their items are not read here.
    let refers = memchr::memmem::find(body, b"item_reference").is_some() || has_thoughts(body);
    let GoesOn { previous_response_id, conversation, input } = if refers {
        serde_json::from_slice(body).ok()?
    } else {
        let Without { previous_response_id, conversation } = serde_json::from_slice(body).ok()?;
        GoesOn { previous_response_id, conversation, input: None }
    };
    let owner = Owner::of(caller);
    let input = input.as_ref().and_then(Value::as_array).map_or(&[][..], |items| items);
    let is_set = |field: &Option<Value>| field.as_ref().is_some_and(|value| !value.is_null());
    let goes_on = is_set(&previous_response_id) || is_set(&conversation);
    let found = match (previous_response_id, conversation) {
        (Some(Value::String(id)), None | Some(Value::Null)) => before(app, &owner, &id).await,
        (None | Some(Value::Null), Some(said)) => {
            let id = said.as_str().or_else(|| said.get("id")?.as_str())?;
            within(app, &owner, id).await
        }
        (None | Some(Value::Null), None) => Ok(Past::default()),
        _ => return None,
    };
    match found {
        Ok(past) => match referred(app, &owner, input, past).await {
            Ok(past) if goes_on || !past.others.is_empty() => Some(Ok(Arc::new(past))),
            // Whoever is asked may know what is not known here.
            Ok(_) => None,
            Err(failure) => Some(Err(failure)),
        },
        Err(failure) => Some(Err(failure)),
    }
}

/// Whether there may be thoughts among its items: the word stands there as a value, and elsewhere
/// as a name.
fn has_thoughts(body: &[u8]) -> bool {
    const WORD: &[u8] = b"\"reasoning\"";
    let behind = |at: usize| body[at + WORD.len()..].trim_ascii_start().first();
    memchr::memmem::find_iter(body, WORD).any(|at| behind(at) != Some(&b':'))
}

/// Looks up the items that a request refers to, and thoughts that it has without their seals: the
/// ids of what a response made begin with its own number, or it is kept which one's they are. What
/// is not kept here is left out.
async fn referred(
    app: &App,
    owner: &Owner,
    input: &[Value],
    mut past: Past,
) -> Result<Past, Failure> {
    let mut ids = wire::responses::references(input);
    ids.extend(input.iter().filter(|item| is_bare_thought(item)).map(id_of));
    let known: BTreeSet<&str> = past.history.iter().map(id_of).collect();
    let ids: BTreeSet<&str> =
        ids.into_iter().filter(|id| !id.is_empty() && !known.contains(id)).take(IDS_MAX).collect();
    drop(known);
    let makers = ids.iter().filter_map(|id| maker(id)).collect();
    made_by(app, owner, (makers, &ids), &mut past).await?;
    let mut makers = BTreeSet::new();
    for id in &ids {
        if past.others.iter().all(|item| id_of(item) != *id) {
            match app.kept.kept(owner, (Kind::Part, "", id)).await {
                Ok(part) => makers.insert(read::<String>(&part)?),
                Err(KeptError::Missing(_)) => continue,
                Err(error) => return Err(trouble(&error)),
            };
        }
    }
    made_by(app, owner, (makers, &ids), &mut past).await?;
    Ok(past)
}

/// Adds those of these items that one of these responses has made.
async fn made_by(
    app: &App,
    owner: &Owner,
    (makers, ids): (BTreeSet<String>, &BTreeSet<&str>),
    past: &mut Past,
) -> Result<(), Failure> {
    for id in makers {
        let sheet = match app.kept.kept(owner, (Kind::Response, "", &id)).await {
            Ok(sheet) if sheet.lost_at == 0 => sheet,
            Ok(_) | Err(KeptError::Missing(_)) => continue,
            Err(error) => return Err(trouble(&error)),
        };
        let kept: Kept = read(&sheet)?;
        let meant = outputs(&kept.response).filter(|item| ids.contains(id_of(item)));
        past.others.extend(meant.cloned());
        past.label = past.label.max(Some(sheet.label));
    }
    Ok(())
}

/// Items that one request may refer to.
const IDS_MAX: usize = 1024;

/// The response that an item of this id is of, if it is one that was made here.
fn maker(item: &str) -> Option<String> {
    let (_, number) = item.rsplit_once('_')?;
    let number = number.get(..NUMBER).filter(|number| number.len() < item.len())?;
    Some(format!("resp_{number}"))
}

/// Items of a response whose ids a provider made.
fn foreign(response: &Value) -> impl Iterator<Item = &Value> {
    let own = |id: &str| maker(id).as_deref() == Some(id_of(response));
    outputs(response).filter(move |item| !id_of(item).is_empty() && !own(id_of(item)))
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

/// All that stands before a response that goes on with this one.
async fn before(app: &App, owner: &Owner, id: &str) -> Result<Past, Failure> {
    let refuse = |error| match error {
        KeptError::Missing(id) => {
            let error = unknown("response", &id).error;
            let code = "previous_response_not_found";
            let error = ApiError::new(ErrorKind::Invalid, code, error.message);
            error.with_param("previous_response_id").into()
        }
        other => trouble(&other),
    };
    let mut past = Past::default();
    for sheet in app.kept.chain(owner, id).await.map_err(refuse)? {
        if sheet.lost_at != 0 {
            let message = "The response is still being made; wait until it is completed.";
            let error = ApiError::new(ErrorKind::Invalid, "response_not_completed", message);
            return Err(error.with_param("previous_response_id").into());
        }
        past.label = past.label.max(Some(sheet.label));
        let kept: Kept = read(&sheet)?;
        if let Some((conversation, next)) = kept.conversation {
            let earlier = app.kept.items(owner, &conversation, ALL).await.map_err(refuse)?;
            for item in earlier.iter().filter(|item| item.place < next) {
                past.history.push(read(item)?);
            }
        }
        past.history.extend(kept.input);
        past.history.extend(outputs(&kept.response).cloned());
    }
    Ok(past)
}

/// One more than there may be.
const ALL: Range = Range { after: None, ascending: true, limit: ITEMS_MAX + 1 };

/// All that a conversation holds.
async fn within(app: &App, owner: &Owner, id: &str) -> Result<Past, Failure> {
    let whole = app.kept.kept(owner, (Kind::Conversation, "", id)).await;
    let whole = whole.map_err(|error| failed("conversation", &error));
    let whole = whole.map_err(|mut failure| {
        failure.error.param = Some("conversation".to_owned());
        failure
    })?;
    let items = app.kept.items(owner, id, ALL).await.map_err(|error| trouble(&error))?;
    if items.len() > ITEMS_MAX {
        let message = format!("The conversation has more than {ITEMS_MAX} items.");
        let error = ApiError::new(ErrorKind::Invalid, "conversation_too_long", message);
        return Err(error.with_param("conversation").into());
    }
    let label = items.iter().map(|item| item.label).max().max(Some(whole.label));
    let history = items.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Past { history, label, next: whole.place, ..Past::default() })
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
    referred: Vec<String>,
    /// Something lies there under its name already.
    begun: AtomicBool,
    /// The whole of it does.
    kept: AtomicBool,
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keep").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Keep {
    /// Of a request with this input; `of` is the response that it goes on with, or its conversation
    /// and where that stands.
    fn new(
        app: &App,
        caller: &Caller,
        of: (Option<String>, Option<(String, i64)>),
        (input, referred): (Vec<Value>, Vec<String>),
    ) -> Self {
        let (previous, conversation) = of;
        Self {
            shelf: Arc::clone(&app.kept),
            owner: Owner::of(caller),
            label: label(caller),
            previous: previous.unwrap_or_default(),
            input,
            conversation,
            referred,
            begun: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        }
    }

    fn response(&self, response: &Value) -> Sheet {
        let content = json!({ "input": self.input, "response": response,
            "conversation": self.conversation });
        let made = sheet(Kind::Response, id_of(response), self.label, &content);
        Sheet { parent: self.previous.clone(), ..made }
    }

    fn items(&self, response: &Value) -> Vec<Sheet> {
        let Some((conversation, _)) = &self.conversation else { return Vec::new() };
        let own =
            self.input.iter().filter(|item| !self.referred.iter().any(|id| id == id_of(item)));
        let item = |item: &Value| Sheet {
            parent: conversation.clone(),
            ..sheet(Kind::Item, id_of(item), self.label, item)
        };
        own.chain(outputs(response)).map(item).collect()
    }

    /// Items whose ids a provider made: of each, which response it is of.
    fn parts(&self, response: &Value) -> Vec<Sheet> {
        let part = |item| sheet(Kind::Part, id_of(item), self.label, &json!(id_of(response)));
        foreign(response).map(part).collect()
    }

    /// Keeps a response that is whole.
    async fn keep(self: Arc<Self>, response: Value) -> Result<(), KeptError> {
        let Self { shelf, owner, .. } = &*self;
        let into = self.conversation.as_ref().map(|(id, _)| &**id);
        let (whole, mut items) = (self.response(&response), self.items(&response));
        items.extend(self.parts(&response));
        if self.begun.load(Ordering::Relaxed) {
            shelf.keep_over(owner, whole).await?;
        } else {
            items.push(whole);
        }
        if !items.is_empty() {
            shelf.keep(owner, items, into).await?;
        }
        self.kept.store(true, Ordering::Release);
        Ok(())
    }

    /// Keeps a response that is being made, by somebody who is lost at that time.
    pub(super) async fn begin(&self, response: &Value, lost_at: i64) -> Result<(), KeptError> {
        let begun = Sheet { lost_at, ..self.response(response) };
        self.shelf.keep(&self.owner, vec![begun], None).await?;
        self.begun.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps one over what was begun that came to no end of its own.
    pub(super) async fn over(&self, response: &Value) -> Result<(), KeptError> {
        self.shelf.keep_over(&self.owner, self.response(response)).await
    }

    /// The whole of it is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }
}

/// Keeps a response that is whole, before its last byte leaves. `false`: it could not be kept.
pub(super) async fn keep(keep: &Arc<Keep>, response: Value) -> bool {
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

/// Makes a request whole whose tokens are to be counted.
pub(super) fn make_whole(request: &mut Request, past: Option<&Past>) -> Result<(), Failure> {
    if request.is_open() {
        join(request, past.unwrap_or(&Past::default()))?;
    }
    Ok(())
}

/// Puts items where they are referred to; the ids of those.
fn resolve(
    input: &mut [Value],
    in_conversation: bool,
    past: &Past,
) -> Result<Vec<String>, Failure> {
    let history = &past.history;
    let referred: Vec<String> =
        wire::responses::references(input).into_iter().map(str::to_owned).collect();
    let new = |item: &Value| !referred.iter().any(|id| id == id_of(item));
    let there = |id: &str| history.iter().any(|item| id_of(item) == id);
    let twice = input.iter().find(|item| new(item) && there(id_of(item)));
    if let Some(item) = twice.filter(|_| in_conversation) {
        return Err(trouble(&KeptError::Twice(id_of(item).to_owned())));
    }
    let all = || history.iter().chain(&past.others);
    let find = |id: &str| all().find(|item| id_of(item) == id).cloned();
    wire::responses::resolve(input, &mut { find })?;
    Ok(referred)
}

/// Puts the past in front of a request, and items where they are referred to; their ids.
fn join(request: &mut Request, past: &Past) -> Result<Vec<String>, Failure> {
    let referred = resolve(&mut request.input, request.conversation.is_some(), past)?;
    request.join(&past.history)?;
    Ok(referred)
}

fn invalid(field: &str, why: &str) -> Failure {
    let message = format!("Invalid value for '{field}': {why}.");
    ApiError::new(ErrorKind::Invalid, "invalid_value", message).with_param(field).into()
}

/// Why something is refused that was looked for in the request before it was read.
const TWICE: &str = "a field stands twice in the request";

/// Whether a request makes sense that belongs to this conversation.
fn fits(
    caller: &Caller,
    (conversation, store): (&Option<String>, bool),
    background: bool,
) -> Result<(), Failure> {
    if conversation.is_some() && !store {
        let why = "a conversation keeps its items: it needs 'store': true";
        return Err(invalid("conversation", why));
    }
    if background != caller.background {
        return Err(invalid("background", TWICE));
    }
    Ok(())
}

/// What was found of what a request goes on with.
fn past(caller: &Caller, goes_on: bool) -> Result<Option<&Past>, Failure> {
    match &caller.past {
        Some(past) => past.as_ref().map(|past| Some(&**past)).map_err(Failure::clone),
        None if goes_on => Err(invalid("previous_response_id", TWICE)),
        None => Ok(None),
    }
}

/// Makes a request whole: what it goes on with is put in front of it, and its page knows how the
/// response is kept.
///
/// # Errors
/// What it goes on with is not known, or asks for what is not kept here.
pub(super) fn open(
    app: &App,
    caller: &Caller,
    request: &mut Request,
    page: &mut Page,
) -> Result<(), Failure> {
    fits(caller, (&request.conversation, request.store), request.background)?;
    let goes_on = request.previous.is_some() || request.conversation.is_some();
    let nothing = Past::default();
    let past = past(caller, goes_on)?.unwrap_or(&nothing);
    let referred = if request.is_open() { join(request, past)? } else { Vec::new() };
    if request.store {
        let conversation = request.conversation.clone().map(|id| (id, past.next));
        let of = (request.previous.clone(), conversation);
        page.keep = Some(Arc::new(Keep::new(app, caller, of, (request.input.clone(), referred))));
    }
    Ok(())
}
