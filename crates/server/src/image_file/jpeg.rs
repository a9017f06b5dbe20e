//! JPEG files, baseline. From quality 90 on colors keep their full resolution.
//!
//! The encoder's optimized Huffman tables stay off: with halved colors (jpeg-encoder 0.7.1) their files
//! decode to noise.

use afterimage_runner::RgbImage;
use jpeg_encoder::{ColorType, Encoder};

pub(super) fn encode(image: &RgbImage, quality: u8) -> Result<Vec<u8>, String> {
    let side = |pixels: usize| u16::try_from(pixels).map_err(|_| format!("a side has at most {} pixels", u16::MAX));
    let (width, height) = (side(image.size.width)?, side(image.size.height)?);
    let mut file = Vec::new();
    // The scale of JPEG begins at 1.
    let encoder = Encoder::new(&mut file, quality.max(1));
    encoder.encode(&image.data, width, height, ColorType::Rgb).map_err(|error| error.to_string())?;
    Ok(file)
}
