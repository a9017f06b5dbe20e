//! Where a convolution finds a pixel's neighbours, and where its result goes.

use crate::gemm::Value;

/// A picture, `[channels, height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a, T> {
    /// The values.
    pub values: &'a [T],
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
}

/// Some rows of a convolution's result, `[channels, rows, width]`.
#[derive(Debug)]
pub struct ConvolvedRows<'a> {
    /// The values, from the first channel's first row on.
    pub values: &'a mut [f32],
    /// From one channel to the next; more than its rows if they are some of a larger picture.
    pub stride: usize,
    /// They are added to what is there.
    pub adds: bool,
}

impl<T: Value> Picture<'_, T> {
    /// The pixels from `start` on of a channel shifted by `dy - 1` and `dx - 1`, line by line.
    #[inline(always)]
    pub(super) fn shift(&self, channel: &[T], start: usize, (dy, dx): (usize, usize), shifted: &mut [T]) {
        let mut done = 0;
        while done < shifted.len() {
            let (y, x) = ((start + done) / self.width, (start + done) % self.width);
            let length = (self.width - x).min(shifted.len() - done);
            let target = &mut shifted[done..done + length];
            done += length;
            // Row y + dy - 1 of the picture; one row of zeros lies before and after it.
            let Some(source) = (y + dy).checked_sub(1).filter(|row| *row < self.height) else {
                target.fill(T::ZERO);
                continue;
            };
            let source = &channel[source * self.width..][..self.width];
            // The first pixel of a line has no left neighbour, the last no right one.
            let first = usize::from(x + dx == 0);
            target[..first].fill(T::ZERO);
            let available = (self.width + 1 - (x + dx)).min(length);
            target[first..available].copy_from_slice(&source[x + dx + first - 1..][..available - first]);
            target[available..].fill(T::ZERO);
        }
    }
}
