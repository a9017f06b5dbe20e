//! What the weights of components take in memory, counted while they are loaded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of the weights that were loaded from a model folder, by component.
#[derive(Debug, Clone, Default)]
pub struct LoadedWeights(Arc<Mutex<BTreeMap<String, Arc<Counters>>>>);

/// One component's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadedBytes {
    /// They were read, and are in memory.
    pub read: u64,
    /// They were only looked at, and will take as much when the component is loaded.
    pub on_demand: u64,
    /// The largest matrix that is widened for its products as a whole takes so much for that time.
    pub widened: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    read: AtomicU64,
    on_demand: AtomicU64,
    widened: AtomicU64,
}

impl LoadedWeights {
    /// So far, in the order of the components' names.
    pub fn by_component(&self) -> Vec<(String, LoadedBytes)> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|(name, counters)| (name.clone(), counters.bytes())).collect()
    }

    pub(super) fn of(&self, component: &str) -> Arc<Counters> {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(components.entry(component.to_owned()).or_default())
    }
}

impl Counters {
    pub(super) fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_on_demand(&self, bytes: u64) {
        self.on_demand.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes a matrix that is widened as a whole.
    pub(super) fn note_widened(&self, bytes: u64) {
        self.widened.fetch_max(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> LoadedBytes {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoadedBytes { read: value(&self.read), on_demand: value(&self.on_demand), widened: value(&self.widened) }
    }
}
