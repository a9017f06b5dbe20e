//! The seed of a request, and of each of its images.

use uuid::Uuid;

use super::fault::RequestFault;
use super::fields::Fields;

/// Seeds fit a signed 64-bit integer, as PyTorch's `manual_seed` wants them.
pub(super) const MAX_SEED: u64 = i64::MAX as u64;

/// The seed of image `index` of a request whose first image has the seed `first`: the one that gives this picture alone.
pub(crate) fn seed_of(first: u64, index: usize) -> u64 {
    first + index as u64
}

/// The seed of the first image; the last one's must be a seed, too.
pub(super) fn read(fields: &mut Fields<'_>, images: u64) -> Result<u64, RequestFault> {
    match fields.integer_or_minus_one("seed", 0..=MAX_SEED, "a random one")? {
        None => Ok(random()),
        Some(seed) if seed > MAX_SEED - (images - 1) => {
            let message = format!(
                "`seed` is {seed}, and image k uses seed + k; with {images} images it must be at most {}",
                MAX_SEED - (images - 1)
            );
            Err(RequestFault::invalid_value("seed", message))
        }
        Some(seed) => Ok(seed),
    }
}

/// 32 random bits, which is as much of a seed as the noise looks at; leaves room for the other images.
fn random() -> u64 {
    // The last 32 bits of a version 7 uuid are random.
    Uuid::now_v7().as_u64_pair().1 & u64::from(u32::MAX)
}
