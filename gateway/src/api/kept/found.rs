//! What a request goes on with, looked up before anybody judges it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use govern::kept::{KeptError, Kind, Range};
use serde_json::Value;
use wire::responses::Outline;
use wire::{ApiError, ErrorKind};

use super::super::App;
use super::super::envelope::Caller;
use super::super::error::Failure;
use super::{
    ITEMS_MAX, Kept, Made, Owner, Past, failed, id_of, maker, outputs, read, trouble, unknown,
};

/// Items that one request may refer to.
pub(super) const IDS_MAX: usize = 1024;

/// Responses that are read at once.
const AT_ONCE: usize = 16;

/// Notes what a request says of what is kept, and looks up what it goes on with. What cannot be
/// read says nothing: its parser will find it.
pub(in super::super) async fn note(app: &App, caller: &mut Caller, body: &[u8]) {
    let Some(says) = Outline::of(body) else { return };
    caller.past = found(app, caller, &says).await;
    caller.background = says.background;
    caller.says = Some(Arc::new(says));
}

/// What a request goes on with; `None`: it begins anew, or says what makes no sense.
async fn found(app: &App, caller: &Caller, says: &Outline) -> Option<Result<Arc<Past>, Failure>> {
    let owner = Owner::of(caller);
    let past = match (&says.previous, &says.conversation) {
        (Some(Value::String(id)), None) => before(app, &owner, id).await,
        (None, Some(said)) => {
            let id = said.as_str().or_else(|| said.get("id")?.as_str())?;
            within(app, &owner, id).await
        }
        (None, None) => Ok(Past::default()),
        _ => return None,
    };
    let past = match past {
        Ok(past) => referred(app, &owner, says, past).await,
        Err(failure) => Err(failure),
    };
    match past {
        Ok(past) if !says.goes_on() && past.others.is_empty() => None,
        past => Some(past.map(Arc::new)),
    }
}

/// Looks up the items that a request refers to, and thoughts that it has without their seals: the
/// ids of what a response made begin with its own number, or it is kept which one's they are. What
/// is not kept here is left out.
async fn referred(
    app: &App,
    owner: &Owner,
    says: &Outline,
    mut past: Past,
) -> Result<Past, Failure> {
    add(app, owner, &says.references, &mut past).await.map_err(|error| trouble(&error))?;
    if let Err(error) = add(app, owner, &says.thoughts, &mut past).await {
        // Whoever sends thoughts along does so to depend on nobody's store.
        tracing::warn!(%error, "thoughts of a request could not be looked up");
    }
    Ok(past)
}

/// Adds those of these items that are not among those before; of too many the last ones.
async fn add(app: &App, owner: &Owner, ids: &[String], past: &mut Past) -> Result<(), KeptError> {
    let known: HashSet<&str> = past.history.iter().chain(&past.others).map(id_of).collect();
    let named = |id: &&str| !id.is_empty() && !id.contains('\0') && !known.contains(id);
    let ids = ids.iter().rev().map(String::as_str).filter(named).take(IDS_MAX);
    let mut ids: BTreeSet<&str> = ids.collect();
    drop(known);
    let mut makers: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for id in &ids {
        if let Some(maker) = maker(id) {
            makers.entry(maker).or_default().insert(id);
        }
    }
    made_by(app, owner, &makers, past).await?;
    for item in &past.others {
        ids.remove(id_of(item));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let rest: Vec<&str> = ids.iter().copied().collect();
    makers.clear();
    for part in app.kept.all(owner, Kind::Part, &rest).await? {
        let own = ids.get(&*part.id).copied();
        makers.entry(part.parent).or_default().extend(own);
    }
    made_by(app, owner, &makers, past).await
}

/// Adds the items that these responses have made.
async fn made_by(
    app: &App,
    owner: &Owner,
    makers: &BTreeMap<String, BTreeSet<&str>>,
    past: &mut Past,
) -> Result<(), KeptError> {
    let all: Vec<&str> = makers.keys().map(String::as_str).collect();
    // Each holds all that it was asked.
    for some in all.chunks(AT_ONCE) {
        for sheet in app.kept.all(owner, Kind::Response, some).await? {
            // One that is still being made, or damaged, has nothing to refer to.
            let Ok(Made { response }) = read(&sheet) else { continue };
            if let (0, Some(ids)) = (sheet.lost_at, makers.get(&sheet.id)) {
                let meant = outputs(&response).filter(|item| ids.contains(id_of(item)));
                past.others.extend(meant.cloned());
                past.label = past.label.max(Some(sheet.label));
            }
        }
    }
    Ok(())
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
