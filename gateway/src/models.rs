//! The models that this server offers. Empty while they load, so that the server can listen, say
//! that it is not ready, and answer probes from its first moment.

use std::sync::{Arc, PoisonError, RwLock};

use crate::backend::local::EngineState;
use crate::backend::{Model, PoolModel};

/// The set of models. Handlers read it, the loader adds to it.
#[derive(Default)]
pub struct Models {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    models: Vec<Arc<Model>>,
    pools: Vec<Arc<PoolModel>>,
    loaded: bool,
    /// Nodes of the cluster will tell of models; none has yet.
    expects: bool,
}

impl Models {
    /// An empty set: not ready.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A model is loaded. The first one added answers requests that name no model.
    pub fn add(&self, model: Model) -> Arc<Model> {
        let model = Arc::new(model);
        self.write().models.push(Arc::clone(&model));
        model
    }

    /// Adds a model unless its name is taken; `false`: it is.
    pub fn add_new(&self, model: Model) -> bool {
        let mut state = self.write();
        if state.models.iter().any(|known| known.id == model.id) {
            return false;
        }
        state.models.push(Arc::new(model));
        true
    }

    /// Models will come from nodes of the cluster: until one has, nothing is ready.
    pub fn expect_nodes(&self) {
        self.write().expects = true;
    }

    /// A model that nodes of the cluster serve, in place of one of the same name that they served
    /// before. `false`: the name is taken by a model of this process.
    pub fn put_cluster(&self, model: Model) -> bool {
        let mut state = self.write();
        if state.has_own(&model.id) {
            return false;
        }
        let model = Arc::new(model);
        state.pools.retain(|known| known.id != model.id);
        match state.models.iter_mut().find(|known| known.id == model.id) {
            Some(known) => *known = model,
            None => state.models.push(model),
        }
        state.expects = false;
        true
    }

    /// As [`Models::put_cluster`], for a model that makes vectors or scores.
    pub fn put_cluster_pool(&self, model: PoolModel) -> bool {
        let mut state = self.write();
        if state.has_own(&model.id) {
            return false;
        }
        let model = Arc::new(model);
        state.models.retain(|known| known.id != model.id);
        match state.pools.iter_mut().find(|known| known.id == model.id) {
            Some(known) => *known = model,
            None => state.pools.push(model),
        }
        state.expects = false;
        true
    }

    /// A model of this process has this name.
    #[must_use]
    pub fn has_own(&self, id: &str) -> bool {
        self.read().has_own(id)
    }

    /// Takes an adapter off the list; open requests keep it until they end. `false`: there is no
    /// adapter of this name.
    pub fn remove_adapter(&self, id: &str) -> bool {
        let mut state = self.write();
        let at = state.models.iter().position(|m| m.id == id && m.adapter.is_some());
        let removed = at.map(|at| state.models.remove(at));
        drop(state);
        removed.is_some()
    }

    /// Takes a model that nodes have let go off the list; open requests keep it until they end.
    pub fn remove_cluster(&self, id: &str) {
        let far = |model: &Arc<Model>| model.id == id && model.engine.local().is_none();
        self.write().models.retain(|model| !far(model));
    }

    /// As [`Models::add`], for a model that makes vectors or scores.
    pub fn add_pool(&self, model: PoolModel) -> Arc<PoolModel> {
        let model = Arc::new(model);
        self.write().pools.push(Arc::clone(&model));
        model
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

    /// Those that are worth a place in a list for callers.
    #[must_use]
    pub fn offered(&self) -> Vec<Arc<Model>> {
        let mut all = self.list();
        all.retain(|model| model.engine.is_offered());
        all
    }

    /// The model of this name that makes vectors or scores.
    #[must_use]
    pub fn pool(&self, id: &str) -> Option<Arc<PoolModel>> {
        self.read().pools.iter().find(|model| model.id == id).map(Arc::clone)
    }

    /// All models that make vectors or scores, in the order of the configuration.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<PoolModel>> {
        self.read().pools.clone()
    }

    /// Of these, the ones that are worth a place in a list for callers.
    #[must_use]
    pub fn offered_pools(&self) -> Vec<Arc<PoolModel>> {
        let mut all = self.pools();
        all.retain(|model| model.engine.is_offered());
        all
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
        if state.expects && state.models.is_empty() && state.pools.is_empty() {
            return Err("no node of the cluster is there yet".to_owned());
        }
        let writing = state.models.iter().map(|m| (m.engine.local().is_some(), m.engine.state()));
        let reading = state.pools.iter().map(|m| (m.engine.local().is_some(), m.engine.state()));
        let (own, far): (Vec<_>, Vec<_>) = writing.chain(reading).partition(|(own, _)| *own);
        let any = !own.is_empty();
        own.into_iter().try_for_each(|(_, state)| is_ready(state))?;
        // A model whose nodes are away does not take the others with it.
        let mut far = far.into_iter().map(|(_, state)| is_ready(state));
        let Some(first) = far.next().filter(|_| !any) else { return Ok(()) };
        far.fold(first, Result::or)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_own(&self, id: &str) -> bool {
        let writes = |model: &Arc<Model>| model.id == id && model.engine.local().is_some();
        let reads = |model: &Arc<PoolModel>| model.id == id && model.engine.local().is_some();
        self.models.iter().any(writes) || self.pools.iter().any(reads)
    }
}

fn is_ready(state: EngineState) -> Result<(), String> {
    match state {
        EngineState::Ready => Ok(()),
        EngineState::Draining => Err("the server is shutting down".to_owned()),
        EngineState::Stopped(why) => Err(why),
    }
}
