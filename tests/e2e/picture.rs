//! Pictures in responses and files, compared by their pixels.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Decoded RGB pixels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pixels: Vec<u8>,
}

impl Picture {
    pub(crate) fn from_png(file: &[u8]) -> Self {
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Self { width: frame.width, height: frame.height, pixels }
    }

    /// A picture in any format the server writes, told by how its file begins.
    pub(crate) fn from_file(file: &[u8]) -> Self {
        match file {
            [0x89, b'P', b'N', b'G', ..] => Self::from_png(file),
            [b'R', b'I', b'F', b'F', ..] => {
                let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).unwrap();
                let (width, height) = decoder.dimensions();
                let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
                decoder.read_image(&mut pixels).unwrap();
                Self { width, height, pixels }
            }
            _ => {
                let mut decoder = zune_jpeg::JpegDecoder::new(Cursor::new(file));
                let pixels = decoder.decode().unwrap();
                let info = decoder.info().unwrap();
                Self { width: info.width.into(), height: info.height.into(), pixels }
            }
        }
    }

    /// Picture `index` of a response.
    pub(crate) fn of(response: &Value, index: usize) -> Self {
        Self::in_object(&response["data"][index])
    }

    /// The picture in the `b64_json` of an object.
    pub(crate) fn in_object(object: &Value) -> Self {
        Self::from_png(&STANDARD.decode(object["b64_json"].as_str().unwrap()).unwrap())
    }

    /// Peak signal-to-noise ratio in dB; infinite for equal pictures.
    pub(crate) fn psnr(&self, other: &Self) -> f64 {
        assert_eq!((self.width, self.height), (other.width, other.height));
        let squares = self.pixels.iter().zip(&other.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
        let mean = squares.sum::<f64>() / self.pixels.len() as f64;
        10.0 * (255.0_f64.powi(2) / mean).log10()
    }

    /// Largest difference of two pictures of the same size, in levels of 255.
    pub(crate) fn difference(&self, other: &Self) -> u8 {
        assert_eq!((self.width, self.height), (other.width, other.height));
        self.pixels.iter().zip(&other.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    /// Mean red, green and blue.
    pub(crate) fn mean(&self) -> [f64; 3] {
        let pixels = self.pixels.len() as f64 / 3.0;
        [0, 1, 2].map(|channel| {
            let values = self.pixels.iter().skip(channel).step_by(3);
            values.map(|value| f64::from(*value)).sum::<f64>() / pixels
        })
    }
}
