//! How long text encoders stay in memory.
//!
//! They are larger than many transformers and work for a moment per prompt. Offloaded ones are loaded
//! for the first prompt that needs them while somebody encodes prompts (a [`Stay`]), and freed when
//! the last stay ends. Several prompts encoded in one stay load them once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::DiffusionError;

/// What leaves the memory while it is not needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    #[default]
    None,
    /// Text encoders.
    TextEncoders,
}

/// The offloaded models of one pipeline.
#[derive(Default)]
pub struct Residency {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stays: usize,
    models: Vec<Weak<dyn Unload>>,
}

/// Prompts are being encoded: what is loaded stays until the last of these is dropped.
pub struct Stay<'a>(&'a Residency);

/// A model that is there always, or while it is needed.
pub(super) enum Resident<M> {
    Always(M),
    Offloaded(Arc<OnDemand<M>>),
}

/// A model and how to load it.
pub(super) struct OnDemand<M> {
    load: Box<Loader<M>>,
    loaded: Mutex<Option<Arc<M>>>,
}

type Loader<M> = dyn Fn() -> Result<M, DiffusionError> + Send + Sync;

trait Unload: Send + Sync {
    /// Says whether there was something to free.
    fn unload(&self) -> bool;
}

impl Residency {
    /// Keeps what is loaded from now on until the guard is dropped.
    pub fn stay(&self) -> Stay<'_> {
        self.state().stays += 1;
        Stay(self)
    }

    /// A model that `load` loads whenever it is needed.
    pub(super) fn on_demand<M: Send + Sync + 'static>(
        &self,
        load: impl Fn() -> Result<M, DiffusionError> + Send + Sync + 'static,
    ) -> Resident<M> {
        let model = Arc::new(OnDemand { load: Box::new(load), loaded: Mutex::new(None) });
        let shared: Weak<OnDemand<M>> = Arc::downgrade(&model);
        self.state().models.push(shared);
        Resident::Offloaded(model)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends a stay. The number of models that were freed.
    fn leave(&mut self) -> usize {
        self.stays -= 1;
        if self.stays > 0 {
            return 0;
        }
        self.models.iter().filter_map(Weak::upgrade).filter(|model| model.unload()).count()
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        // Under the lock, so that no new stay loses what it has just loaded.
        let freed = self.0.state().leave();
        if freed > 0 {
            afterimage_kernels::return_freed_memory();
        }
    }
}

impl<M> Resident<M> {
    /// The model at work, loaded first if it has to be.
    ///
    /// # Errors
    /// If it cannot be loaded, and what `work` returns.
    pub(super) fn with<T>(&self, work: impl FnOnce(&M) -> Result<T, DiffusionError>) -> Result<T, DiffusionError> {
        match self {
            Self::Always(model) => work(model),
            Self::Offloaded(model) => work(&*model.get()?),
        }
    }
}

impl<M> OnDemand<M> {
    fn get(&self) -> Result<Arc<M>, DiffusionError> {
        // Held while loading: whoever comes meanwhile waits for the one copy.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*loaded {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new((self.load)()?);
        *loaded = Some(Arc::clone(&model));
        Ok(model)
    }
}

impl<M: Send + Sync> Unload for OnDemand<M> {
    fn unload(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Counts its likes that live.
    struct Model(Arc<AtomicUsize>);

    impl Drop for Model {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    struct Counted {
        residency: Residency,
        model: Resident<Model>,
        living: Arc<AtomicUsize>,
        loads: Arc<AtomicUsize>,
    }

    impl Counted {
        fn new() -> Self {
            let (residency, living, loads) = (Residency::default(), Arc::<AtomicUsize>::default(), Arc::default());
            let (lives, loaded) = (Arc::clone(&living), Arc::clone(&loads));
            let model = residency.on_demand(move || {
                AtomicUsize::fetch_add(&loaded, 1, Ordering::SeqCst);
                lives.fetch_add(1, Ordering::SeqCst);
                Ok(Model(Arc::clone(&lives)))
            });
            Self { residency, model, living, loads }
        }

        fn work(&self) {
            let living = self.model.with(|_| Ok(self.living.load(Ordering::SeqCst))).unwrap();
            assert_eq!(living, 1);
        }

        fn living_and_loads(&self) -> (usize, usize) {
            (self.living.load(Ordering::SeqCst), self.loads.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn a_model_is_loaded_once_in_a_stay_and_freed_behind_it() {
        let counted = Counted::new();
        drop(counted.residency.stay());
        assert_eq!(counted.living_and_loads(), (0, 0));
        for loads in 1..3 {
            let stay = counted.residency.stay();
            counted.work();
            counted.work();
            assert_eq!(counted.living_and_loads(), (1, loads));
            drop(stay);
            assert_eq!(counted.living_and_loads(), (0, loads));
        }
    }

    #[test]
    fn the_last_stay_frees() {
        let counted = Counted::new();
        let (first, second) = (counted.residency.stay(), counted.residency.stay());
        counted.work();
        drop(first);
        counted.work();
        assert_eq!(counted.living_and_loads(), (1, 1));
        drop(second);
        assert_eq!(counted.living_and_loads(), (0, 1));
    }

    #[test]
    fn threads_at_once_share_one_copy() {
        let counted = Counted::new();
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                let (counted, start) = (&counted, &start);
                scope.spawn(move || {
                    let _stay = counted.residency.stay();
                    start.wait();
                    counted.work();
                });
            }
        });
        assert_eq!(counted.living_and_loads().0, 0);
    }

    #[test]
    fn a_failure_to_load_is_told_and_tried_again() {
        let residency = Residency::default();
        let broken = residency.on_demand(|| Err::<(), _>(DiffusionError::Prompt("gone".to_owned())));
        let _stay = residency.stay();
        for _ in 0..2 {
            assert_eq!(broken.with(|()| Ok(())).unwrap_err().to_string(), "gone");
        }
    }
}
