//! Peak signal-to-noise ratio.

use afterimage_runner::RgbImage;

use super::LikenessError;

/// What equal pictures get: their ratio is infinite, which neither JSON nor a mean can hold.
pub const MAX_PSNR_DB: f64 = 99.0;
const PEAK: f64 = 255.0;

/// The ratio of all channels together in decibels, at most [`MAX_PSNR_DB`]; larger is more alike.
///
/// # Errors
/// If the pictures differ in size.
pub fn psnr_db(reference: &RgbImage, picture: &RgbImage) -> Result<f64, LikenessError> {
    if reference.size != picture.size {
        return Err(LikenessError::Sizes(reference.size, picture.size));
    }
    let pairs = reference.data.iter().zip(&picture.data);
    let squares: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    let error = squares as f64 / reference.data.len() as f64;
    Ok((10.0 * (PEAK * PEAK / error).log10()).min(MAX_PSNR_DB))
}
