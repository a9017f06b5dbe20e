//! What is painted on: the size of a picture, and later of a video's frames.

use std::fmt;

/// Width and height of a picture in pixels, and the number of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Canvas {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// 1 for a picture.
    pub frames: usize,
}

impl Canvas {
    /// That of one picture.
    pub fn picture(width: usize, height: usize) -> Self {
        Self { width, height, frames: 1 }
    }
}

/// `WxH`, and `WxHxF` of a video.
impl fmt::Display for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, frames } = self;
        match frames {
            1 => write!(f, "{width}x{height}"),
            frames => write!(f, "{width}x{height}x{frames}"),
        }
    }
}
