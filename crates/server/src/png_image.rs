//! Pictures as PNG files.

use afterimage_runner::RgbImage;

/// The picture as a PNG file, lossless.
pub(crate) fn encode(image: &RgbImage) -> Result<Vec<u8>, png::EncodingError> {
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| png::EncodingError::LimitsExceeded);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side(image.size.width)?, side(image.size.height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.data)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use afterimage_runner::Size;

    use super::*;

    #[test]
    fn a_decoder_gets_the_same_pixels_back() {
        let size = Size { width: 3, height: 2 };
        let image = RgbImage { size, data: (0..18).map(|value| value * 14).collect() };
        let file = encode(&image).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height, frame.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(pixels, image.data);
    }

    #[test]
    fn too_few_pixels_are_an_error() {
        assert!(encode(&RgbImage { size: Size { width: 4, height: 4 }, data: vec![0; 3] }).is_err());
    }
}
