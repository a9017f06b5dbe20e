//! Buffers that begin where a cache line does, so that no register is loaded from two lines.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A cache line of zeros, or of anything else of its size.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

const LINE_BYTES: usize = 64;

/// Types whose values may be any bits.
///
/// # Safety
/// All bit patterns are values, and alignment is at most that of a line.
pub(crate) unsafe trait Plain: Copy + Default + Send + Sync + 'static {}

// SAFETY: all bit patterns are numbers.
unsafe impl Plain for f32 {}
// SAFETY: all bit patterns are numbers.
unsafe impl Plain for u16 {}
// SAFETY: all bit patterns are numbers.
unsafe impl Plain for u8 {}
// SAFETY: all bit patterns are numbers.
unsafe impl Plain for i32 {}

/// Values that begin on a cache line.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    length: usize,
    values: std::marker::PhantomData<T>,
}

impl<T: Plain> Aligned<T> {
    /// Zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        Self::over(Vec::new(), length)
    }

    /// In the memory of `lines`, whose values are kept as far as they go.
    fn over(mut lines: Vec<Line>, length: usize) -> Self {
        let needed = (length * size_of::<T>()).div_ceil(LINE_BYTES);
        if lines.len() < needed {
            lines.resize(needed, Line([0; LINE_BYTES]));
        }
        Self { lines, length, values: std::marker::PhantomData }
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold at least as many values, whose bits may be anything, and are aligned.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

thread_local! {
    /// Buffers that this thread has used and will use again.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `length` values of this thread's own, of any content: what an earlier call left there. Memory is
/// asked for once per thread, size and depth of nesting.
pub(crate) fn with_scratch<T: Plain, R>(length: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let mut buffer = Aligned::over(lines, length);
    let result = work(&mut buffer);
    FREE.with_borrow_mut(|free| free.push(buffer.lines));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_on_lines_and_are_used_again() {
        let first = with_scratch::<f32, _>(100, |values| {
            assert_eq!(values.len(), 100);
            values.fill(7.0);
            with_scratch::<u16, _>(3, |inner| assert_ne!(inner.as_ptr().cast(), values.as_ptr()));
            values.as_ptr() as usize
        });
        assert_eq!(first % LINE_BYTES, 0);
        assert!(Aligned::<f32>::zeros(33).iter().all(|value| *value == 0.0));
    }
}
