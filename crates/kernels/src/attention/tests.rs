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
    let place = SharedOutput(output.as_mut_ptr());
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
const SIZES: [[usize; 5]; 10] = [
    [1, 1, 1, 1, 1],
    [2, 3, 5, 7, 4],
    [1, 2, 16, 16, 8],
    [1, 1, 33, 17, 72],
    [2, 2, 40, 77, 64],
    [1, 1, 3, 513, 16],
    [1, 2, 19, 1300, 10],
    [1, 1, 70, 64, 128],
    [1, 3, 6, 12, 5],
    [1, 2, 131, 20, 9],
];

#[test]
fn equals_the_definition_for_odd_sizes() {
    for ([rows, heads, queries, keys, head_size], isa) in
        SIZES.into_iter().flat_map(|sizes| Isa::tested().map(move |isa| (sizes, isa)))
    {
        let all = values(rows * queries.max(keys) * (3 * heads * head_size + 5), 0.3);
        let narrow: Vec<_> = all.iter().map(|value| bf16::from_f32(*value)).collect();
        let biases = values(rows * queries * keys, 0.8);
        let row_bias = ScoreBias { values: &biases, row: keys, head: 0, query: 0 };
        let full_bias = ScoreBias { values: &biases, row: queries * keys, head: 0, query: keys };
        for bias in [None, Some(row_bias), Some(full_bias)] {
            let sizes = [rows, heads, queries, keys, head_size];
            assert_close(isa, &side_by_side(sizes, &all, bias), 1e-5);
            assert_close(isa, &side_by_side(sizes, &narrow, bias), 0.01);
        }
    }
}

/// Of tokens that have queries, keys and values of all heads side by side, and five values more.
fn side_by_side<'a, T>(
    [rows, heads, queries, keys, head_size]: [usize; 5],
    all: &'a [T],
    bias: Option<ScoreBias<'a>>,
) -> Attention<'a, T> {
    let (size, tokens) = (heads * head_size, queries.max(keys));
    let token = 3 * size + 5;
    let part = |index: usize| HeadVectors { values: &all[index * size..], row: tokens * token, token, head: head_size };
    let scale = (head_size as f32).powf(-0.5);
    Attention { rows, heads, queries, keys, head_size, scale, query: part(0), key: part(1), value: part(2), bias }
}

fn assert_close<T: Value>(isa: Isa, attention: &Attention<'_, T>, tolerance: f64) {
    let Attention { queries, keys, head_size, .. } = *attention;
    for (found, defined) in run(isa, attention).into_iter().zip(defined(attention)) {
        let found = f64::from(found.widen());
        let case = format!("{isa}, {queries} to {keys} of {head_size}");
        assert!((found - defined).abs() < tolerance, "{case}: {found} for {defined}");
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
