//! Names of stored pictures: nothing but what this module makes is ever part of a path.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::image_file::ImageFormat;

/// Digits of the number in a name.
const DIGITS: usize = 32;

/// The name of a stored picture, which nobody can guess: 122 random bits of the operating system, and
/// the format. Anyone who knows it may see the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageId {
    number: u128,
    format: ImageFormat,
}

impl ImageId {
    pub(super) fn new(format: ImageFormat) -> Self {
        Self { number: Uuid::new_v4().as_u128(), format }
    }

    pub(crate) fn format(self) -> ImageFormat {
        self.format
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}.{}", self.number, self.format)
    }
}

impl FromStr for ImageId {
    type Err = ();

    /// Accepts what [`Display`](fmt::Display) writes and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (digits, extension) = text.split_once('.').ok_or(())?;
        let format = ImageFormat::ALL.into_iter().find(|format| format.as_str() == extension).ok_or(())?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
            return Err(());
        }
        u128::from_str_radix(digits, 16).map(|number| Self { number, format }).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_never_the_same() {
        for format in ImageFormat::ALL {
            let id = ImageId::new(format);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_ne!(id, ImageId::new(format));
        }
    }

    #[test]
    fn nothing_else_is_an_id() {
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(format!("{digits}.png").parse::<ImageId>().is_ok());
        for text in [
            "../../etc/passwd".to_owned(),
            digits.to_owned(),
            format!("{digits}.gif"),
            format!("{digits}.png/../x"),
            format!("{digits}.PNG"),
            format!("{}.png", digits.to_uppercase()),
            format!("+{}.png", &digits[1..]),
            format!(".{digits}.png"),
            format!("{digits}0.png"),
            String::new(),
        ] {
            assert_eq!(text.parse::<ImageId>(), Err(()), "{text}");
        }
    }
}
