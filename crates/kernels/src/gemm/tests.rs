//! Products on every instruction set of the CPU, compared with the definition in f64.

use half::{bf16, f16};

use super::*;
use crate::simd::{Isa, dispatch_on};

fn values(length: usize, seed: f32) -> Vec<f32> {
    (0..length).map(|index| (index as f32 * 0.731 + seed).sin()).collect()
}

fn sets() -> impl Iterator<Item = Isa> {
    Isa::tested()
}

fn packed(isa: Isa, outputs: usize, inputs: usize, weights: PlainWeights<'_>) -> PackedWeights {
    PackedWeights { outputs, inputs, panels: dispatch_on(isa, weights::Pack { outputs, inputs, weights }) }
}

fn product<T: Value>(isa: Isa, a: &[T], sizes: Sizes, b: &PackedWeights, epilogue: &Epilogue<'_, T>) -> Vec<T> {
    let mut c = vec![MaybeUninit::new(T::of(f32::NAN)); sizes.rows * sizes.outputs];
    sizes.check(a, epilogue, &c);
    dispatch_on(isa, Packed { sizes, a, b, epilogue, c: SharedOutput(c.as_mut_ptr().cast()) });
    // SAFETY: all of them were written, with NaN at least.
    c.into_iter().map(|value| unsafe { value.assume_init() }).collect()
}

/// `[rows, outputs]`, and how far a sum of rounded products may be from it.
fn defined(a: &[f64], b: &[f64], Sizes { rows, inputs, outputs }: Sizes) -> Vec<(f64, f64)> {
    let pairs = (0..rows).flat_map(|row| (0..outputs).map(move |output| (row, output)));
    pairs
        .map(|(row, output)| {
            let products = a[row * inputs..][..inputs].iter().zip(&b[output * inputs..][..inputs]).map(|(a, b)| a * b);
            let magnitude: f64 = products.clone().map(f64::abs).sum();
            (products.sum(), 1e-30 + magnitude * 1e-6)
        })
        .collect()
}

fn assert_close<T: Value>(found: &[T], defined: &[(f64, f64)], rounding: f64, case: &str) {
    assert_eq!(found.len(), defined.len());
    for (index, (found, (defined, tolerance))) in found.iter().zip(defined).enumerate() {
        let found = f64::from(found.widen());
        let tolerance = tolerance + defined.abs() * rounding;
        assert!((found - defined).abs() <= tolerance, "{case}: value {index} is {found}, not {defined}");
    }
}

const SIZES: [Sizes; 14] = [
    Sizes { rows: 1, inputs: 1, outputs: 1 },
    Sizes { rows: 3, inputs: 5, outputs: 2 },
    Sizes { rows: 2, inputs: 513, outputs: 17 },
    Sizes { rows: 4, inputs: 256, outputs: 32 },
    Sizes { rows: 5, inputs: 255, outputs: 33 },
    Sizes { rows: 6, inputs: 16, outputs: 16 },
    Sizes { rows: 7, inputs: 700, outputs: 65 },
    Sizes { rows: 8, inputs: 64, outputs: 31 },
    Sizes { rows: 12, inputs: 48, outputs: 64 },
    Sizes { rows: 13, inputs: 257, outputs: 300 },
    Sizes { rows: 300, inputs: 33, outputs: 40 },
    Sizes { rows: 64, inputs: 96, outputs: 530 },
    Sizes { rows: 2, inputs: 0, outputs: 3 },
    Sizes { rows: 0, inputs: 2, outputs: 3 },
];

#[test]
fn every_precision_equals_the_definition_for_odd_sizes() {
    for (isa, sizes) in sets().flat_map(|isa| SIZES.map(|sizes| (isa, sizes))) {
        let Sizes { rows, inputs, outputs } = sizes;
        let (a, b) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.7));
        let (a_narrow, b_narrow): (Vec<_>, Vec<_>) =
            (a.iter().map(|v| bf16::from_f32(*v)).collect(), b.iter().map(|v| bf16::from_f32(*v)).collect());
        let b_half: Vec<_> = b.iter().map(|v| f16::from_f32(*v)).collect();
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        let wide_bf16 = |values: &[bf16]| values.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let none = Epilogue::default();
        let case = |name: &str| format!("{isa}, {sizes:?}, {name}");

        let weights = packed(isa, outputs, inputs, PlainWeights::F32(&b));
        assert_close(
            &product(isa, &a, sizes, &weights, &none),
            &defined(&wide(&a), &wide(&b), sizes),
            0.0,
            &case("f32"),
        );
        let expected = defined(&wide_bf16(&a_narrow), &wide(&b), sizes);
        assert_close(
            &product(isa, &a_narrow, sizes, &weights, &Epilogue::default()),
            &expected,
            0.004,
            &case("bf16 over f32"),
        );
        let weights = packed(isa, outputs, inputs, PlainWeights::Bf16(&b_narrow));
        let expected = defined(&wide(&a), &wide_bf16(&b_narrow), sizes);
        assert_close(&product(isa, &a, sizes, &weights, &none), &expected, 0.0, &case("f32 over bf16"));
        let expected = defined(&wide_bf16(&a_narrow), &wide_bf16(&b_narrow), sizes);
        assert_close(&product(isa, &a_narrow, sizes, &weights, &Epilogue::default()), &expected, 0.004, &case("bf16"));
        let weights = packed(isa, outputs, inputs, PlainWeights::F16(&b_half));
        let half: Vec<_> = b_half.iter().map(|v| v.to_f64()).collect();
        assert_close(&product(isa, &a, sizes, &weights, &none), &defined(&wide(&a), &half, sizes), 0.0, &case("f16"));
    }
}

/// Batches must not change what their rows come to: neither in other strips, nor where many rows are packed that few are not.
#[test]
fn a_row_is_the_same_in_any_company() {
    for inputs in [600, 2048] {
        let outputs = 70;
        let (x, b) = (values(100 * inputs, 0.3), values(outputs * inputs, 0.7));
        let narrow = |values: &[f32]| values.iter().map(|value| bf16::from_f32(*value)).collect::<Vec<_>>();
        let (x_narrow, b_narrow) = (narrow(&x), narrow(&b));
        for isa in sets() {
            let packed = |weights| packed(isa, outputs, inputs, weights);
            let plain = [PlainWeights::F32(&b), PlainWeights::Bf16(&b_narrow)].map(packed);
            for weights in plain.into_iter().chain([packed_int8(isa, &b, outputs, inputs)]) {
                assert_same_in_any_company(isa, &x, &weights);
                assert_same_in_any_company(isa, &x_narrow, &weights);
            }
        }
    }
}

fn assert_same_in_any_company<T: Value + PartialEq + std::fmt::Debug>(isa: Isa, x: &[T], weights: &PackedWeights) {
    let (inputs, outputs) = (weights.inputs, weights.outputs);
    let of =
        |rows: usize| product(isa, &x[..rows * inputs], Sizes { rows, inputs, outputs }, weights, &Epilogue::default());
    let all = of(100);
    for rows in [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 63, 64] {
        assert_eq!(of(rows), all[..rows * outputs], "{isa}: {rows} rows of {inputs}");
    }
}

#[test]
fn epilogues_equal_the_definition() {
    let sizes = Sizes { rows: 14, inputs: 9, outputs: 37 };
    let Sizes { rows, inputs, outputs } = sizes;
    let (a, b, bias) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.7), values(outputs, 0.9));
    let (gate, residual) = (values(2 * (outputs + 5), 0.4), values(rows * outputs, 0.5));
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
    let products = defined(&wide(&a), &wide(&b), sizes);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let tanh = |x: f64| x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)));
    for (activation, function) in [
        (None, &(|x| x) as &dyn Fn(f64) -> f64),
        (Some(Activation::GeluTanh), &tanh),
        (Some(Activation::QuickGelu), &|x| x * sigmoid(1.702 * x)),
        (Some(Activation::Relu), &|x| x.max(0.0)),
        (Some(Activation::Silu), &|x| x * sigmoid(x)),
    ] {
        let expected = products.iter().enumerate().map(|(index, (product, _))| {
            let (row, column) = (index / outputs, index % outputs);
            let gate = f64::from(gate[row / 7 * (outputs + 5) + column]);
            (function(product + f64::from(bias[column])) * gate + f64::from(residual[index]), 4e-6)
        });
        let expected: Vec<_> = expected.collect();
        for isa in sets() {
            let epilogue = Epilogue {
                bias: Some(&bias[..]),
                activation,
                gate: Some(Gate { values: &gate, stride: outputs + 5, rows: 7 }),
                residual: Some(&residual),
            };
            let weights = packed(isa, outputs, inputs, PlainWeights::F32(&b));
            let found = product(isa, &a, sizes, &weights, &epilogue);
            assert_close(&found, &expected, 0.0, &format!("{isa}, {activation:?}"));
        }
    }
}

/// Rows as they are quantised: integers, and the factor of each row.
fn quantised(values: &[f32], inputs: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = values.chunks(inputs.max(1)).map(|row| {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let integers = row.iter().map(move |value| f64::from((value * scale).round_ties_even()));
        (integers.collect::<Vec<_>>(), f64::from(largest / 127.0))
    });
    let (integers, factors): (Vec<_>, Vec<_>) = rows.unzip();
    (integers.concat(), factors)
}

fn packed_int8(isa: Isa, b: &[f32], outputs: usize, inputs: usize) -> PackedWeights {
    let pack = |rows: &Widen<'_>| dispatch_on(isa, int8::PackInt8 { outputs, inputs, rows });
    let Ok(panels) = widening(&PlainWeights::F32(b), pack);
    PackedWeights { outputs, inputs, panels: weights::Panels::Int8(panels) }
}

#[test]
fn products_of_integers_are_those_of_rounded_values() {
    for (isa, sizes) in sets().flat_map(|isa| SIZES.map(|sizes| (isa, sizes))) {
        let Sizes { rows, inputs, outputs } = sizes;
        let (mut a, mut b) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.7));
        // Rows of very different size, and rows of zeros.
        a.iter_mut().take(inputs).for_each(|value| *value *= 1e4);
        a.iter_mut().skip(inputs * rows.saturating_sub(1)).take(inputs * (rows / 2).min(1)).for_each(|v| *v = 0.0);
        b.iter_mut().take(inputs * (outputs / 2).min(1)).for_each(|value| *value = 0.0);
        let ((a_ints, a_factors), (b_ints, b_factors)) = (quantised(&a, inputs), quantised(&b, inputs));
        let expected = defined(&a_ints, &b_ints, sizes).into_iter().enumerate().map(|(index, (sum, _))| {
            let factor = a_factors.get(index / outputs).zip(b_factors.get(index % outputs)).map_or(0.0, |(a, b)| a * b);
            (sum * factor, (sum * factor).abs() * 1e-6)
        });
        let weights = packed_int8(isa, &b, outputs, inputs);
        let found = product(isa, &a, sizes, &weights, &Epilogue::default());
        assert_close(&found, &expected.collect::<Vec<_>>(), 0.0, &format!("{isa}, {sizes:?}"));
        let step = if isa == Isa::EmulatedAmx { 64 } else { 4 };
        assert!(weights.bytes() < (outputs + 32) * (inputs + step + 7) + 192, "{} bytes", weights.bytes());
    }
}

/// What is multiplied is divided by a power of two and what it is multiplied by multiplied by another, so all that may
/// differ is the factor of the small rows, which has 17 bits where it is below the normal numbers.
#[test]
fn rows_of_the_smallest_numbers_are_quantised_as_others_are() {
    let sizes = Sizes { rows: 5, outputs: 5, inputs: 40 };
    let sixty_fourths =
        |seed: f32| -> Vec<f32> { values(5 * 40, seed).iter().map(|value| (value * 64.0).round() / 64.0).collect() };
    let times =
        |values: &[f32], power: i32| -> Vec<f32> { values.iter().map(|value| value * 2f32.powi(power)).collect() };
    let (a, b) = (sixty_fourths(0.3), sixty_fourths(0.7));
    for isa in sets() {
        let multiply = |a: &[f32], b: &[f32]| product(isa, a, sizes, &packed_int8(isa, b, 5, 40), &Epilogue::default());
        let expected = times(&multiply(&a, &b), -20);
        for (a_power, b_power) in [(-120, 100), (-125, 105), (100, -120), (105, -125)] {
            let found = multiply(&times(&a, a_power), &times(&b, b_power));
            for (found, expected) in found.iter().zip(&expected) {
                let difference = (found - expected).abs();
                assert!(difference <= 2f32.powi(-17) * expected.abs(), "{isa}: {found} for {expected}, {a_power}");
            }
        }
    }
}

#[test]
fn a_value_that_is_no_number_makes_its_row_none_and_no_other() {
    let sizes = Sizes { rows: 3, inputs: 40, outputs: 5 };
    let b = values(5 * 40, 0.7);
    for (isa, broken) in sets().flat_map(|isa| [f32::NAN, f32::INFINITY].map(|value| (isa, value))) {
        let mut a = values(3 * 40, 0.1);
        a[40 + 7] = broken;
        let found = product(isa, &a, sizes, &packed_int8(isa, &b, 5, 40), &Epilogue::default());
        assert!(found[5..10].iter().all(|value| value.is_nan()), "{isa}: {found:?}");
        assert!(found[..5].iter().chain(&found[10..]).all(|value| value.is_finite()), "{isa}: {found:?}");
    }
}

struct Stored<'a>(&'a [f32], usize);

impl WeightRows for Stored<'_> {
    type Error = &'static str;

    fn widen(&self, rows: Range<usize>, values: &mut [f32]) -> Result<(), Self::Error> {
        if rows.end > 1000 {
            return Err("broken");
        }
        values.copy_from_slice(&self.0[rows.start * self.1..rows.end * self.1]);
        Ok(())
    }
}

#[test]
fn widened_weights_give_what_packed_ones_do() {
    for Sizes { rows, inputs, outputs } in SIZES.into_iter().filter(|sizes| sizes.rows > 0) {
        let (a, b) = (values(rows * inputs, 0.1), values(outputs * inputs, 0.7));
        let (rows, none) = (Rows { values: &a, rows }, Epilogue::default());
        let widened = crate::multiply_widened(rows, &Stored(&b, inputs), (outputs, inputs), &none).unwrap();
        let packed = PackedWeights::new(outputs, inputs, PlainWeights::F32(&b));
        assert_eq!(widened, crate::multiply(rows, &packed, &none));
    }
}

#[test]
fn an_error_of_the_weights_is_that_of_the_product() {
    let rows = Rows { values: &[0f32; 1], rows: 1 };
    let found = crate::multiply_widened(rows, &Stored(&[0.0; 2000], 1), (2000, 1), &Epilogue::default());
    assert_eq!(found, Err("broken"));
    assert_eq!(PackedWeights::quantized(&Stored(&[0.0; 2000], 1), (2000, 1)).err(), Some("broken"));
}
