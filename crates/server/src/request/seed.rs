//! The seed of a request.

use afterimage_runner::Seeds;
use uuid::Uuid;

use super::fault::RequestFault;
use super::fields::Fields;

/// The seed of the first image; the last one's must be a seed, too.
pub(super) fn read(fields: &mut Fields<'_>, images: u64) -> Result<u64, RequestFault> {
    match fields.integer_or_minus_one("seed", 0..=Seeds::LARGEST, "a random one")? {
        None => Ok(random()),
        Some(seed) if seed > Seeds::LARGEST - (images - 1) => {
            let message = format!(
                "`seed` is {seed}, and image k uses seed + k; with {images} images it must be at most {}",
                Seeds::LARGEST - (images - 1)
            );
            Err(RequestFault::invalid_value("seed", message))
        }
        Some(seed) => Ok(seed),
    }
}

/// 32 random bits, all that the noise uses of a seed; leaves room for the other images.
fn random() -> u64 {
    // The last 32 bits of a version 7 uuid are random.
    Uuid::now_v7().as_u64_pair().1 & u64::from(u32::MAX)
}
