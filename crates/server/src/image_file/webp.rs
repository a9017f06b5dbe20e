//! WebP files, lossy at every quality.

use afterimage_runner::RgbImage;
use webp::{Encoder, PixelLayout};

/// libwebp's `WEBP_MAX_DIMENSION`.
const MAX_SIDE: u32 = 16_383;

pub(super) fn encode(image: &RgbImage, quality: u8) -> Result<Vec<u8>, String> {
    let side = |pixels: usize| match u32::try_from(pixels) {
        Ok(side @ 1..=MAX_SIDE) => Ok(side),
        _ => Err(format!("a side has 1 to {MAX_SIDE} pixels")),
    };
    let encoder = Encoder::new(&image.data, PixelLayout::Rgb, side(image.size.width)?, side(image.size.height)?);
    let file = encoder.encode_simple(false, f32::from(quality)).map_err(|error| format!("{error:?}"))?;
    Ok(file.to_vec())
}
