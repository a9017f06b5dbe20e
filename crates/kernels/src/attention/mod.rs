//! Attention that never writes the scores of all pairs (Dao et al., "FlashAttention", 2022), for CPUs.
//!
//! As many queries as a register tile of [`gemm`](crate::gemm) has columns are taken at a time, and 504 keys. Scores
//! are computed with the keys as rows and the queries as columns: what is summed over, the keys, is then the dimension that
//! lies outside the registers, so that the softmax needs no sums within a register, and the weights it leaves are a
//! panel of the product with the values as they are:
//!
//! * scores `[keys, queries]` = strips of keys x panel of queries,
//! * weights = `exp(scores - largest)`, and their sums, one per lane,
//! * output `[head size, queries]` += strips of transposed values x panel of weights.
//!
//! Keys and values of few queries are read where they lie; for many they are copied first, once for all ([`side`]).
//!
//! Where more keys follow, the sums so far are scaled to the new largest score. The arithmetic is f32 whatever the values
//! are stored in, but both products of bf16 are sums of products of bf16 where the CPU has them: weights are rounded then.

mod head;
mod panel;
mod side;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::head::Head;
use crate::gemm::Value;
use crate::parallel::SharedOutput;
use crate::simd::dispatch;

/// Queries below which packing all keys for them would be a large part of the work.
const LEAST_QUERIES: usize = 128;
/// Parts per thread that are aimed at, so that threads end at about the same time.
const PARTS_PER_THREAD: usize = 4;

/// Vectors of one head each, `[rows, tokens, heads, head size]` with strides of their own but for the last.
#[derive(Debug, Clone, Copy)]
pub struct HeadVectors<'a, T> {
    /// The values, from those of the first head of the first token on.
    pub values: &'a [T],
    /// From one row to the next.
    pub row: usize,
    /// From one token to the next.
    pub token: usize,
    /// From one head to the next.
    pub head: usize,
}

/// What is added to scores, `[rows, heads, queries, keys]` with strides that may be 0 but for the last, which is 1.
#[derive(Debug, Clone, Copy)]
pub struct ScoreBias<'a> {
    /// The values.
    pub values: &'a [f32],
    /// From one row to the next.
    pub row: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one query to the next.
    pub query: usize,
}

/// Attention of queries to keys: `softmax(scale * query . key + bias)`-weighted sums of values.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a, T> {
    /// Rows, which do not attend to each other.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens of `query`.
    pub queries: usize,
    /// Tokens of `key` and `value`.
    pub keys: usize,
    /// Values of a head's vector.
    pub head_size: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// `[rows, queries, heads, head size]`
    pub query: HeadVectors<'a, T>,
    /// `[rows, keys, heads, head size]`
    pub key: HeadVectors<'a, T>,
    /// `[rows, keys, heads, head size]`
    pub value: HeadVectors<'a, T>,
    /// Added to scaled scores.
    pub bias: Option<ScoreBias<'a>>,
}

impl<T: Value> Attention<'_, T> {
    /// As [`attend`](crate::attend).
    pub(crate) fn run(&self, output: &mut [T]) {
        assert_eq!(output.len(), self.rows * self.queries * self.heads * self.head_size, "length of the output");
        self.query.check(self, self.queries, "query");
        self.key.check(self, self.keys, "key");
        self.value.check(self, self.keys, "value");
        if let Some(bias) = self.bias {
            bias.check(self);
        }
        if output.is_empty() || self.keys == 0 {
            return output.fill(T::ZERO);
        }
        // Every head, and every part of its queries, has values of its own.
        let output = SharedOutput(output.as_mut_ptr());
        let parts = self.parts();
        (0..self.rows * self.heads * parts).into_par_iter().with_max_len(1).for_each(|index| {
            let (part, head) = (index % parts, index / parts);
            let queries = part * self.queries / parts..(part + 1) * self.queries / parts;
            dispatch(Head { attention: self, row: head / self.heads, head: head % self.heads, queries, output });
        });
    }

    /// Into how many parts the queries of a head are taken apart, so that every thread has some: each part packs all keys
    /// and values anew.
    fn parts(&self) -> usize {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return 1;
        }
        let wanted = (PARTS_PER_THREAD * threads).div_ceil(self.rows * self.heads);
        wanted.min(self.queries / LEAST_QUERIES).max(1)
    }
}

impl<T> HeadVectors<'_, T> {
    fn check<V>(&self, of: &Attention<'_, V>, tokens: usize, name: &str) {
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        let end = last(of.rows, self.row) + last(tokens, self.token) + last(of.heads, self.head) + of.head_size;
        assert!(of.rows * tokens * of.heads == 0 || end <= self.values.len(), "length of {name}");
    }
}

impl<T: Value> HeadVectors<'_, T> {
    #[inline(always)]
    fn vector(&self, row: usize, token: usize, head: usize, size: usize) -> &[T] {
        &self.values[row * self.row + token * self.token + head * self.head..][..size]
    }
}

impl ScoreBias<'_> {
    fn check<V>(&self, of: &Attention<'_, V>) {
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        let end = last(of.rows, self.row) + last(of.heads, self.head) + last(of.queries, self.query) + of.keys;
        assert!(of.rows * of.heads * of.queries * of.keys == 0 || end <= self.values.len(), "length of the bias");
    }
}
