//! Picture sizes and the fixed list of sizes a model serves.

use std::fmt;
use std::str::FromStr;

/// Width and height of a picture in pixels. A size from the model's list is a *bucket*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
}

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size; write WIDTHxHEIGHT in pixels, such as 256x256")]
pub struct ParseSizeError(String);

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
}
