//! Cases of root mean square norms and rotary positions.

use super::report::Report;
use super::values::{Placed, Random, Values, rounded};
use crate::error::KernelError;
use crate::machine::Machine;
use crate::norm_and_turn::{NormAndTurn, Pairs, Rows, Turn};
use crate::value_type::ValueType;

const EPS: f32 = 1e-6;
/// Of two rows.
const ROW_TOKENS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    vectors: usize,
    size: usize,
    /// Values between two tokens.
    between: usize,
    is_normed: bool,
    pairs: Option<Pairs>,
    offset: usize,
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("norm_and_turn");
    for value_type in ValueType::ALL {
        let mut cases = Vec::new();
        // Sizes of heads, and edges: of an access, of lanes, of what lanes hold.
        for size in [2, 6, 8, 16, 40, 64, 72, 88, 128, 256, 264, 512, 520] {
            for pairs in [Pairs::Neighbours, Pairs::Halves] {
                let turned =
                    Case { value_type, vectors: 3, size, between: 0, is_normed: true, pairs: Some(pairs), offset: 0 };
                cases.push(turned);
                cases.push(Case { is_normed: false, between: size, ..turned });
                cases.push(Case { vectors: 1, pairs: None, between: 7, ..turned });
            }
        }
        // Long rows, and odd ones.
        for size in [1, 5, 768, 1025, 3584, 4096, 8192, 8200] {
            cases.push(Case { value_type, vectors: 1, size, between: 0, is_normed: true, pairs: None, offset: 0 });
        }
        for offset in [1, 3, 8] {
            let pairs = Some(Pairs::Halves);
            cases.push(Case { value_type, vectors: 2, size: 64, between: 8, is_normed: true, pairs, offset });
        }
        for case in cases {
            report.add(&case, run(machine, case));
        }
        // Of all kernels: of heads, of any place, of long rows.
        for (vectors, size, offset) in [(3, 64, 0), (2, 6, 0), (2, 64, 3), (1, 768, 0)] {
            let joined = Joined { value_type, vectors, size, offset };
            report.add(&joined, join(machine, joined));
        }
    }
    report
}

/// Two sequences, whose rows are written one behind the other.
#[derive(Debug, Clone, Copy)]
struct Joined {
    value_type: ValueType,
    vectors: usize,
    size: usize,
    offset: usize,
}

fn join<M: Machine>(machine: &M, case: Joined) -> Result<f64, KernelError> {
    const ROWS: usize = 3;
    const TOKENS: [usize; 2] = [2, 5];
    let Joined { value_type, vectors, size, offset } = case;
    let mut random = Random::new(size as u64);
    let width = vectors * size;
    // Both are parts of something wider, and are only copied.
    let stride = width + value_type.widest();
    let all_tokens = TOKENS[0] + TOKENS[1];
    let output = Placed::output(machine, value_type, ROWS * all_tokens * width, offset)?;
    let mut defined = vec![0.0; ROWS * all_tokens * width];
    for (sequence, tokens) in TOKENS.into_iter().enumerate() {
        let x = random.operand(machine, value_type, (ROWS * tokens * stride, 2.0, offset))?;
        let first = if sequence == 0 { 0 } else { TOKENS[0] };
        let copy = NormAndTurn {
            value_type,
            tokens: ROWS * tokens,
            vectors,
            size,
            x: x.1.span(),
            stride,
            norm: None,
            turn: None,
            output: output.span().after(first * width, value_type),
            rows: Some(Rows { tokens, between: all_tokens - tokens }),
        };
        machine.launch(&copy.launch()?)?;
        for (row, token) in (0..ROWS).flat_map(|row| (0..tokens).map(move |token| (row, token))) {
            let place = (row * all_tokens + first + token) * width;
            defined[place..place + width].copy_from_slice(&x.0[(row * tokens + token) * stride..][..width]);
        }
    }
    output.difference(machine, &defined, 0.0)
}

fn run<M: Machine>(machine: &M, case: Case) -> Result<f64, KernelError> {
    let Case { value_type, vectors, size, between, is_normed, pairs, offset } = case;
    let (tokens, stride, half) = (2 * ROW_TOKENS, vectors * size + between, size / 2);
    let mut random = Random::new(size as u64);
    let x = random.operand(machine, value_type, (tokens * stride, 2.0, offset))?;
    let weight = random.operand(machine, value_type, (size, 1.0, offset))?;
    let angles: Vec<_> = (0..ROW_TOKENS * half).map(|_| random.value() * 3.0).collect();
    let table = |function: fn(f32) -> f32| Values::new(ValueType::F32, angles.iter().map(|angle| function(*angle)));
    let (cosines, sines) = (table(f32::cos), table(f32::sin));
    let [cosines_placed, sines_placed] = [cosines.place(machine, offset)?, sines.place(machine, offset)?];
    let output = Placed::output(machine, value_type, tokens * vectors * size, offset)?;
    let change = NormAndTurn {
        value_type,
        tokens,
        vectors,
        size,
        x: x.1.span(),
        stride,
        norm: is_normed.then_some((weight.1.span(), EPS)),
        turn: pairs.map(|pairs| Turn {
            cosines: cosines_placed.span(),
            sines: sines_placed.span(),
            tokens: ROW_TOKENS,
            pairs,
        }),
        output: output.span(),
        rows: None,
    };
    machine.launch(&change.launch()?)?;
    let mut defined = Vec::new();
    for (token, vector) in (0..tokens).flat_map(|token| (0..vectors).map(move |vector| (token, vector))) {
        let x = &x.0[token * stride + vector * size..][..size];
        let root = (x.iter().map(|x| x * x).sum::<f64>() / size as f64 + f64::from(EPS)).sqrt();
        let weighted = |index: usize| match is_normed {
            true => rounded(value_type, rounded(value_type, x[index] / root) * weight.0[index]),
            false => x[index],
        };
        defined.extend((0..size).map(|index| {
            let (pair, place) = match pairs {
                None => return (weighted(index), weighted(index).abs()),
                Some(Pairs::Neighbours) => (index / 2, index % 2),
                Some(Pairs::Halves) => (index % half, index / half),
            };
            let of = |place: usize| if pairs == Some(Pairs::Halves) { place * half + pair } else { 2 * pair + place };
            let (early, late) = (weighted(of(0)), weighted(of(1)));
            let angle = token % ROW_TOKENS * half + pair;
            let (cosine, sine) = (cosines.wide[angle], sines.wide[angle]);
            let value = if place == 0 { early * cosine - late * sine } else { early * sine + late * cosine };
            (value, early.abs() + late.abs())
        }));
    }
    // A factor that is off by a unit of f32 can round either way, twice, before the last rounding.
    output.difference_of_terms(machine, &defined, if is_normed { 5.0 } else { 1.0 })
}
