//! The things that administrators make, one file each.

mod budgets;
mod keys;
mod prices;
mod roles;
mod tree;
mod users;

use govern::entity::{Budget, Key, Organisation, PriceSheet, Project, Role, Team, User};

pub(super) use budgets::standing_of;

use super::resource::{Changeable, Deletable, create, to_change, to_delete, to_make, to_read};
use super::table::Route;

/// The routes of all of them.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    routes.extend(usual::<Organisation>());
    routes.extend(usual::<Team>());
    routes.extend(usual::<Project>());
    routes.extend(usual::<User>());
    routes.extend(users::routes());
    routes.extend(roles::with_built_in(usual::<Role>()));
    routes.extend(to_read::<Key>());
    let make = to_make::<Key>(|asked| Box::pin(keys::create(asked)));
    routes.push(make.says("Makes a key; the answer has it as `key`, this once."));
    routes.push(to_change::<Key>());
    routes.extend(keys::routes());
    routes.extend(usual::<Budget>());
    routes.push(budgets::raise());
    // Sheets are never changed: a new one follows.
    routes.extend(to_read::<PriceSheet>());
    routes.push(to_make::<PriceSheet>(|asked| Box::pin(create::<PriceSheet>(asked))));
    routes
}

fn usual<R: Changeable + Deletable>() -> Vec<Route> {
    let mut routes = to_read::<R>();
    routes.push(to_make::<R>(|asked| Box::pin(create::<R>(asked))));
    routes.push(to_change::<R>());
    routes.push(to_delete::<R>());
    routes
}
