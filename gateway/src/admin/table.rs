//! All routes in one table. A route cannot be written down without the permission that it asks for
//! and the place where it asks for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use govern::directory::Directory;
use govern::role::Permission;
use govern::{Id, Scope};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::answer::Answer;
use super::asked::Asked;
use super::caller::Caller;
use super::query::Known;
use super::refusal::Refusal;
use super::{BASE, resources, usage};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Look.
    Get,
    /// Make, or do.
    Post,
    /// Change.
    Patch,
    /// Delete.
    Delete,
}

impl Method {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// In which place a route's permission is asked for.
#[derive(Clone, Copy)]
pub enum Place {
    /// The deployment itself.
    Everything,
    /// Somewhere; of what a list holds, each thing is judged at its own place.
    Somewhere,
    /// The thing that the path names.
    Path(Find),
    /// What body or query name.
    Named(Pick),
}

/// Where the thing of an id lies.
#[derive(Clone, Copy)]
pub struct Find(pub(super) fn(&Directory, &Id) -> Option<Scope>);

/// What a request is about.
#[derive(Clone, Copy)]
pub struct Pick(pub(super) fn(&Caller<'_>, &Asked) -> Result<Scope, Refusal>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Place {
    /// In words.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Somewhere => "some place (what is listed is judged each at its own)",
            Self::Path(_) => "the thing named",
            Self::Named(_) => "the place named",
        }
    }
}

/// An answer that is being made.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>;

/// A handler.
pub(super) type Handler = fn(Asked) -> Answering;

/// A type as the document describes it.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: fn() -> std::borrow::Cow<'static, str>,
    pub(super) collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Shape {
    pub(super) fn of<T: ToSchema>() -> Self {
        fn collect<T: ToSchema>(out: &mut Vec<(String, RefOr<Schema>)>) {
            out.push((T::name().into(), T::schema()));
            T::schemas(out);
        }
        Self { name: T::name, collect: collect::<T> }
    }
}

/// What comes back.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    One(Shape),
    List(Shape),
    /// An object that the summary describes.
    Object,
    /// A text of a kind.
    Text(&'static str),
}

/// One route.
pub struct Route {
    method: Method,
    path: String,
    permission: Permission,
    place: Place,
    summary: String,
    query: Vec<Known>,
    pub(super) takes: Option<Shape>,
    pub(super) gives: Gives,
    pub(super) made: bool,
    handler: Handler,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, permission, place, .. } = self;
        write!(f, "{} {path} ({} at {place:?})", method.name(), permission.name())
    }
}

impl Route {
    pub(super) fn new(
        (method, path): (Method, &str),
        (permission, place): (Permission, Place),
        summary: impl Into<String>,
        handler: Handler,
    ) -> Self {
        Self {
            method,
            path: format!("{BASE}{path}"),
            permission,
            place,
            summary: summary.into(),
            query: Vec::new(),
            takes: None,
            gives: Gives::Object,
            made: false,
            handler,
        }
    }

    /// With parameters: their names and what they mean.
    pub(super) fn asks(mut self, query: &[Known]) -> Self {
        self.query.extend_from_slice(query);
        self
    }

    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        self.takes = Some(Shape::of::<T>());
        self
    }

    pub(super) fn gives(mut self, gives: Gives) -> Self {
        self.gives = gives;
        self
    }

    /// With another summary.
    pub(super) fn says(mut self, summary: &str) -> Self {
        summary.clone_into(&mut self.summary);
        self
    }

    /// With another handler.
    pub(super) fn handled_by(mut self, handler: Handler) -> Self {
        self.handler = handler;
        self
    }

    /// It answers 201.
    pub(super) fn makes(mut self) -> Self {
        self.made = true;
        self
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The whole path, with `{id}` where an id stands.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The permission that it asks for.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// Where it asks for it.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// What it does, in a sentence.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Parameters that it takes, and what they mean.
    #[must_use]
    pub fn query(&self) -> &[(&'static str, &'static str)] {
        &self.query
    }

    pub(super) fn run(&self, asked: Asked) -> Answering {
        (self.handler)(asked)
    }

    /// The id within a path of this route, as it is written there.
    pub(super) fn id_in<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mut parts = self.path.split('/').zip(path.split('/'));
        parts.find(|(pattern, _)| *pattern == "{id}").map(|(_, part)| part)
    }

    /// The place that a request is about.
    pub(super) fn about(&self, caller: &Caller<'_>, asked: &Asked) -> Result<Scope, Refusal> {
        match self.place {
            Place::Everything | Place::Somewhere => Ok(Scope::Everything),
            // Nothing lies below a key of no name: looked for as long as any other.
            Place::Path(find) => {
                Ok((find.0)(caller.directory, &asked.id)
                    .unwrap_or_else(|| Scope::Key(Id::default())))
            }
            Place::Named(pick) => (pick.0)(caller, asked),
        }
    }

    /// The place that a request is about, if the caller may do this there.
    pub(super) fn judge(&self, caller: &Caller<'_>, asked: &Asked) -> Result<Scope, Refusal> {
        let permission = self.permission;
        let about = self.about(caller, asked)?;
        let may = match self.place {
            Place::Somewhere => caller.may_somewhere(permission),
            Place::Everything | Place::Path(_) | Place::Named(_) => caller.may(permission, &about),
        };
        // That there is a deployment is no secret; what it has of its own may be one.
        let known = about == Scope::Everything && !matches!(self.place, Place::Path(_));
        match (may, known) {
            (true, _) => Ok(about),
            (false, true) => Err(Refusal::lacking(permission)),
            (false, false) => caller.require(permission, &about).map(|()| about),
        }
    }
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    let mut routes = resources::routes();
    routes.push(super::explain::route());
    routes.push(super::dry::route());
    routes.extend(usage::routes());
    routes.extend(super::audit::routes());
    routes.extend(super::bodies::routes());
    routes
}
