//! The generic kernels' entries, compiled here once for f32 and once for bf16. A generic function is compiled anew in every
//! crate that calls it, and each of these is several kernels on four instruction sets.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use crate::attention::Attention;
use crate::convolution::{Convolution, ConvolvedRows, Picture};
use crate::gemm::{self, Activation, Epilogue, PackedWeights, Rows, Value, WeightRows, Widen, widening};
use crate::group_norm::Channels;
use crate::norm::{LayerNorm, NormAndTurn};

/// A type of values that kernels are compiled for: f32 and bf16.
pub trait KernelType: Value {
    #[doc(hidden)]
    fn multiply(a: Rows<'_, Self>, b: &PackedWeights, epilogue: &Epilogue<'_, Self>, c: &mut [MaybeUninit<Self>]);
    #[doc(hidden)]
    fn multiply_widened(
        a: Rows<'_, Self>,
        b: &Widen<'_>,
        sizes: (usize, usize),
        epilogue: &Epilogue<'_, Self>,
        c: &mut [MaybeUninit<Self>],
    ) -> bool;
    #[doc(hidden)]
    fn attend(attention: &Attention<'_, Self>, output: &mut [Self]);
    #[doc(hidden)]
    fn layer_norm(norm: &LayerNorm<'_, Self>, x: &[Self], output: &mut [Self]);
    #[doc(hidden)]
    fn norm_and_turn(change: &NormAndTurn<'_, Self>, x: &[Self], stride: usize, output: &mut [Self]);
    #[doc(hidden)]
    fn activate(activation: Activation, values: &mut [Self]);
    #[doc(hidden)]
    fn scale_shift_silu(map: Channels<'_>, scale: &[f32], shift: &[f32], output: &mut [MaybeUninit<Self>]);
    #[doc(hidden)]
    fn convolve(convolution: &Convolution, rows: Range<usize>, picture: Picture<'_, Self>, output: ConvolvedRows<'_>);
}

macro_rules! compile_for {
    ($value:ty) => {
        impl KernelType for $value {
            #[inline(never)]
            fn multiply(
                a: Rows<'_, Self>,
                b: &PackedWeights,
                epilogue: &Epilogue<'_, Self>,
                c: &mut [MaybeUninit<Self>],
            ) {
                gemm::multiply(a, b, epilogue, c);
            }

            #[inline(never)]
            fn multiply_widened(
                a: Rows<'_, Self>,
                b: &Widen<'_>,
                sizes: (usize, usize),
                epilogue: &Epilogue<'_, Self>,
                c: &mut [MaybeUninit<Self>],
            ) -> bool {
                gemm::multiply_widened(a, b, sizes, epilogue, c)
            }

            #[inline(never)]
            fn attend(attention: &Attention<'_, Self>, output: &mut [Self]) {
                attention.run(output);
            }

            #[inline(never)]
            fn layer_norm(norm: &LayerNorm<'_, Self>, x: &[Self], output: &mut [Self]) {
                norm.run(x, output);
            }

            #[inline(never)]
            fn norm_and_turn(change: &NormAndTurn<'_, Self>, x: &[Self], stride: usize, output: &mut [Self]) {
                change.run(x, stride, output);
            }

            #[inline(never)]
            fn activate(activation: Activation, values: &mut [Self]) {
                crate::activate::activate(activation, values);
            }

            #[inline(never)]
            fn scale_shift_silu(map: Channels<'_>, scale: &[f32], shift: &[f32], output: &mut [MaybeUninit<Self>]) {
                crate::group_norm::scale_shift_silu(map, scale, shift, output);
            }

            #[inline(never)]
            fn convolve(by: &Convolution, rows: Range<usize>, picture: Picture<'_, Self>, output: ConvolvedRows<'_>) {
                by.run(rows, picture, output);
            }
        }
    };
}

compile_for!(f32);
compile_for!(bf16);

/// The product with packed weights, and the epilogue: C, `[rows, outputs]`.
///
/// # Panics
/// If a slice has another length than the sizes say.
pub fn multiply<T: KernelType>(a: Rows<'_, T>, b: &PackedWeights, epilogue: &Epilogue<'_, T>) -> Vec<T> {
    let length = a.rows * b.outputs();
    let mut c = Vec::with_capacity(length);
    T::multiply(a, b, epilogue, &mut c.spare_capacity_mut()[..length]);
    // SAFETY: all values are written.
    unsafe { c.set_len(length) };
    c
}

/// The product with weights of `[outputs, inputs]` that are widened a few rows at a time, and the epilogue: C, `[rows, outputs]`.
///
/// # Errors
/// What `b` answers.
///
/// # Panics
/// If a slice has another length than the sizes say.
pub fn multiply_widened<T: KernelType, B: WeightRows + ?Sized>(
    a: Rows<'_, T>,
    b: &B,
    (outputs, inputs): (usize, usize),
    epilogue: &Epilogue<'_, T>,
) -> Result<Vec<T>, B::Error> {
    let length = a.rows * outputs;
    widening(b, |b| {
        let mut c = Vec::with_capacity(length);
        let all = T::multiply_widened(a, b, (outputs, inputs), epilogue, &mut c.spare_capacity_mut()[..length]);
        all.then(|| {
            // SAFETY: all values are written.
            unsafe { c.set_len(length) };
            c
        })
    })
}

/// Writes `[rows, queries, heads, head size]`, contiguous. Without keys all of it is 0.
///
/// # Panics
/// If a slice is shorter than the sizes and strides say.
pub fn attend<T: KernelType>(attention: &Attention<'_, T>, output: &mut [T]) {
    T::attend(attention, output);
}

/// The norm of `x`, `[tokens, size]`, contiguous.
///
/// # Panics
/// If a slice has another length than the sizes say.
pub fn layer_norm<T: KernelType>(norm: &LayerNorm<'_, T>, x: &[T], output: &mut [T]) {
    T::layer_norm(norm, x, output);
}

/// Norm and turn of `x`, tokens of `vectors * size` values that begin `stride` apart, into `[tokens, vectors, size]`. The
/// tokens of a row have the angles in order, and so have those of the next row.
///
/// # Panics
/// If a slice is shorter than the sizes say, or vectors that are to be turned have an odd size.
pub fn norm_and_turn<T: KernelType>(change: &NormAndTurn<'_, T>, x: &[T], stride: usize, output: &mut [T]) {
    T::norm_and_turn(change, x, stride, output);
}

/// Replaces every value by its activation. NaN stays NaN.
pub fn activate<T: KernelType>(activation: Activation, values: &mut [T]) {
    T::activate(activation, values);
}

/// The norm of some pixels of every channel `c`, and SiLU: `y / (1 + exp(-y))` of `y = scale[c] * x + shift[c]`;
/// `[channels, pixels]`.
///
/// # Panics
/// If there are not as many scales or shifts as channels, the map ends before the last channel's pixels, or channels overlap.
pub fn scale_shift_silu<T: KernelType>(map: Channels<'_>, scale: &[f32], shift: &[f32]) -> Vec<T> {
    let length = map.count * map.pixels;
    let mut output = Vec::with_capacity(length);
    T::scale_shift_silu(map, scale, shift, &mut output.spare_capacity_mut()[..length]);
    // SAFETY: all values are written.
    unsafe { output.set_len(length) };
    output
}

/// `rows` of a picture's convolution: `[output channels, rows, width]`, of the doubled picture where the convolution
/// doubles.
///
/// # Panics
/// If a slice is shorter than the sizes say, or rows are beyond the picture.
pub fn convolve<T: KernelType>(
    convolution: &Convolution,
    rows: Range<usize>,
    picture: Picture<'_, T>,
    output: ConvolvedRows<'_>,
) {
    T::convolve(convolution, rows, picture, output);
}
