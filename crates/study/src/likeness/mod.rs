//! How alike two pictures of one size are.
//!
//! The figures are those of scikit-image 0.26 on the same 8-bit pictures: `peak_signal_noise_ratio` and
//! `structural_similarity` with `channel_axis=-1` and their defaults; and the mean of NVIDIA's LDR-FLIP.

mod colour;
mod flip;
mod plane;
mod psnr;
mod ssim;

pub use flip::flip;
pub use psnr::{MAX_PSNR_DB, psnr_db};
pub use ssim::ssim;

use afterimage_runner::Size;

/// Two pictures that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LikenessError {
    /// They differ in size.
    #[error("a picture of {0} cannot be compared with one of {1}; both must have one size")]
    Sizes(Size, Size),
    /// A side is shorter than the window of SSIM.
    #[error("a picture of {0} is too small for SSIM; both sides must have at least 7 pixels")]
    TooSmall(Size),
}
