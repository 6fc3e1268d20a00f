//! Price sheets. What tokens cost is the same for everybody and no secret of anybody's: who may see
//! prices somewhere sees all sheets. Only who may do so everywhere puts one in force.

use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::PriceSheet;
use govern::price::ModelPrice;
use govern::role::Permission;
use govern::{Id, Millis, Scope};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::admin::caller::Caller;
use crate::admin::check;
use crate::admin::refusal::Refusal;
use crate::admin::resource::{Filter, Resource};

/// What a sheet is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct PriceSheetNew {
    /// Once in the deployment.
    name: String,
    /// The first matching entry counts; micro-dollars per million tokens.
    models: Vec<ModelPrice>,
    /// From when; milliseconds since 1970, at once where nothing is said.
    #[serde(default)]
    effective_from: Option<Millis>,
}

impl Resource for PriceSheet {
    const PATH: &'static str = "prices";
    const ONE: &'static str = "price sheet";
    const READ: Permission = Permission::PricesRead;
    const WRITE: Permission = Permission::PricesWrite;
    const SHARED: bool = true;
    const FILTERS: &'static [Filter<Self>] =
        &[("name", "Only the one of this name.", |_, sheet, name| sheet.name == name)];
    type New = PriceSheetNew;

    fn all(directory: &Directory) -> Box<dyn Iterator<Item = &Arc<Self>> + '_> {
        Box::new(directory.sheets())
    }

    fn find<'d>(directory: &'d Directory, id: &Id) -> Option<&'d Arc<Self>> {
        directory.prices(id)
    }

    fn scope(&self) -> Scope {
        Scope::Everything
    }

    fn organisation(&self, _directory: &Directory) -> String {
        String::new()
    }

    fn place_of(_new: &PriceSheetNew, _caller: &Caller<'_>) -> Result<Scope, Refusal> {
        Ok(Scope::Everything)
    }

    fn make(new: PriceSheetNew, caller: &Caller<'_>, _place: &Scope) -> Result<Self, Refusal> {
        check::name("name", &new.name)?;
        let mut made = Self::new(&new.name, new.models, caller.now);
        if let Some(from) = new.effective_from {
            check::future("effective_from", from, caller.now)?;
            made.effective_from = from;
        }
        made.check().map_err(|why| Refusal::invalid(field_of(&why), format!("{why}.")))?;
        Ok(made)
    }
}

fn field_of(why: &str) -> &str {
    why.split_once(':').map_or("models", |(field, _)| field)
}
