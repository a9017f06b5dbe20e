//! What requests know of image files; the encoders have C code, and read nothing of strangers.

#[path = "../../crates/server/src/image_file/format.rs"]
mod format;

pub(crate) use format::ImageFormat;

/// As in the server.
pub(crate) const MAX_COMPRESSION: u8 = 100;

/// As in the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageEncoding {
    pub(crate) format: ImageFormat,
    pub(crate) compression: u8,
}

impl Default for ImageEncoding {
    fn default() -> Self {
        Self { format: ImageFormat::Png, compression: MAX_COMPRESSION }
    }
}
