//! The kinds of image files, and what they are called where.

use std::fmt;

use afterimage_runner::Size;

/// A kind of image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// The longest side that its files can have.
    pub(super) fn max_side(self) -> usize {
        match self {
            Self::Png => i32::MAX as usize,
            Self::Jpeg => u16::MAX as usize,
            // libwebp's `WEBP_MAX_DIMENSION`.
            Self::Webp => 16_383,
        }
    }

    /// Whether its files can have pictures of this size; the error says what would be right.
    pub(crate) fn check_size(self, size: Size) -> Result<(), String> {
        let most = self.max_side();
        if size.width.max(size.height) <= most {
            return Ok(());
        }
        Err(format!(
            "a {self} file has at most {most} pixels a side, and this picture is {size}; a png file can be larger"
        ))
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

    #[test]
    fn formats_know_the_longest_side() {
        let check = |format: ImageFormat, width| format.check_size(Size { width, height: 64 });
        for (format, most) in [(ImageFormat::Jpeg, 65_535), (ImageFormat::Webp, 16_383)] {
            assert_eq!(check(format, most), Ok(()));
            let message = check(format, most + 1).unwrap_err();
            assert!(message.contains(&most.to_string()) && message.contains("png"), "{message}");
        }
        assert_eq!(check(ImageFormat::Png, 1 << 20), Ok(()));
    }
}
