//! Pictures in stripes of whole lines, so that what is made on the way from one feature map to the next
//! never is as large as they are.

use std::ops::Range;

use candle_core::{Result, Tensor};

/// A stripe of a doubled map, normalised, and what a convolution makes of it.
const STRIPES_AT_ONCE: usize = 3;
/// Of a pixel of the picture itself: three colours in f32, in up to four copies on their way to bytes.
const PICTURE_BYTES: usize = 4 * 3 * 4;

/// How much of a feature map there is at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stripes {
    /// Values of a stripe; a line is always taken whole.
    pub(super) stripe_values: usize,
    /// A doubled feature map of more values is not stored but made again wherever it is read.
    pub(super) most_stored_values: usize,
}

impl Default for Stripes {
    /// In f32 stripes of 64 MiB, 32 lines of 256 channels of a picture 2048 wide; and 512 MiB, which only
    /// the last doubling exceeds, and that in pictures beyond 724x724.
    fn default() -> Self {
        Self { stripe_values: 16 << 20, most_stored_values: 128 << 20 }
    }
}

/// Lines of a picture, and the line on each side that a 3x3 convolution looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stripe {
    pub(super) lines: Range<usize>,
    /// `lines` and their neighbours, as far as there are any.
    pub(super) seen: Range<usize>,
}

impl Stripes {
    /// Bytes that decoding to so many pixels takes at the worst moment, which is that of the last doubling: `finest` and `coarser`
    /// are the channels behind it and before it, and values have `value_bytes`.
    pub(super) fn decode_bytes(self, pixels: usize, finest: usize, coarser: usize, value_bytes: usize) -> usize {
        // What a block reads and writes.
        let maps = 2 * pixels * finest;
        let doubled = pixels * coarser;
        // Else it is made again from what it is doubled from.
        let source = if doubled <= self.most_stored_values { doubled } else { doubled / 4 };
        let stripes = STRIPES_AT_ONCE * self.stripe_values.min(doubled);
        (maps + source + stripes) * value_bytes + PICTURE_BYTES * pixels
    }

    /// The stripes of a picture of `height` lines of `line_values`, from the top.
    pub(super) fn of(self, height: usize, line_values: usize) -> impl Iterator<Item = Stripe> {
        let lines = (self.stripe_values / line_values.max(1)).max(1);
        (0..height).step_by(lines).map(move |start| {
            let end = (start + lines).min(height);
            Stripe { lines: start..end, seen: start.saturating_sub(1)..(end + 1).min(height) }
        })
    }
}

impl Stripe {
    /// `lines` as counted from the first that is seen.
    pub(super) fn lines_seen(&self) -> Range<usize> {
        self.lines.start - self.seen.start..self.lines.end - self.seen.start
    }
}

/// A map `[1, channels, height, width]` of which `make` gives the lines of each stripe.
pub(super) fn in_stripes(
    height: usize,
    stripes: impl Iterator<Item = Stripe>,
    make: impl Fn(&Stripe) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut map: Option<Tensor> = None;
    for stripe in stripes {
        let lines = make(&stripe)?.contiguous()?;
        if stripe.lines.len() == height {
            return Ok(lines);
        }
        let map = match &map {
            Some(map) => map,
            None => {
                let (_, channels, _, width) = lines.dims4()?;
                map.insert(Tensor::zeros((1, channels, height, width), lines.dtype(), lines.device())?)
            }
        };
        map.slice_set(&lines, 2, stripe.lines.start)?;
    }
    map.ok_or_else(|| candle_core::Error::Msg("a picture without lines".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/measurements.md` has what the published VAE takes in f32.
    #[test]
    fn what_decoding_takes_is_close_to_what_was_measured() {
        for (side, measured) in [(512, 0.67e9), (1024, 1.55e9), (2048, 5.58e9)] {
            let bytes = Stripes::default().decode_bytes(side * side, 128, 256, 4) as f64;
            assert!((1.0..1.15).contains(&(bytes / measured)), "{side}: {bytes}");
        }
    }

    #[test]
    fn stripes_cover_the_picture_and_see_their_neighbours() {
        let stripes = Stripes { stripe_values: 35, most_stored_values: 0 };
        let found: Vec<_> = stripes.of(7, 10).collect();
        let stripe = |lines, seen| Stripe { lines, seen };
        assert_eq!(found, [stripe(0..3, 0..4), stripe(3..6, 2..7), stripe(6..7, 5..7)]);
        assert_eq!(found[1].lines_seen(), 1..4);
        assert_eq!(stripes.of(2, 1000).count(), 2, "a line is taken whole");
        assert_eq!(Stripes::default().of(64, 512 * 64).count(), 1);
    }
}
