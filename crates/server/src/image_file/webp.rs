//! WebP files, lossy at every quality.

use afterimage_runner::RgbImage;
use webp::{Encoder, PixelLayout};

use super::format::ImageFormat;

pub(super) fn encode(image: &RgbImage, quality: u8) -> Result<Vec<u8>, String> {
    let most = ImageFormat::Webp.max_side();
    let side = |pixels: usize| {
        let fits = u32::try_from(pixels).ok().filter(|_| (1..=most).contains(&pixels));
        fits.ok_or_else(|| format!("a side has 1 to {most} pixels"))
    };
    let encoder = Encoder::new(&image.data, PixelLayout::Rgb, side(image.size.width)?, side(image.size.height)?);
    let file = encoder.encode_simple(false, f32::from(quality)).map_err(|error| format!("{error:?}"))?;
    Ok(file.to_vec())
}
