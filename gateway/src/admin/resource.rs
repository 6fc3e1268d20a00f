//! What all things that administrators make have in common: they are listed, looked at, made,
//! changed and deleted in the same five ways.

use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::Entity;
use govern::role::Permission;
use govern::store::documents::Edit;
use govern::{Id, Scope};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{Answer, Page};
use super::asked::Asked;
use super::caller::Caller;
use super::refusal::Refusal;
use super::table::{Find, Gives, Method, Pick, Place, Route, Shape};

/// Names of children that a refusal lists.
const CHILDREN_SHOWN: usize = 10;

/// A parameter that narrows a list: its name, what it means, and whether a thing passes.
pub(super) type Filter<T> = (&'static str, &'static str, fn(&Caller<'_>, &T, &str) -> bool);

/// A kind of thing.
pub(super) trait Resource: Entity + PartialEq + ToSchema {
    /// The word of its path: `teams`.
    const PATH: &'static str;
    /// One of it, for sentences: `team`.
    const ONE: &'static str;
    /// To see it.
    const READ: Permission;
    /// To make, change and delete it.
    const WRITE: Permission;
    /// Whoever may see one of them somewhere may see them all: they are everybody's.
    const SHARED: bool = false;
    /// Fields that nobody is shown.
    const SECRETS: &'static [&'static str] = &[];
    /// What narrows a list.
    const FILTERS: &'static [Filter<Self>];
    /// What it is made of.
    type New: DeserializeOwned + ToSchema + Send + 'static;

    /// All of them, sorted by id.
    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_>;
    /// One of them.
    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>>;
    /// Where it is judged.
    fn scope(&self) -> Scope;
    /// Whose it is, for the audit; empty: the deployment's.
    fn organisation(&self, directory: &Directory) -> String;
    /// Where a new one is to be.
    fn place_of(new: &Self::New, caller: &Caller<'_>) -> Result<Scope, Refusal>;
    /// A new one.
    fn make(new: Self::New, caller: &Caller<'_>, place: &Scope) -> Result<Self, Refusal>;
    /// What is shown of it beside its fields.
    fn more(&self, _asked: &Asked, _shown: &mut Value) {}
}

/// A kind of thing that changes.
pub(super) trait Changeable: Resource {
    /// What of it may change.
    type Change: DeserializeOwned + ToSchema + Send + 'static;

    /// A changed one.
    fn change(&self, change: Self::Change, caller: &Caller<'_>) -> Result<Self, Refusal>;

    /// What has to follow once it is changed. Where that fails the change holds all the same, and
    /// sending it again makes up for it.
    fn follow(&self, _asked: &Asked) -> impl Future<Output = Result<(), Refusal>> + Send {
        std::future::ready(Ok(()))
    }
}

/// A kind of thing that may go.
pub(super) trait Deletable: Resource {
    /// What has to be gone before it.
    fn children(&self, _caller: &Caller<'_>) -> Vec<String> {
        Vec::new()
    }

    /// What goes with it.
    fn along(&self, _caller: &Caller<'_>) -> Vec<Edit> {
        Vec::new()
    }
}

/// A thing as it is shown and audited.
pub(super) fn shown<R: Resource>(thing: &R) -> Value {
    let mut value = serde_json::to_value(thing).expect("documents are plain data");
    if let Some(fields) = value.as_object_mut() {
        R::SECRETS.iter().for_each(|secret| drop(fields.shift_remove(*secret)));
    }
    value
}

fn shown_more<R: Resource>(asked: &Asked, thing: &R) -> Value {
    let mut value = shown(thing);
    thing.more(asked, &mut value);
    value
}

fn place_of_id<R: Resource>() -> Place {
    Place::Path(Find(|directory, id| R::find(directory, id).map(|thing| thing.scope())))
}

/// `GET /things` and `GET /things/{id}`.
pub(super) fn to_read<R: Resource>() -> Vec<Route> {
    let (path, one) = (R::PATH, R::ONE);
    let each = format!("/{path}");
    let mut query = vec![
        ("limit", "Things on a page, 1 to 200; 50 where nothing is said."),
        ("after", "The last id of the page before."),
    ];
    query.extend(R::FILTERS.iter().map(|(name, doc, _)| (*name, *doc)));
    let needs = (R::READ, Place::Somewhere);
    let list = Route::new((Method::Get, &each), needs, format!("Lists {path}."), |a| {
        Box::pin(async move { list::<R>(&a) })
    });
    let place = if R::SHARED { Place::Somewhere } else { place_of_id::<R>() };
    let get = Route::new(
        (Method::Get, &format!("{each}/{{id}}")),
        (R::READ, place),
        format!("Shows one {one}."),
        |a| Box::pin(async move { get::<R>(&a) }),
    );
    let shape = Shape::of::<R>();
    vec![list.asks(&query).gives(Gives::List(shape)), get.gives(Gives::One(shape))]
}

/// `POST /things`, with the handler that makes one.
pub(super) fn to_make<R: Resource>(handler: super::table::Handler) -> Route {
    let pick = Pick(|caller, asked| R::place_of(&asked.body()?, caller));
    let path = format!("/{}", R::PATH);
    let summary = format!("Makes a {}.", R::ONE);
    Route::new((Method::Post, &path), (R::WRITE, Place::Named(pick)), summary, handler)
        .takes::<R::New>()
        .gives(Gives::One(Shape::of::<R>()))
        .makes()
}

/// `PATCH /things/{id}`.
pub(super) fn to_change<R: Changeable>() -> Route {
    let path = format!("/{}/{{id}}", R::PATH);
    let summary = format!("Changes a {}: the fields that are sent.", R::ONE);
    let needs = (R::WRITE, place_of_id::<R>());
    Route::new((Method::Patch, &path), needs, summary, |a| Box::pin(change::<R>(a)))
        .takes::<R::Change>()
        .gives(Gives::One(Shape::of::<R>()))
}

/// `DELETE /things/{id}`.
pub(super) fn to_delete<R: Deletable>() -> Route {
    let path = format!("/{}/{{id}}", R::PATH);
    let summary = format!("Deletes a {} that nothing needs any more.", R::ONE);
    let needs = (R::WRITE, place_of_id::<R>());
    Route::new((Method::Delete, &path), needs, summary, |a| Box::pin(delete::<R>(a)))
}

/// A `POST` to one thing's own path: `keys/{id}/revoke`.
pub(super) fn to_do<R: Resource>(
    verb: &str,
    summary: &str,
    handler: super::table::Handler,
) -> Route {
    let path = format!("/{}/{{id}}/{verb}", R::PATH);
    let needs = (R::WRITE, place_of_id::<R>());
    Route::new((Method::Post, &path), needs, summary, handler).gives(Gives::One(Shape::of::<R>()))
}

/// The page of a list.
pub(super) fn page<R: Resource>(asked: &Asked) -> Result<Page, Refusal> {
    let limit = asked.query.limit()? as usize;
    let after = asked.query.get("after");
    let directory = asked.governor.directory();
    let (caller, _) = asked.judge(&directory, asked.governor.now())?;
    let passes = |thing: &R| {
        R::FILTERS.iter().all(|(name, _, passes)| {
            asked.query.get(name).is_none_or(|wanted| passes(&caller, thing, wanted))
        })
    };
    let mut things = R::all(&directory)
        .filter(|thing| after.is_none_or(|after| thing.id().as_str() > after))
        .filter(|thing| passes(thing) && (R::SHARED || caller.may(R::READ, &thing.scope())));
    let page: Vec<_> = things.by_ref().take(limit).collect();
    let more = things.next().is_some();
    let next = page.last().filter(|_| more).map(|thing| thing.id().to_string());
    Ok(Page::new(page.into_iter().map(|thing| shown_more(asked, &**thing)).collect(), next))
}

fn list<R: Resource>(asked: &Asked) -> Result<Answer, Refusal> {
    Ok(Answer::json(&page::<R>(asked)?))
}

fn get<R: Resource>(asked: &Asked) -> Result<Answer, Refusal> {
    let directory = asked.governor.directory();
    asked.judge(&directory, asked.governor.now())?;
    let thing = R::find(&directory, &asked.id).ok_or_else(Refusal::hidden)?;
    Ok(Answer::json(&shown_more(asked, &**thing)))
}

/// Makes a thing.
pub(super) async fn create<R: Resource>(asked: Asked) -> Result<Answer, Refusal> {
    let new: R::New = asked.body()?;
    let made = asked.governor.edit(|directory, now| {
        let (caller, place) = asked.judge(directory, now)?;
        let thing = R::make(new, &caller, &place)?;
        let note = asked
            .note(now, &format!("{}.create", R::PATH), &thing.organisation(directory))
            .with("target", thing.id().as_str())
            .with("after", shown(&thing));
        Ok::<_, Refusal>((vec![Edit::put(&thing)], note.end(), thing))
    });
    let thing = made.await?;
    Ok(Answer::made(&shown_more(&asked, &thing)))
}

async fn change<R: Changeable>(asked: Asked) -> Result<Answer, Refusal> {
    let change: R::Change = asked.body()?;
    let thing =
        replace::<R>(&asked, "change", None, |old, caller| old.change(change, caller)).await?;
    thing.follow(&asked).await?;
    Ok(Answer::json(&shown_more(&asked, &thing)))
}

/// Puts a changed thing in the place of the one that the path names.
pub(super) async fn replace<R: Resource>(
    asked: &Asked,
    verb: &str,
    reason: Option<&str>,
    judge: impl FnOnce(&R, &Caller<'_>) -> Result<R, Refusal>,
) -> Result<R, Refusal> {
    let made = asked.governor.edit(|directory, now| {
        let (caller, _) = asked.judge(directory, now)?;
        let old = R::find(directory, &asked.id).ok_or_else(Refusal::hidden)?;
        let new = judge(old, &caller)?;
        let mut note = asked
            .note(now, &format!("{}.{verb}", R::PATH), &new.organisation(directory))
            .with("target", new.id().as_str())
            .with("before", shown(&**old))
            .with("after", shown(&new));
        if let Some(reason) = reason {
            note = note.with("reason", reason);
        }
        let edits = if **old == new { Vec::new() } else { vec![Edit::put(&new)] };
        Ok::<_, Refusal>((edits, note.end(), new))
    });
    made.await
}

async fn delete<R: Deletable>(asked: Asked) -> Result<Answer, Refusal> {
    let made = asked.governor.edit(|directory, now| {
        let (caller, _) = asked.judge(directory, now)?;
        let thing = R::find(directory, &asked.id).ok_or_else(Refusal::hidden)?;
        let children = thing.children(&caller);
        if !children.is_empty() {
            return Err(in_use(R::ONE, &children));
        }
        let mut edits = thing.along(&caller);
        edits.push(Edit::delete(&**thing));
        let note = asked
            .note(now, &format!("{}.delete", R::PATH), &thing.organisation(directory))
            .with("target", thing.id().as_str())
            .with("before", shown(&**thing));
        Ok::<_, Refusal>((edits, note.end(), ()))
    });
    made.await?;
    Ok(Answer::json(&serde_json::json!({ "id": asked.id, "deleted": true })))
}

fn in_use(one: &str, children: &[String]) -> Refusal {
    let shown: Vec<&str> = children.iter().take(CHILDREN_SHOWN).map(String::as_str).collect();
    let more = match children.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message =
        format!("This {one} is needed by {}{more}; delete or move them first.", shown.join(", "));
    Refusal::conflict("in_use", message)
}
