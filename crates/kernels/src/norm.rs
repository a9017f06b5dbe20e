//! Norms of tokens, with what follows them before anything else reads the result: one read and one write of each value.
//! The arithmetic is f32 whatever the values are stored in, and rounds once.

use rayon::prelude::*;

use crate::gemm::Value;
use crate::map::{map, sum};
use crate::parallel::units_per_part;
use crate::simd::{Kernel, Simd, dispatch};

/// Layer norm (arXiv 1607.06450) of every token, and the modulation that adaLN puts after it:
/// `((x - mean) / sqrt(variance + eps) * weight + bias) * (1 + scale) + shift`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a, T> {
    /// Values of a token.
    pub size: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[size]`, both or neither.
    pub affine: Option<(&'a [T], &'a [T])>,
    /// What rows are moved by.
    pub modulation: Option<Modulation<'a, T>>,
}

/// Scale and shift of some tokens each.
#[derive(Debug, Clone, Copy)]
pub struct Modulation<'a, T> {
    /// `[rows, size]`, rows `stride` apart.
    pub scale: &'a [T],
    /// `[rows, size]`, rows `stride` apart.
    pub shift: &'a [T],
    /// From one row to the next.
    pub stride: usize,
    /// Tokens that have the same.
    pub tokens: usize,
}

impl<T: Value> LayerNorm<'_, T> {
    /// As [`layer_norm`](crate::layer_norm).
    pub(crate) fn run(&self, x: &[T], output: &mut [T]) {
        assert_eq!(x.len(), output.len(), "length of the output");
        if x.is_empty() {
            return;
        }
        assert!(self.size > 0 && x.len().is_multiple_of(self.size), "{} values in tokens of {}", x.len(), self.size);
        if let Some((weight, bias)) = self.affine {
            assert!(weight.len() == self.size && bias.len() == self.size, "length of weight and bias");
        }
        if let Some(Modulation { scale, shift, stride, tokens }) = self.modulation {
            let end = ((x.len() / self.size).div_ceil(tokens) - 1) * stride + self.size;
            assert!(end <= scale.len() && end <= shift.len(), "length of scale and shift");
        }
        each_token(x, output, self.size, |first, x, output| dispatch(Tokens { norm: self, first, x, output }));
    }
}

/// Calls `work` with the number of the first token, and tokens and their place in the output, on all threads.
fn each_token<T: Value>(x: &[T], output: &mut [T], size: usize, work: impl Fn(usize, &[T], &mut [T]) + Sync) {
    let tokens = units_per_part(x.len() / size, size);
    if x.len() <= tokens * size {
        return work(0, x, output);
    }
    let parts = x.par_chunks(tokens * size).zip(output.par_chunks_mut(tokens * size)).enumerate();
    parts.for_each(|(part, (x, output))| work(part * tokens, x, output));
}

struct Tokens<'a, T> {
    norm: &'a LayerNorm<'a, T>,
    first: usize,
    x: &'a [T],
    output: &'a mut [T],
}

impl<T: Value> Kernel for Tokens<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let LayerNorm { size, eps, affine, modulation } = *self.norm;
        let tokens = self.x.chunks_exact(size).zip(self.output.chunks_exact_mut(size));
        for (index, (x, output)) in tokens.enumerate() {
            let mean = sum(simd, x, |_, x| x, |x| x) / size as f32;
            let away = simd.splat(mean);
            let squares = sum(
                simd,
                x,
                |simd, x| {
                    let away = simd.sub(x, away);
                    simd.mul(away, away)
                },
                |x| (x - mean) * (x - mean),
            );
            let factor = 1.0 / (squares / size as f32 + eps).sqrt();
            let modulation = modulation.map(|Modulation { scale, shift, stride, tokens }| {
                let start = (self.first + index) / tokens * stride;
                (&scale[start..][..size], &shift[start..][..size])
            });
            let (mean, factor) = (simd.splat(mean), simd.splat(factor));
            map(simd, x, output, |simd, x, at| {
                let mut value = simd.mul(simd.sub(x, mean), factor);
                if let Some((weight, bias)) = affine {
                    value = simd.mul_add(value, at.load(simd, weight), at.load(simd, bias));
                }
                if let Some((scale, shift)) = modulation {
                    let scale = simd.add(at.load(simd, scale), simd.splat(1.0));
                    value = simd.mul_add(value, scale, at.load(simd, shift));
                }
                value
            });
        }
    }
}

/// Root mean square norm (arXiv 1910.07467) of every vector, `x / sqrt(mean of squares + eps) * weight`, and the turn of its
/// neighbouring pairs of values by a token's angles (rotary positions, arXiv 2104.09864).
#[derive(Debug, Clone, Copy)]
pub struct NormAndTurn<'a, T> {
    /// Vectors of a token: heads.
    pub vectors: usize,
    /// Values of a vector.
    pub size: usize,
    /// Weight, `[size]`, and epsilon of the norm.
    pub norm: Option<(&'a [T], f32)>,
    /// Angles.
    pub turn: Option<Turn<'a>>,
}

/// Cosines and sines, `[tokens of a row, size / 2]`.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Of the angles.
    pub cosines: &'a [f32],
    /// Of the angles.
    pub sines: &'a [f32],
}

impl<T: Value> NormAndTurn<'_, T> {
    /// As [`norm_and_turn`](crate::norm_and_turn).
    pub(crate) fn run(&self, x: &[T], stride: usize, output: &mut [T]) {
        let width = self.vectors * self.size;
        if output.is_empty() {
            return;
        }
        assert!(width > 0 && output.len().is_multiple_of(width), "{} values in tokens of {width}", output.len());
        assert!(stride >= width && (output.len() / width - 1) * stride + width <= x.len(), "length of x");
        if let Some((weight, _)) = self.norm {
            assert_eq!(weight.len(), self.size, "length of the weight");
        }
        if let Some(Turn { cosines, sines }) = self.turn {
            assert!(self.size.is_multiple_of(2), "pairs of an odd number of values");
            assert!(!cosines.is_empty() && cosines.len() == sines.len(), "as many cosines as sines");
            assert!(cosines.len().is_multiple_of(self.size / 2), "length of the angles");
        }
        let tokens = units_per_part(output.len() / width, width);
        output.par_chunks_mut(tokens * width).enumerate().for_each(|(part, output)| {
            dispatch(Vectors { of: self, first: part * tokens, x, stride, output });
        });
    }
}

struct Vectors<'a, T> {
    of: &'a NormAndTurn<'a, T>,
    first: usize,
    x: &'a [T],
    stride: usize,
    output: &'a mut [T],
}

impl<T: Value> Kernel for Vectors<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let NormAndTurn { vectors, size, norm, turn } = *self.of;
        for (index, token) in self.output.chunks_exact_mut(vectors * size).enumerate() {
            let number = self.first + index;
            let x = &self.x[number * self.stride..][..vectors * size];
            for (x, output) in x.chunks_exact(size).zip(token.chunks_exact_mut(size)) {
                let factor = norm.map_or(1.0, |(_, eps)| {
                    let squares = sum(simd, x, |simd, x| simd.mul(x, x), |x| x * x);
                    1.0 / (squares / size as f32 + eps).sqrt()
                });
                let weight = norm.map(|(weight, _)| weight);
                match turn {
                    Some(turn) => turned(x, factor, weight, turn, number, output),
                    None => map(simd, x, output, |simd, x, at| {
                        let value = simd.mul(x, simd.splat(factor));
                        // Rounded before it is weighted, as transformers and diffusers do.
                        weight.map_or(value, |weight| simd.mul(T::rounded(simd, value), at.load(simd, weight)))
                    }),
                }
            }
        }
    }
}

/// One vector. Ordinary code: compilers find the even and odd values by themselves.
#[inline(always)]
fn turned<T: Value>(x: &[T], factor: f32, weight: Option<&[T]>, turn: Turn<'_>, token: usize, output: &mut [T]) {
    let half = x.len() / 2;
    let start = token % (turn.cosines.len() / half) * half;
    let (cosines, sines) = (&turn.cosines[start..][..half], &turn.sines[start..][..half]);
    for pair in 0..half {
        let value = |index: usize| {
            let value = T::of(x[2 * pair + index].widen() * factor).widen();
            weight.map_or(value, |weight| T::of(value * weight[2 * pair + index].widen()).widen())
        };
        let (early, late) = (value(0), value(1));
        output[2 * pair] = T::of(early * cosines[pair] - late * sines[pair]);
        output[2 * pair + 1] = T::of(early * sines[pair] + late * cosines[pair]);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::simd::{Isa, dispatch_on};

    fn values(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731 + seed).sin() * 2.0).collect()
    }

    fn sets() -> impl Iterator<Item = Isa> {
        Isa::tested()
    }

    #[test]
    fn layer_norms_equal_the_definition() {
        for (size, isa) in [1, 5, 8, 16, 37, 72, 131].into_iter().flat_map(|size| sets().map(move |isa| (size, isa))) {
            let x = values(6 * size, 0.1);
            let (weight, bias) = (values(size, 0.4), values(size, 0.7));
            let (scale, shift) = (values(2 * (size + 3), 0.2), values(2 * (size + 3), 0.9));
            let modulation = Modulation { scale: &scale, shift: &shift, stride: size + 3, tokens: 3 };
            for (affine, modulation) in [
                (None, None),
                (Some((&weight[..], &bias[..])), None),
                (None, Some(modulation)),
                (Some((&weight, &bias)), Some(modulation)),
            ] {
                let norm = LayerNorm { size, eps: 1e-6, affine, modulation };
                let mut output = vec![f32::NAN; x.len()];
                dispatch_on(isa, Tokens { norm: &norm, first: 0, x: &x, output: &mut output });
                for (token, (x, output)) in x.chunks(size).zip(output.chunks(size)).enumerate() {
                    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / size as f64;
                    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / size as f64;
                    for (index, (x, found)) in x.iter().zip(output).enumerate() {
                        let mut expected = (f64::from(*x) - mean) / (variance + 1e-6).sqrt();
                        if affine.is_some() {
                            expected = expected * f64::from(weight[index]) + f64::from(bias[index]);
                        }
                        if modulation.is_some() {
                            let place = token / 3 * (size + 3) + index;
                            expected = expected * (1.0 + f64::from(scale[place])) + f64::from(shift[place]);
                        }
                        assert!((f64::from(*found) - expected).abs() < 2e-5, "{isa}, {size}: {found} for {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_are_normed_and_turned() {
        for (size, isa) in [2, 6, 16, 64, 130].into_iter().flat_map(|size| sets().map(move |isa| (size, isa))) {
            // Two rows of three tokens of two vectors.
            let (stride, half) = (2 * size + 1, size / 2);
            let (x, weight, angles) = (values(6 * stride, 0.1), values(size, 0.4), values(3 * half, 0.7));
            let (cosines, sines): (Vec<_>, Vec<_>) = angles.iter().map(|angle| (angle.cos(), angle.sin())).unzip();
            let turn = Turn { cosines: &cosines, sines: &sines };
            for (norm, turn) in
                [(None, Some(turn)), (Some((&weight[..], 1e-6)), None), (Some((&weight[..], 1e-6)), Some(turn))]
            {
                let of = NormAndTurn { vectors: 2, size, norm, turn };
                let mut output = vec![f32::NAN; 6 * 2 * size];
                dispatch_on(isa, Vectors { of: &of, first: 0, x: &x, stride, output: &mut output });
                for (index, found) in output.chunks(size).enumerate() {
                    let (token, vector) = (index / 2, index % 2);
                    let x: Vec<_> = x[token * stride + vector * size..][..size].iter().map(|x| f64::from(*x)).collect();
                    let root = norm.map_or(1.0, |_| (x.iter().map(|x| x * x).sum::<f64>() / size as f64 + 1e-6).sqrt());
                    let weighted =
                        |index: usize| x[index] / root * norm.map_or(1.0, |(weight, _)| f64::from(weight[index]));
                    for (index, found) in found.iter().enumerate() {
                        let (early, late) = (weighted(index / 2 * 2), weighted(index / 2 * 2 + 1));
                        let angle = f64::from(angles[token % 3 * half + index / 2]);
                        let expected = match (turn.is_some(), index % 2) {
                            (false, _) => weighted(index),
                            (true, 0) => early * angle.cos() - late * angle.sin(),
                            (true, _) => early * angle.sin() + late * angle.cos(),
                        };
                        assert!((f64::from(*found) - expected).abs() < 1e-5, "{isa}, {size}: {found} for {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_are_the_same_on_all_threads() {
        let x = values(40_000, 0.1);
        let narrow: Vec<_> = x.iter().map(|x| bf16::from_f32(*x)).collect();
        let norm = LayerNorm { size: 40, eps: 1e-6, affine: None, modulation: None };
        let (mut whole, mut parts) = (narrow.clone(), narrow.clone());
        norm.run(&narrow, &mut whole);
        narrow.chunks(400).zip(parts.chunks_mut(400)).for_each(|(x, output)| norm.run(x, output));
        assert_eq!(whole, parts);
    }
}
