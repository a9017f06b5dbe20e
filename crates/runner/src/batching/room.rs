//! What is done where a device has no memory left for the work it is given.
//!
//! Devices keep memory that nobody uses: what was freed, for the next allocation, and recorded blocks. That is given
//! back, and the work is done once more. A forward of several images is then made of fewer, and this many stay the most
//! for as long as images of their key run; so only an image that does not fit by itself fails. None of this is for the
//! CPU, where an allocation that fails ends the process.

use std::collections::HashMap;

use super::batch_key::BatchKey;
use super::shared_step::guarded;
use super::step_model::StepModel;
use crate::error::RunnerError;
use crate::memory::ran_out;

/// Runs a model's operation as [`guarded`] does, and once more if the device had no memory for it.
pub(super) fn with_room<M: StepModel, T>(
    model: &M,
    operation: impl Fn() -> Result<T, RunnerError>,
) -> Result<T, String> {
    match guarded(&operation) {
        Err(reason) if ran_out(&reason) => {
            make_room(model, &reason);
            guarded(operation).map_err(explained)
        }
        done => done,
    }
}

/// Has the device give back what nobody uses.
pub(super) fn make_room<M: StepModel>(model: &M, reason: &str) {
    tracing::warn!(reason, "the device has no memory left; it gives back what it keeps, and tries again");
    let freed = guarded(|| model.free_unused_memory());
    if let Err(reason) = freed {
        tracing::warn!(reason, "the device gives no memory back");
    }
}

/// The same for whoever wants the picture.
pub(super) fn explained(reason: String) -> String {
    match ran_out(&reason) {
        true => format!("the device has no memory left for this picture; a smaller size needs less ({reason})"),
        false => reason,
    }
}

/// The most rows of a forward, of keys whose images have run out of memory together.
#[derive(Debug, Default)]
pub(super) struct Room(HashMap<BatchKey, usize>);

impl Room {
    /// The most rows of a forward with this key; `limit` while it was not found to be less.
    pub(super) fn most_rows(&self, key: BatchKey, limit: usize) -> usize {
        self.0.get(&key).map_or(limit, |rows| limit.min(*rows))
    }

    /// So many rows are the most that fit, as far as is known.
    pub(super) fn note(&mut self, key: BatchKey, most_rows: usize) {
        self.0.insert(key, most_rows);
    }

    /// Forgets about keys without running images: later ones may find more room.
    pub(super) fn retire(&mut self, has_images: impl Fn(BatchKey) -> bool) {
        self.0.retain(|key, _| has_images(*key));
    }
}

/// How many of the images that come next fit into a forward of so many rows. One always does: there is no smaller
/// forward.
pub(super) fn images_within(rows: &[usize], most_rows: usize) -> usize {
    let sums = rows.iter().scan(0, |sum, rows| {
        *sum += rows;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= most_rows).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_has_as_many_images_as_fit_and_at_least_one() {
        for (rows, most_rows, images) in
            [(&[1, 1, 1][..], 2, 2), (&[1, 1, 1], 32, 3), (&[2, 1, 2], 4, 2), (&[2, 1, 2], 1, 1), (&[2], 0, 1)]
        {
            assert_eq!(images_within(rows, most_rows), images, "{rows:?} within {most_rows}");
        }
    }

    #[test]
    fn what_no_memory_was_left_for_says_what_needs_less() {
        let told = explained("CUDA_ERROR_OUT_OF_MEMORY".to_owned());
        assert!(told.contains("a smaller size needs less (CUDA_ERROR_OUT_OF_MEMORY)"), "{told}");
        assert_eq!(explained("CUDA_ERROR_ILLEGAL_ADDRESS".to_owned()), "CUDA_ERROR_ILLEGAL_ADDRESS");
    }
}
