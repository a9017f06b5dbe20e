//! Rows of small tensors that are made from a number each, and come to the device when that is met first.
//!
//! Steps of all images have the same few timesteps, so that from then on a step of a known schedule uploads none of them.

use std::sync::{Mutex, PoisonError};

use candle_core::{Result, Tensor};
use lru::LruCache;

/// Rows that are kept, of a kibibyte each where they are sinusoids.
const KEPT: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1024).expect("not zero");

/// `[1, ..]` each, by the bits of their number. The one that was not used for longest goes first.
#[derive(Debug)]
pub(crate) struct KnownRows(Mutex<LruCache<u32, Tensor>>);

impl KnownRows {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }

    /// Those of these numbers, `[numbers, ..]`; `make` makes the ones that nobody knows.
    pub(crate) fn gather(
        &self,
        numbers: impl IntoIterator<Item = u32>,
        make: impl Fn(u32) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = numbers.into_iter().map(|number| known.try_get_or_insert(number, || make(number)).cloned());
        Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_are_made_once_and_stand_in_order() {
        let (known, made) = (KnownRows::new(), Cell::new(0));
        let gather = |numbers: &[u32]| {
            let make = |number: u32| {
                made.set(made.get() + 1);
                Tensor::new(&[[number, 2 * number]], &Device::Cpu)
            };
            known.gather(numbers.iter().copied(), make).unwrap().to_vec2::<u32>().unwrap()
        };
        assert_eq!(gather(&[3, 1, 3]), [[3, 6], [1, 2], [3, 6]]);
        assert_eq!((gather(&[1]), made.get()), (vec![vec![1, 2]], 2));
        (10..10 + KEPT.get() as u32).for_each(|number| drop(gather(&[number])));
        made.set(0);
        assert_eq!((gather(&[3]), made.get()), (vec![vec![3, 6]], 1), "it was not used for longest");
    }

    #[test]
    fn what_cannot_be_made_is_an_error_and_not_kept() {
        let known = KnownRows::new();
        let made = known.gather([7], |number| candle_core::bail!("there is no {number}"));
        assert!(made.unwrap_err().to_string().contains("there is no 7"));
        assert!(known.gather([7], |number| Tensor::new(&[number], &Device::Cpu)).is_ok());
    }
}
