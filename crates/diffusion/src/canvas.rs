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

/// A canvas that a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedCanvas {
    /// This and no other.
    Exactly(Canvas),
    /// This, or the next smaller one whose sides are multiples of what the model needs.
    UpTo(Canvas),
}

impl WantedCanvas {
    /// What it is for a model that needs multiples of `side` pixels.
    pub(crate) fn in_multiples_of(self, side: usize) -> Canvas {
        let smaller = |pixels: usize| pixels - pixels % side;
        match self {
            Self::UpTo(canvas) if canvas.width >= side && canvas.height >= side => {
                Canvas { width: smaller(canvas.width), height: smaller(canvas.height), ..canvas }
            }
            Self::Exactly(canvas) | Self::UpTo(canvas) => canvas,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_up_to_a_size_is_the_next_smaller_multiple() {
        let (wide, small) = (Canvas::picture(576, 432), Canvas::picture(16, 432));
        assert_eq!(WantedCanvas::UpTo(wide).in_multiples_of(16), wide);
        assert_eq!(WantedCanvas::UpTo(wide).in_multiples_of(32), Canvas::picture(576, 416));
        // Nothing would be left of it.
        assert_eq!(WantedCanvas::UpTo(small).in_multiples_of(32), small);
        assert_eq!(WantedCanvas::Exactly(wide).in_multiples_of(32), wide);
    }
}
