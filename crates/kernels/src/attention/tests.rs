//! Attention on every instruction set, compared with the definition in f64.

use half::bf16;

use super::*;
use crate::simd::{Isa, dispatch_on};

fn values(length: usize, seed: f32) -> Vec<f32> {
    (0..length).map(|index| (index as f32 * 0.731 + seed).sin() * 2.0).collect()
}

fn run<T: Value>(isa: Isa, attention: &Attention<'_, T>) -> Vec<T> {
    let Attention { rows, heads, queries, head_size, .. } = *attention;
    let mut output = vec![T::of(f32::NAN); rows * queries * heads * head_size];
    let place = Output(output.as_mut_ptr());
    for index in 0..rows * heads {
        dispatch_on(
            isa,
            Head { attention, row: index / heads, head: index % heads, queries: 0..queries, output: place },
        );
    }
    output
}

fn defined<T: Value>(of: &Attention<'_, T>) -> Vec<f64> {
    let vector = |from: &HeadVectors<'_, T>, row, token, head| {
        from.vector(row, token, head, of.head_size).iter().map(|value| f64::from(value.widen())).collect::<Vec<_>>()
    };
    let mut output = Vec::new();
    for (row, query) in (0..of.rows).flat_map(|row| (0..of.queries).map(move |query| (row, query))) {
        for head in 0..of.heads {
            let asked = vector(&of.query, row, query, head);
            let score = |key: usize| {
                let product: f64 = vector(&of.key, row, key, head).iter().zip(&asked).map(|(a, b)| a * b).sum();
                let bias = of.bias.map_or(0.0, |bias| {
                    bias.values[row * bias.row + head * bias.head + query * bias.query + key].into()
                });
                product * f64::from(of.scale) + bias
            };
            let scores: Vec<f64> = (0..of.keys).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sums = vec![0.0; of.head_size];
            for (key, weight) in weights.iter().enumerate() {
                let value = vector(&of.value, row, key, head);
                sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight / total * value);
            }
            output.extend(sums);
        }
    }
    output
}

/// Rows, heads, queries, keys, head size.
const SIZES: [[usize; 5]; 9] = [
    [1, 1, 1, 1, 1],
    [2, 3, 5, 7, 4],
    [1, 2, 16, 16, 8],
    [1, 1, 33, 17, 72],
    [2, 2, 40, 77, 64],
    [1, 1, 3, 513, 16],
    [1, 2, 19, 1300, 10],
    [1, 1, 70, 64, 128],
    [1, 3, 6, 12, 5],
];

#[test]
fn equals_the_definition_for_odd_sizes() {
    for ([rows, heads, queries, keys, head_size], isa) in
        SIZES.into_iter().flat_map(|sizes| Isa::tested().map(move |isa| (sizes, isa)))
    {
        // Queries, keys and values of a token lie side by side, with something else between tokens.
        let (size, tokens) = (heads * head_size, queries.max(keys));
        let stride = 3 * size + 5;
        let all = values(rows * tokens * stride, 0.3);
        let narrow: Vec<_> = all.iter().map(|value| bf16::from_f32(*value)).collect();
        let biases = values(rows * queries * keys, 0.8);
        let row_bias = ScoreBias { values: &biases, row: keys, head: 0, query: 0 };
        let full_bias = ScoreBias { values: &biases, row: queries * keys, head: 0, query: keys };
        for bias in [None, Some(row_bias), Some(full_bias)] {
            let scale = (head_size as f32).powf(-0.5);
            let of = |start: usize| HeadVectors {
                values: &all[start..],
                row: tokens * stride,
                token: stride,
                head: head_size,
            };
            let [query, key, value] = [of(0), of(size), of(2 * size)];
            let attention = Attention { rows, heads, queries, keys, head_size, scale, query, key, value, bias };
            for (found, defined) in run(isa, &attention).into_iter().zip(defined(&attention)) {
                assert!(
                    (f64::from(found) - defined).abs() < 1e-5,
                    "{isa}, {queries} to {keys} of {head_size}: {found} for {defined}"
                );
            }
            let of = |start: usize| HeadVectors {
                values: &narrow[start..],
                row: tokens * stride,
                token: stride,
                head: head_size,
            };
            let [query, key, value] = [of(0), of(size), of(2 * size)];
            let attention = Attention { rows, heads, queries, keys, head_size, scale, query, key, value, bias };
            for (found, defined) in run(isa, &attention).into_iter().zip(defined(&attention)) {
                assert!((found.to_f64() - defined).abs() < 0.01, "{isa} bf16: {found} for {defined}");
            }
        }
    }
}

#[test]
fn masked_keys_are_not_attended_to() {
    let all = values(600 * 4, 0.1);
    let vectors = HeadVectors { values: &all, row: 0, token: 4, head: 0 };
    // The first block of keys is masked as a whole.
    let mut mask = vec![f32::NEG_INFINITY; 600];
    mask[597] = 0.0;
    let bias = Some(ScoreBias { values: &mask, row: 0, head: 0, query: 0 });
    let attention = Attention {
        rows: 1,
        heads: 1,
        queries: 2,
        keys: 600,
        head_size: 4,
        scale: 1.0,
        query: vectors,
        key: vectors,
        value: vectors,
        bias,
    };
    let mut output = [0f32; 8];
    attention.run(&mut output);
    assert_eq!(output[..4], all[597 * 4..598 * 4]);
    assert_eq!(output[4..], all[597 * 4..598 * 4]);
}

#[test]
fn without_keys_there_is_nothing_to_sum() {
    let vectors = HeadVectors { values: &[1f32; 4], row: 0, token: 4, head: 0 };
    let attention = Attention {
        rows: 1,
        heads: 1,
        queries: 1,
        keys: 0,
        head_size: 4,
        scale: 1.0,
        query: vectors,
        key: vectors,
        value: vectors,
        bias: None,
    };
    let mut output = [f32::NAN; 4];
    attention.run(&mut output);
    assert_eq!(output, [0.0; 4]);
}

#[test]
fn queries_that_are_taken_apart_give_the_same() {
    let all = values(1000 * 8, 0.1);
    let vectors = HeadVectors { values: &all, row: 0, token: 8, head: 0 };
    let attention = Attention {
        rows: 1,
        heads: 1,
        queries: 1000,
        keys: 1000,
        head_size: 8,
        scale: 0.3,
        query: vectors,
        key: vectors,
        value: vectors,
        bias: None,
    };
    let mut output = vec![f32::NAN; 8000];
    attention.run(&mut output);
    assert_eq!(output, run(Isa::current(), &attention));
}
