//! The kinds of image files, and what they are called where.

use std::fmt;

/// A kind of image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ImageFormat {
    /// Lossless.
    Png,
    /// Lossy.
    Jpeg,
    /// Lossy, smaller than JPEG.
    Webp,
}

impl ImageFormat {
    pub(crate) const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::Webp];

    /// The name in `output_format`, and the ending of files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// The media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The format of a file with this ending, in either case.
    pub(crate) fn of_extension(extension: &str) -> Option<Self> {
        let extension = extension.to_ascii_lowercase();
        let name = if extension == "jpg" { "jpeg" } else { &*extension };
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_formats() {
        assert_eq!(ImageFormat::of_extension("JPG"), Some(ImageFormat::Jpeg));
        for format in ImageFormat::ALL {
            assert_eq!(ImageFormat::of_extension(format.as_str()), Some(format));
        }
        assert_eq!(ImageFormat::of_extension("gif"), None);
    }
}
