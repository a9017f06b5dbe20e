//! What a model makes of a prompt, computed once per distinct prompt and kept for the next request.
//!
//! Entries are bounded by their bytes, and the least recently used is evicted first. Two requests
//! that bring the same new prompt at once compute it once: the second waits for the first. A prompt
//! that fails is not kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use afterimage_diffusion::families::Conditioning;
use lru::LruCache;

/// What an entry takes beside its prompt and its conditioning: the map's and the list's pointers.
const ENTRY_BYTES: usize = 128;

/// Counters of a prompt cache since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptCacheStatistics {
    /// Prompts whose conditioning was kept from an earlier request.
    pub hits: u64,
    /// Prompts whose conditioning was computed.
    pub misses: u64,
    /// Bytes kept, keys included.
    pub bytes: usize,
}

/// What can be kept; cloning it is cheap.
pub(crate) trait Keep: Clone {
    /// Memory it holds.
    fn bytes(&self) -> usize;
}

impl Keep for Conditioning {
    fn bytes(&self) -> usize {
        Conditioning::bytes(self)
    }
}

/// A text that is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PromptText {
    pub(crate) text: String,
    /// It is encoded as a negative prompt, where that makes a difference.
    pub(crate) is_negative: bool,
}

impl From<&str> for PromptText {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), is_negative: false }
    }
}

/// The conditioning of recent prompts.
pub(crate) struct PromptCache<C> {
    kept: Mutex<Kept<C>>,
    max_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Kept<C> {
    slots: LruCache<PromptText, Slot<C>>,
    bytes: usize,
}

struct Slot<C> {
    /// Locked while it is computed.
    conditioning: Arc<Mutex<Option<C>>>,
    /// Bytes it counts for; 0 until it is computed.
    bytes: usize,
}

impl<C: Keep> PromptCache<C> {
    /// A cache of at most `max_bytes`; with 0 nothing is kept.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let kept = Mutex::new(Kept { slots: LruCache::unbounded(), bytes: 0 });
        Self { kept, max_bytes, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// What was kept for the prompt, or what `compute` gives now.
    ///
    /// # Errors
    /// What `compute` returns.
    pub(crate) fn get_or_compute<E>(
        &self,
        prompt: &PromptText,
        compute: impl FnOnce() -> Result<C, E>,
    ) -> Result<C, E> {
        let slot = self.slot(prompt);
        let mut conditioning = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*conditioning {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(kept.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let computed = compute().inspect_err(|_| self.forget(prompt))?;
        *conditioning = Some(computed.clone());
        drop(conditioning);
        self.settle(prompt, &slot, computed.bytes());
        Ok(computed)
    }

    /// Whether the prompt's conditioning is there already. Does not count as asking for it.
    pub(crate) fn keeps(&self, prompt: &PromptText) -> bool {
        self.kept().slots.peek(prompt).is_some_and(|slot| slot.bytes > 0)
    }

    /// What was kept for the prompt. Does not count as asking for it.
    pub(crate) fn kept_for(&self, prompt: &PromptText) -> Option<C> {
        let slot = Arc::clone(&self.kept().slots.peek(prompt)?.conditioning);
        // One that is being computed is not there yet.
        slot.try_lock().ok()?.clone()
    }

    pub(crate) fn statistics(&self) -> PromptCacheStatistics {
        PromptCacheStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.kept().bytes,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<C>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, prompt: &PromptText) -> Arc<Mutex<Option<C>>> {
        let mut kept = self.kept();
        if let Some(slot) = kept.slots.get(prompt) {
            return Arc::clone(&slot.conditioning);
        }
        let conditioning = Arc::new(Mutex::new(None));
        kept.slots.put(prompt.clone(), Slot { conditioning: Arc::clone(&conditioning), bytes: 0 });
        conditioning
    }

    /// Drops a prompt that could not be computed.
    fn forget(&self, prompt: &PromptText) {
        let mut kept = self.kept();
        if kept.slots.peek(prompt).is_some_and(|slot| slot.bytes == 0) {
            kept.slots.pop(prompt);
        }
    }

    /// Counts a computed entry, and drops the ones asked for longest ago until all fit.
    fn settle(&self, prompt: &PromptText, computed: &Arc<Mutex<Option<C>>>, bytes: usize) {
        let bytes = bytes + prompt.text.len() + ENTRY_BYTES;
        let mut kept = self.kept();
        // It may have been dropped meanwhile, or be another one.
        if let Some(slot) = kept.slots.peek_mut(prompt).filter(|slot| Arc::ptr_eq(&slot.conditioning, computed)) {
            slot.bytes = bytes;
            kept.bytes += bytes;
        }
        while kept.bytes > self.max_bytes {
            let Some((_, slot)) = kept.slots.pop_lru() else { return };
            kept.bytes -= slot.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    impl Keep for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    fn get(cache: &PromptCache<usize>, prompt: &str, value: usize) -> usize {
        cache.get_or_compute(&prompt.into(), || Ok::<_, ()>(value)).unwrap()
    }

    #[test]
    fn a_prompt_is_computed_once() {
        let cache = PromptCache::new(10_000);
        assert!(!cache.keeps(&"a".into()));
        assert_eq!((get(&cache, "a", 1), get(&cache, "a", 2), get(&cache, "b", 3)), (1, 1, 3));
        assert!(cache.keeps(&"a".into()) && !cache.keeps(&"c".into()));
        assert_eq!((cache.kept_for(&"a".into()), cache.kept_for(&"c".into())), (Some(1), None));
        let PromptCacheStatistics { hits, misses, bytes } = cache.statistics();
        assert_eq!((hits, misses, bytes), (1, 2, 1 + 3 + 2 * (1 + ENTRY_BYTES)));
    }

    #[test]
    fn a_negative_prompt_is_another_text() {
        let cache = PromptCache::new(10_000);
        let negative = PromptText { is_negative: true, ..PromptText::from("a") };
        assert_eq!(get(&cache, "a", 1), 1);
        assert!(!cache.keeps(&negative));
        assert_eq!(cache.get_or_compute(&negative, || Ok::<_, ()>(2)), Ok(2));
        assert_eq!(get(&cache, "a", 3), 1);
    }

    #[test]
    fn the_prompt_asked_for_longest_ago_leaves_first() {
        let cache = PromptCache::new(2 * (ENTRY_BYTES + 1) + 100);
        get(&cache, "a", 50);
        get(&cache, "b", 50);
        get(&cache, "a", 0);
        assert_eq!(cache.kept_for(&"b".into()), Some(50), "which does not count as asking for it");
        get(&cache, "c", 50);
        assert_eq!((get(&cache, "a", 7), get(&cache, "c", 7)), (50, 50));
        assert_eq!(get(&cache, "b", 7), 7);
        assert!(cache.statistics().bytes <= 2 * (ENTRY_BYTES + 1) + 100);
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        for max_bytes in [0, 10] {
            let cache = PromptCache::new(max_bytes);
            assert_eq!((get(&cache, "a", 11), get(&cache, "a", 12)), (11, 12));
            assert_eq!(cache.statistics(), PromptCacheStatistics { hits: 0, misses: 2, bytes: 0 });
        }
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = PromptCache::new(10_000);
        assert_eq!(cache.get_or_compute(&"a".into(), || Err::<usize, _>("no")), Err("no"));
        assert_eq!(cache.statistics().bytes, 0);
        assert_eq!(get(&cache, "a", 5), 5);
    }

    #[test]
    fn requests_at_once_compute_once() {
        let cache = PromptCache::new(10_000);
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, start) = (&cache, &start);
                scope.spawn(move || {
                    start.wait();
                    get(cache, "a", thread)
                });
            }
        });
        assert_eq!((cache.statistics().misses, cache.statistics().hits), (1, 7));
    }
}
