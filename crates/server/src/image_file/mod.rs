//! Pictures as files: PNG, JPEG and WebP.
//!
//! Encoding blocks and never runs on the async runtime. What `output_compression` (0 to 100)
//! means depends on the format: for JPEG and WebP it is the quality, 100 the best. A PNG has the same
//! pixels whatever it is; there it says how little effort goes into making the file small, with
//! vLLM-Omni's mapping to zlib's levels.

mod format;
mod jpeg;
mod metadata;
mod picture_files;
mod png;
mod webp;

use afterimage_runner::RgbImage;

use metadata::PictureMetadata;

pub(crate) use format::ImageFormat;
pub(crate) use metadata::ImageMetadata;
pub(crate) use picture_files::picture_files;

/// The least compression: the best quality, the quickest PNG.
pub(crate) const MAX_COMPRESSION: u8 = 100;

/// What kind of file a picture becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageEncoding {
    pub(crate) format: ImageFormat,
    /// 0 to [`MAX_COMPRESSION`], as in OpenAI's `output_compression`.
    pub(crate) compression: u8,
}

/// A picture that cannot become a file.
#[derive(Debug, thiserror::Error)]
#[error("a picture of {width}x{height} pixels cannot become a {format} file: {reason}")]
pub(crate) struct EncodeError {
    width: usize,
    height: usize,
    format: ImageFormat,
    reason: String,
}

impl Default for ImageEncoding {
    fn default() -> Self {
        Self { format: ImageFormat::Png, compression: MAX_COMPRESSION }
    }
}

impl ImageEncoding {
    /// The picture as a file. Only a PNG has room for `metadata` that everyone can read.
    pub(crate) fn encode(
        self,
        image: &RgbImage,
        metadata: Option<&PictureMetadata<'_>>,
    ) -> Result<Vec<u8>, EncodeError> {
        let (width, height) = (image.size.width, image.size.height);
        let fail = |reason| EncodeError { width, height, format: self.format, reason };
        if image.data.len() != width * height * 3 {
            return Err(fail(format!("it has {} bytes of pixels instead of {}", image.data.len(), width * height * 3)));
        }
        match self.format {
            ImageFormat::Png => png::encode(image, self.compression, metadata),
            ImageFormat::Jpeg => jpeg::encode(image, self.compression),
            ImageFormat::Webp => webp::encode(image, self.compression),
        }
        .map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use afterimage_runner::Size;

    use super::*;

    /// A picture with edges, ramps and some texture, as lossy formats meet them.
    fn picture() -> RgbImage {
        let size = Size { width: 96, height: 64 };
        let pixel = |x: usize, y: usize| {
            let disc = (x as f64 - 40.0).hypot(y as f64 - 30.0) < 20.0;
            let texture = (x * 7 + y * 13) % 16;
            [if disc { 220 } else { x * 2 }, y * 3, if disc { 40 + texture } else { 128 + texture }]
        };
        let pixels = (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| pixel(x, y)));
        RgbImage { size, data: pixels.map(|level| u8::try_from(level).unwrap()).collect() }
    }

    fn encode(format: ImageFormat, compression: u8) -> Vec<u8> {
        ImageEncoding { format, compression }.encode(&picture(), None).unwrap()
    }

    /// RGB pixels, read by a decoder that is not the encoder's.
    fn decode(format: ImageFormat, file: &[u8]) -> Vec<u8> {
        match format {
            ImageFormat::Png => {
                let mut reader = ::png::Decoder::new(Cursor::new(file)).read_info().unwrap();
                let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
                let frame = reader.next_frame(&mut pixels).unwrap();
                assert_eq!((frame.width, frame.height, frame.color_type), (96, 64, ::png::ColorType::Rgb));
                pixels
            }
            ImageFormat::Jpeg => {
                let mut decoder = zune_jpeg::JpegDecoder::new(Cursor::new(file));
                let pixels = decoder.decode().unwrap();
                let info = decoder.info().unwrap();
                assert_eq!((info.width, info.height), (96, 64));
                pixels
            }
            ImageFormat::Webp => {
                let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).unwrap();
                assert_eq!((decoder.dimensions(), decoder.has_alpha(), decoder.is_lossy()), ((96, 64), false, true));
                let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
                decoder.read_image(&mut pixels).unwrap();
                pixels
            }
        }
    }

    fn psnr(format: ImageFormat, compression: u8) -> f64 {
        let (original, decoded) = (picture().data, decode(format, &encode(format, compression)));
        assert_eq!(original.len(), decoded.len());
        let squares = original.iter().zip(&decoded).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
        let mean = squares.sum::<f64>() / original.len() as f64;
        10.0 * (255.0_f64.powi(2) / mean).log10()
    }

    #[test]
    fn files_shrink_with_the_compression() {
        for format in ImageFormat::ALL {
            let sizes = [100, 50, 10].map(|compression| encode(format, compression).len());
            assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{format}: {sizes:?}");
        }
    }

    #[test]
    fn a_png_never_loses_a_pixel() {
        for compression in [0, 1, 50, 99, 100] {
            let file = encode(ImageFormat::Png, compression);
            assert_eq!(decode(ImageFormat::Png, &file), picture().data, "{compression}");
        }
    }

    #[test]
    fn quality_rises_with_the_compression_setting() {
        // 30 dB is where people begin to see a difference, 40 dB where they stop to. WebP always halves
        // the resolution of its colors, which the texture of the test picture pays for.
        for (format, best) in [(ImageFormat::Jpeg, 45.0), (ImageFormat::Webp, 30.0)] {
            let levels = [0, 20, 60, 100].map(|compression| psnr(format, compression));
            assert!(levels.is_sorted(), "{format}: {levels:?}");
            assert!(levels[3] > best && levels[2] > 25.0, "{format}: {levels:?}");
        }
    }

    #[test]
    fn pictures_no_format_can_hold_are_errors() {
        let image = RgbImage { size: Size { width: 4, height: 4 }, data: vec![0; 3] };
        let long = RgbImage { size: Size { width: 70_000, height: 1 }, data: vec![0; 210_000] };
        for format in ImageFormat::ALL {
            let encoding = ImageEncoding { format, compression: 100 };
            let error = encoding.encode(&image, None).unwrap_err().to_string();
            assert!(error.contains("4x4") && error.contains("3 bytes"), "{error}");
            assert_eq!(encoding.encode(&long, None).is_ok(), format == ImageFormat::Png);
            let side = |pixels| RgbImage { size: Size { width: pixels, height: 1 }, data: vec![0; 3 * pixels] };
            if format != ImageFormat::Png {
                assert!(encoding.encode(&side(format.max_side()), None).is_ok(), "{format}");
                assert!(encoding.encode(&side(format.max_side() + 1), None).is_err(), "{format}");
            }
        }
    }
}
