//! `hearth plan MODEL`: what a model will take, before it takes it.

use super::exit::{self, Failure, Outcome};
use crate::config::{Config, Flags, source};
use crate::wiring;

/// Flags of `hearth plan`: those of `hearth serve`, which would use the same plan.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model, as for `hearth serve --model` [default: those of the configuration]
    #[arg(value_name = "MODEL")]
    name: Option<String>,
    /// One JSON object per model
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Prints the plan of each model.
///
/// # Errors
/// A model does not open or does not fit.
pub fn run(args: &Args) -> Outcome {
    let config = Config::load(&args.flags, std::env::vars())?.config;
    let models = match &args.name {
        Some(name) => vec![source::model(name).map_err(exit::usage)?],
        None => config.models.clone(),
    };
    let device = wiring::Target::choose(&config)?;
    super::runtime(2)?.block_on(async {
        for model in &models {
            let planned = wiring::plan(&config, &device, model).await?;
            if args.json {
                exit::print(&format!("{}\n", planned.json()))?;
            } else {
                let (title, table) = (planned.title(), planned.table());
                exit::print(&format!("{title}\ndevice      {device}\n{table}"))?;
            }
        }
        Ok::<(), Failure>(())
    })
}
