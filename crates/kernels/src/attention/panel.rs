//! A panel of queries on its way into the product with keys, and what comes of it on its way out: both are transposed, as queries
//! are columns there.

use std::ops::Range;

use super::head::Head;
use crate::gemm::{FloatProduct, StripValue, Value};
use crate::simd::{MOST_LANES, Simd};

/// Values of the widest square.
const MOST_SQUARE: usize = MOST_LANES * MOST_LANES;

impl<T: Value> Head<'_, T> {
    /// `[step of channels, query, channel of the step]`; queries that are missing in the last panel are 0, and so is the
    /// channel that an odd number lacks in pairs. Scaled if they are f32.
    #[inline(always)]
    pub(super) fn pack_queries<S: Simd, P: FloatProduct>(
        &self,
        simd: S,
        queries: Range<usize>,
        width: usize,
        panel: &mut [P::A],
    ) {
        if queries.len() < width {
            panel.fill(P::A::default());
        }
        let squares = queries.len() / S::COUNT;
        let transposed = if self.transpose_queries::<S, P>(simd, queries.start, squares, width, panel) {
            squares * S::COUNT
        } else {
            0
        };
        let (query, head_size) = (self.attention.query, self.attention.head_size);
        for (column, token) in queries.enumerate().skip(transposed) {
            let vector = query.vector(self.row, token, self.head, head_size);
            for (step, values) in vector.chunks(P::DEPTH).enumerate() {
                let place = &mut panel[(step * width + column) * P::DEPTH..][..P::DEPTH];
                place[values.len()..].fill(P::A::default());
                place.iter_mut().zip(values).for_each(|(place, value)| *place = P::A::of(*value));
            }
        }
        P::A::scale(panel, self.attention.scale);
    }

    /// Transposes whole squares of queries and channels, the latter in steps, which are 32 bits; answers whether it can.
    #[inline(always)]
    fn transpose_queries<S: Simd, P: FloatProduct>(
        &self,
        simd: S,
        first: usize,
        squares: usize,
        width: usize,
        panel: &mut [P::A],
    ) -> bool {
        let (query, head_size) = (self.attention.query, self.attention.head_size);
        let steps = head_size / P::DEPTH;
        let is_whole = head_size.is_multiple_of(P::DEPTH) && query.token.is_multiple_of(P::DEPTH);
        let Some(values) = P::A::in_place(query.values).filter(|_| is_whole && steps >= S::COUNT) else {
            return false;
        };
        assert!(panel.len() >= steps * width * P::DEPTH && squares * S::COUNT <= width);
        for square in 0..squares {
            let from = self.row * query.row + (first + square * S::COUNT) * query.token + self.head * query.head;
            let last = (S::COUNT - 1) * query.token + head_size;
            let from = values[from..from + last].as_ptr().cast::<u32>();
            // The last square begins where it ends with the last channel.
            for step in (0..steps).step_by(S::COUNT).map(|step| step.min(steps - S::COUNT)) {
                // SAFETY: there are as many queries of as many channels, and as many steps of as many columns.
                unsafe {
                    let to = panel.as_mut_ptr().cast::<u32>().add(step * width + square * S::COUNT);
                    simd.transpose((from.add(step), query.token / P::DEPTH), (to, width));
                }
            }
        }
        true
    }

    /// Divides the sums `[channels, queries]` by their totals and writes them as `[queries, channels]`.
    #[inline(always)]
    pub(super) fn write<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        queries: Range<usize>,
        sums: &mut [f32],
        totals: [S::Lanes; VECTORS],
    ) {
        let width = VECTORS * S::COUNT;
        let head_size = self.attention.head_size;
        let factors = totals.map(|total| simd.div(simd.splat(1.0), total));
        for channel in sums.chunks_exact_mut(width).take(head_size) {
            for (vector, factor) in factors.iter().enumerate() {
                // SAFETY: the chunk has as many values.
                unsafe {
                    let place = channel.as_mut_ptr().add(vector * S::COUNT);
                    simd.store(simd.mul(simd.load(place), *factor), place);
                }
            }
        }
        let squares = if head_size >= S::COUNT { queries.len() / S::COUNT } else { 0 };
        for square in 0..squares {
            for channel in (0..head_size).step_by(S::COUNT).map(|channel| channel.min(head_size - S::COUNT)) {
                let mut transposed = [0u32; MOST_SQUARE];
                // SAFETY: there are as many channels of as many queries, and room for a square.
                unsafe {
                    let from = sums[channel * width + square * S::COUNT..].as_ptr().cast();
                    simd.transpose((from, width), (transposed.as_mut_ptr(), S::COUNT));
                }
                for index in 0..S::COUNT {
                    let place = self.place(queries.start + square * S::COUNT + index, channel);
                    // SAFETY: the square has as many rows, and the head as many channels.
                    unsafe {
                        let values = simd.load(transposed.as_ptr().add(index * S::COUNT).cast());
                        T::store(simd, values, place);
                    }
                }
            }
        }
        for (column, query) in queries.enumerate().skip(squares * S::COUNT) {
            let sums = sums[column..].iter().step_by(width).take(head_size);
            for (channel, sum) in sums.enumerate() {
                // SAFETY: the channel is one of the head's.
                unsafe { *self.place(query, channel) = T::of(*sum) };
            }
        }
    }

    /// Where a channel of a query's output goes. `run` has checked that there are as many values; this head's channels of these
    /// queries are no one else's.
    #[inline(always)]
    fn place(&self, query: usize, channel: usize) -> *mut T {
        let (heads, head_size, queries) = (self.attention.heads, self.attention.head_size, self.attention.queries);
        let index = ((self.row * queries + query) * heads + self.head) * head_size + channel;
        // SAFETY: the place is in the output, as said above.
        unsafe { self.output.0.add(index) }
    }
}
