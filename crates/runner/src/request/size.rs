//! Picture sizes and the fixed list of sizes a model serves.

use std::fmt;
use std::str::FromStr;

use afterimage_diffusion::Canvas;

/// A picture of the wrong shape is cropped or stretched by whoever asked for it, one of the wrong area
/// only scaled.
const SHAPE_WEIGHT: f64 = 4.0;

/// Width and height of a picture in pixels. A size from the model's list is a *bucket*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
}

/// What happens to a request for a size that is no bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BucketPolicy {
    /// It is refused.
    #[default]
    Reject,
    /// It gets the nearest bucket.
    Nearest,
}

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size; write WIDTHxHEIGHT in pixels, such as 256x256")]
pub struct ParseSizeError(String);

impl Size {
    /// Of a picture's canvas.
    pub(crate) fn of(canvas: Canvas) -> Self {
        Self { width: canvas.width, height: canvas.height }
    }

    /// As model families take it.
    pub(crate) fn canvas(self) -> Canvas {
        Canvas::picture(self.width, self.height)
    }

    /// The bucket nearest to this size in shape and, a quarter as important, in area. Of equally near
    /// ones the first.
    pub(crate) fn nearest(self, buckets: &[Self]) -> Option<Self> {
        let distance = |bucket: &Self| {
            let wider = (bucket.width as f64 / self.width as f64).ln();
            let higher = (bucket.height as f64 / self.height as f64).ln();
            SHAPE_WEIGHT * (wider - higher).abs() + (wider + higher).abs()
        };
        buckets.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// Width times height.
    pub fn pixels(&self) -> usize {
        self.width.saturating_mul(self.height)
    }
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let side = |digits: &str| -> Option<usize> {
            let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|side| all_digits && *side > 0)
        };
        let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        sides.map(|(width, height)| Self { width, height }).ok_or_else(|| ParseSizeError(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_positive_integers_around_an_x() {
        assert_eq!("96x64".parse(), Ok(Size { width: 96, height: 64 }));
        assert_eq!(Size { width: 96, height: 64 }.to_string(), "96x64");
        for text in [
            "", "x", "1024", "1024x", "x1024", "0x64", "-1x64", "+64x64", " 64x64", "64 x 64", "64x64x3", "6.4x64",
            "64X64",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_nearest_bucket_is_the_one_of_like_shape_and_area() {
        let size = |text: &str| text.parse::<Size>().unwrap();
        let buckets = ["512x512", "1024x1024", "1344x768", "768x1344"].map(size);
        for (asked, nearest) in [
            ("512x512", "512x512"),
            ("900x1024", "1024x1024"),
            ("500x520", "512x512"),
            ("1920x1080", "1344x768"),
            ("16x64", "768x1344"),
            ("600x1300", "768x1344"),
        ] {
            assert_eq!(size(asked).nearest(&buckets), Some(size(nearest)), "{asked}");
        }
        assert_eq!(size("64x64").nearest(&[]), None);
    }
}
