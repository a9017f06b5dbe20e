//! Finished pictures.

use crate::request::Size;

/// An 8-bit RGB picture, rows from top to bottom, no padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Width and height.
    pub size: Size,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}
