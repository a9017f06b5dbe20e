//! PNG files: lossless, and with what made the picture in text chunks.

use afterimage_runner::RgbImage;
use png::{BitDepth, ColorType, DeflateCompression, Encoder, EncodingError, Filter};

use super::metadata::PictureMetadata;

/// vLLM-Omni divides `output_compression` by this to get from 9, zlib's most thorough level, downwards.
const COMPRESSION_PER_LEVEL: u8 = 11;

pub(super) fn encode(
    image: &RgbImage,
    compression: u8,
    metadata: Option<&PictureMetadata<'_>>,
) -> Result<Vec<u8>, String> {
    write(image, compression, metadata).map_err(|error| error.to_string())
}

fn write(image: &RgbImage, compression: u8, metadata: Option<&PictureMetadata<'_>>) -> Result<Vec<u8>, EncodingError> {
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| EncodingError::LimitsExceeded);
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, side(image.size.width)?, side(image.size.height)?);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_deflate_compression(DeflateCompression::Level(zlib_level(compression)));
    encoder.set_filter(Filter::Adaptive);
    for (keyword, text) in metadata.iter().flat_map(|metadata| metadata.entries()) {
        // The one kind of text chunk that holds more than Latin-1.
        encoder.add_itxt_chunk(keyword.to_owned(), text)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.data)?;
    writer.finish()?;
    Ok(file)
}

/// zlib's level: 9 for 0, one less for every eleven, 1 at last. Level 0, which vLLM-Omni has for 100,
/// would not compress at all.
fn zlib_level(compression: u8) -> u8 {
    9_u8.saturating_sub(compression / COMPRESSION_PER_LEVEL).max(1)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use afterimage_runner::Size;

    use super::super::metadata::ImageMetadata;
    use super::*;

    #[test]
    fn levels_are_vllm_omnis_above_nothing() {
        assert_eq!([0, 10, 11, 50, 87, 88, 99, 100].map(zlib_level), [9, 9, 8, 5, 2, 1, 1, 1]);
    }

    #[test]
    fn text_chunks_say_what_made_the_picture() {
        let image = RgbImage { size: Size { width: 2, height: 1 }, data: vec![9; 6] };
        let request = ImageMetadata::for_tests();
        let metadata = request.of_picture(42, Some("DBCache_F1B0"));
        let file = encode(&image, 100, Some(&metadata)).unwrap();
        let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let chunks = &reader.info().utf8_text;
        let read: Vec<_> = chunks.iter().map(|chunk| (&*chunk.keyword, chunk.get_text().unwrap())).collect();
        assert_eq!(read, metadata.entries());
        for (keyword, text) in [("prompt", "red apple \u{1f34e}"), ("dtype", "bf16"), ("quantize", "int8")] {
            assert!(read.contains(&(keyword, text.to_owned())), "{keyword}");
        }
    }
}
