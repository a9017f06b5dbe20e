//! Cases of attention: every size of head that models have, edges of lengths and tiles, biases, caps, and strides.

use super::report::Report;
use super::values::{Placed, Random, Values};
use crate::attention::{Attention, HeadVectors, ScoreBias, Tile};
use crate::error::KernelError;
use crate::launch::Span;
use crate::machine::Machine;
use crate::value_type::ValueType;

/// As in the kernels: scores with a bias are no lower.
const HIDDEN: f64 = -65_536.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bias {
    None,
    /// Of each row's keys, with hidden ones; all keys of the first row are.
    Keys,
    /// Of each head's queries and keys, which see none after them; the second query sees none at all.
    Queries,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    rows: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    head_size: usize,
    bias: Bias,
    soft_cap: Option<f32>,
    /// Values that operands are away from an aligned place.
    offset: usize,
    /// What lies between tokens beside keys and values.
    between: usize,
}

pub(super) fn check<M: Machine>(machine: &M, value_type: ValueType) -> Report {
    let name = value_type.of(["attention_f32", "attention_f16", "attention_bf16"]);
    let mut report = Report::new(name);
    for case in cases(value_type) {
        report.add(&case, run(machine, case));
    }
    report
}

fn cases(value_type: ValueType) -> Vec<Case> {
    let plain = Case {
        value_type,
        rows: 1,
        heads: 2,
        queries: 33,
        keys: 70,
        head_size: 72,
        bias: Bias::None,
        soft_cap: None,
        offset: 0,
        between: 0,
    };
    let mut cases = Vec::new();
    for head_size in [1, 13, 16, 32, 40, 64, 72, 80, 88, 96, 112, 120, 128, 160, 256, 300, 512] {
        cases.push(Case { head_size, heads: if head_size < 256 { 2 } else { 1 }, ..plain });
    }
    for (queries, keys) in [(1, 1), (1, 300), (7, 64), (64, 7), (77, 77), (128, 65), (256, 256), (300, 77)] {
        cases.push(Case { queries, keys, heads: 1, ..plain });
        cases.push(Case { queries, keys, heads: 1, head_size: 128, bias: Bias::Queries, ..plain });
    }
    for (bias, soft_cap) in
        [(Bias::Keys, None), (Bias::Queries, None), (Bias::None, Some(3.0)), (Bias::Keys, Some(2.0))]
    {
        cases.push(Case { rows: 2, bias, soft_cap, ..plain });
        cases.push(Case { rows: 2, bias, soft_cap, head_size: 61, queries: 20, ..plain });
        cases.push(Case { bias, soft_cap, head_size: 256, heads: 1, ..plain });
    }
    for (offset, between, head_size) in [(0, 8, 72), (0, 3, 72), (1, 0, 64), (8, 16, 40), (5, 2, 300)] {
        cases.push(Case { rows: 2, heads: 1, offset, between, head_size, ..plain });
    }
    cases.push(Case { queries: 0, ..plain });
    cases
}

/// Operands, and where they lie: queries alone, and keys and values of a token side by side.
struct Operands<M: Machine> {
    query: (Vec<f64>, Placed<M>),
    both: (Vec<f64>, Placed<M>),
    bias: (Vec<f64>, Placed<M>),
}

fn run<M: Machine>(machine: &M, case: Case) -> Result<f64, KernelError> {
    let Case { value_type, rows, heads, queries, keys, head_size, offset, .. } = case;
    let mut random = Random::new((head_size * 1000 + queries) as u64);
    let place = |values: Values, offset| -> Result<_, KernelError> {
        let placed = values.place(machine, offset)?;
        Ok((values.wide, placed))
    };
    let query = Values::random(value_type, rows * queries * heads * head_size, 2.0, &mut random);
    let both = Values::random(value_type, rows * keys * case.token(), 2.0, &mut random);
    let bias = Values::new(ValueType::F32, case.bias_values(&mut random));
    let operands = Operands { query: place(query, offset)?, both: place(both, offset)?, bias: place(bias, 0)? };
    let mut worst: f64 = 0.0;
    let defined = case.defined(&operands);
    for tile in Tile::all(value_type, head_size, machine.limits()?) {
        // Memory of its own for each, so that what one leaves unwritten shows.
        let output = Placed::output(machine, value_type, rows * queries * heads * head_size, offset)?;
        machine.launch(&case.attention(&operands, output.span()).launch_with(tile)?)?;
        let difference = output.difference_within(machine, &defined)?;
        worst = if difference.is_nan() { f64::INFINITY } else { worst.max(difference) };
    }
    Ok(worst)
}

impl Case {
    /// Values from one token's keys to the next.
    fn token(&self) -> usize {
        2 * self.heads * self.head_size + self.between
    }

    fn scale(&self) -> f32 {
        // Larger than in models, so that the largest score moves.
        2.0 * (self.head_size as f32).powf(-0.5)
    }

    /// From one row, head and query to the next.
    fn bias_strides(&self) -> [usize; 3] {
        match self.bias {
            Bias::None => [0, 0, 0],
            Bias::Keys => [self.keys, 0, 0],
            Bias::Queries => [0, self.queries * self.keys, self.keys],
        }
    }

    fn bias_values(&self, random: &mut Random) -> Vec<f32> {
        let mut hidden = |is_hidden: bool| if is_hidden { f32::NEG_INFINITY } else { random.value() };
        match self.bias {
            Bias::None => Vec::new(),
            Bias::Keys => (0..self.rows * self.keys).map(|at| hidden(at < self.keys || at % 3 == 0)).collect(),
            Bias::Queries => (0..self.heads * self.queries * self.keys)
                .map(|at| (at % self.keys, at / self.keys % self.queries))
                .map(|(key, query)| hidden(key > query || query == 1))
                .collect(),
        }
    }

    fn attention<'a, M: Machine>(&self, operands: &'a Operands<M>, output: Span<'a>) -> Attention<'a> {
        let Self { value_type, rows, heads, queries, keys, head_size, soft_cap, .. } = *self;
        let size = heads * head_size;
        let part = |from: usize| {
            let values = operands.both.1.span().after(from, value_type);
            HeadVectors { values, row: keys * self.token(), token: self.token(), head: head_size }
        };
        let [row, head, query] = self.bias_strides();
        Attention {
            value_type,
            rows,
            heads,
            queries,
            keys,
            head_size,
            scale: self.scale(),
            soft_cap,
            query: HeadVectors { values: operands.query.1.span(), row: queries * size, token: size, head: head_size },
            key: part(0),
            value: part(size),
            bias: (self.bias != Bias::None).then_some(ScoreBias { values: operands.bias.1.span(), row, head, query }),
            output,
        }
    }

    /// Values, and the sums of their parts without signs, which roundings of weights are relative to.
    fn defined<M: Machine>(&self, operands: &Operands<M>) -> Vec<(f64, f64)> {
        let mut defined = Vec::new();
        for (row, query) in (0..self.rows).flat_map(|row| (0..self.queries).map(move |query| (row, query))) {
            for head in 0..self.heads {
                let weights = self.weights(operands, [row, query, head]);
                let mut sums = vec![(0.0, 0.0); self.head_size];
                for (key, weight) in weights.iter().enumerate() {
                    let start = (row * self.keys + key) * self.token() + (self.heads + head) * self.head_size;
                    for (sum, value) in sums.iter_mut().zip(&operands.both.0[start..]) {
                        *sum = (sum.0 + weight * value, sum.1 + (weight * value).abs());
                    }
                }
                defined.extend(sums);
            }
        }
        defined
    }

    fn weights<M: Machine>(&self, operands: &Operands<M>, [row, query, head]: [usize; 3]) -> Vec<f64> {
        let Self { heads, queries, keys, head_size, .. } = *self;
        let asked = &operands.query.0[((row * queries + query) * heads + head) * head_size..][..head_size];
        let strides = self.bias_strides();
        let bias = row * strides[0] + head * strides[1] + query * strides[2];
        let score = |key: usize| {
            let start = (row * keys + key) * self.token() + head * head_size;
            let product: f64 = operands.both.0[start..].iter().zip(asked).map(|(key, query)| key * query).sum();
            let score = product * f64::from(self.scale());
            let score = self.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
            if self.bias == Bias::None { score } else { (score + operands.bias.0[bias + key]).max(HIDDEN) }
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }
}
