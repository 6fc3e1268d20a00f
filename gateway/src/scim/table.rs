//! The table of routes, and the router that is made of it: a route without a permission cannot be
//! written.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, any, on};
use govern::identity::mapping::GroupRule;
use govern::role::Permission;
use govern::{Governor, Id};

use super::answer::{Answer, Problem};
use super::asked::Asked;
use super::{BASE, groups, schemas, users};

/// What groups mean, by organisation.
pub type Rules = Arc<HashMap<Id, Vec<GroupRule>>>;

type Answering = Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send>>;

/// One route.
#[derive(Clone)]
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path below [`BASE`], with `{id}` where an id stands.
    pub path: &'static str,
    /// The permission that it asks for in the caller's own organisation.
    pub permission: Permission,
    handler: fn(Asked) -> Answering,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {BASE}{} ({})", self.method, self.path, self.permission.name())
    }
}

macro_rules! routes {
    ($($method:literal $path:literal $handler:path;)*) => {
        vec![$(Route {
            method: $method,
            path: $path,
            permission: Permission::Provision,
            handler: |asked| Box::pin($handler(asked)),
        },)*]
    };
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    routes! {
        "GET" "/ServiceProviderConfig" schemas::config;
        "GET" "/ResourceTypes" schemas::types;
        "GET" "/ResourceTypes/{id}" schemas::one_type;
        "GET" "/Schemas" schemas::all;
        "GET" "/Schemas/{id}" schemas::one;
        "POST" "/.search" groups::search_all;
        "GET" "/Users" users::list;
        "POST" "/Users/.search" users::search;
        "POST" "/Users" users::create;
        "GET" "/Users/{id}" users::get;
        "PUT" "/Users/{id}" users::replace;
        "PATCH" "/Users/{id}" users::patch;
        "DELETE" "/Users/{id}" users::delete;
        "GET" "/Groups" groups::list;
        "POST" "/Groups/.search" groups::search;
        "POST" "/Groups" groups::create;
        "GET" "/Groups/{id}" groups::get;
        "PUT" "/Groups/{id}" groups::replace;
        "PATCH" "/Groups/{id}" groups::patch;
        "DELETE" "/Groups/{id}" groups::delete;
    }
}

/// Everything below `/scim/v2`. To stand behind a layer that puts an `Arc` of a
/// [`govern::Principal`] into the request's extensions.
pub fn router<S: Clone + Send + Sync + 'static>(governor: Governor, rules: Rules) -> Router<S> {
    let mut router = Router::new();
    for route in routes() {
        let filter = match route.method {
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let path = format!("{BASE}{}", route.path);
        let serve = move |State((governor, rules)): State<(Governor, Rules)>, request| {
            serve(governor, rules, route.clone(), request)
        };
        router = router.route(&path, on(filter, serve));
    }
    router.route(&format!("{BASE}/{{*rest}}"), any(unknown)).with_state((governor, rules))
}

/// No such route, in SCIM's shape.
async fn unknown(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(256).collect();
    let why = format!("There is no route {} {path}.", request.method());
    Problem::new(404, why).into_response()
}

async fn serve(governor: Governor, rules: Rules, route: Route, request: Request) -> Response {
    let answer = match Asked::read(governor, rules, route.permission, request).await {
        Ok(asked) => (route.handler)(asked).await,
        Err(problem) => Err(problem),
    };
    match answer {
        Ok(answer) => answer.into_response(),
        Err(problem) => problem.into_response(),
    }
}
