//! The models that this server offers. Empty while they load, so that the server can listen, say
//! that it is not ready, and answer probes from its first moment.

use std::sync::{Arc, PoisonError, RwLock};

use crate::backend::Model;
use crate::backend::local::EngineState;

/// The set of models. Handlers read it, the loader adds to it.
#[derive(Default)]
pub struct Models {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    models: Vec<Arc<Model>>,
    loaded: bool,
}

impl Models {
    /// An empty set: not ready.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A model is loaded. The first one added answers requests that name no model.
    pub fn add(&self, model: Model) {
        self.write().models.push(Arc::new(model));
    }

    /// All models that were asked for are loaded.
    pub fn set_loaded(&self) {
        self.write().loaded = true;
    }

    /// The model of this name.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Model>> {
        self.read().models.iter().find(|model| model.id == id).map(Arc::clone)
    }

    /// The model for requests that name none.
    #[must_use]
    pub fn first(&self) -> Option<Arc<Model>> {
        self.read().models.first().map(Arc::clone)
    }

    /// All models, in the order of the configuration.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Model>> {
        self.read().models.clone()
    }

    /// For `/ready`: all models are loaded and all their engines take requests.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.read();
        if !state.loaded {
            return Err("models are being loaded".to_owned());
        }
        for model in &state.models {
            match model.engine.state() {
                EngineState::Ready => {}
                EngineState::Draining => return Err("the server is shutting down".to_owned()),
                EngineState::Stopped(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
