//! Every operation of every instruction set, compared with ordinary Rust.

use half::{bf16, f16};

use super::*;

/// Results of all operations on some values, register by register.
struct Operations<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Operations<'_> {
    type Output = Vec<[f32; 10]>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut results = vec![[0.0; 10]; self.a.len()];
        for start in (0..self.a.len()).step_by(S::COUNT) {
            // SAFETY: the values are whole registers.
            let (a, b) = unsafe { (simd.load(self.a[start..].as_ptr()), simd.load(self.b[start..].as_ptr())) };
            let (rounded, power) = simd.round_and_power(a);
            let all = [
                simd.add(a, b),
                simd.sub(a, b),
                simd.mul(a, b),
                simd.div(a, b),
                simd.max(a, b),
                simd.min(a, b),
                simd.mul_add(a, b, simd.splat(0.5)),
                rounded,
                power,
                simd.splat(simd.sum(a)),
            ];
            for (operation, lanes) in all.into_iter().enumerate() {
                let mut values = [0f32; 16];
                // SAFETY: there is room for a register.
                unsafe { simd.store(lanes, values.as_mut_ptr()) };
                for lane in 0..S::COUNT {
                    results[start + lane][operation] = values[lane];
                }
            }
        }
        results
    }
}

#[test]
fn operations_are_those_of_ordinary_rust() {
    let a: Vec<f32> = (0..64).map(|index| (index as f32 * 0.731).sin() * 40.0).collect();
    let b: Vec<f32> = (0..64).map(|index| (index as f32 * 0.377).cos() * 3.0).collect();
    for isa in Isa::tested() {
        for (index, found) in dispatch_on(isa, Operations { a: &a, b: &b }).into_iter().enumerate() {
            let (a, b) = (a[index], b[index]);
            let exact = [a + b, a - b, a * b, a / b, a.max(b), a.min(b)];
            assert_eq!(found[..6], exact, "{isa}: {a}, {b}");
            assert!((found[6] - a.mul_add(b, 0.5)).abs() <= 1e-6 * (1.0 + (a * b).abs()), "{isa}: {a} * {b} + 0.5");
            assert_eq!(found[7..9], [a.round_ties_even(), a.round_ties_even().exp2()], "{isa}: {a}");
        }
    }
}

#[test]
fn a_sum_is_that_of_all_lanes() {
    let a: Vec<f32> = (0..64).map(|index| index as f32).collect();
    for isa in Isa::tested() {
        let sums: Vec<f32> = dispatch_on(isa, Operations { a: &a, b: &a }).iter().map(|results| results[9]).collect();
        let lanes = sums.iter().take_while(|sum| **sum == sums[0]).count();
        for (register, sums) in sums.chunks(lanes).enumerate() {
            let expected: f32 = (0..lanes).map(|lane| (register * lanes + lane) as f32).sum();
            assert!(sums.iter().all(|sum| *sum == expected), "{isa}: {sums:?}");
        }
    }
}

/// f32 to bf16 and back, f16 widened, and pairs of bf16: their halves, and the sums of their products onto 1.
struct Narrow<'a> {
    values: &'a [f32],
    halves: &'a [u16],
    pairs: &'a [u16],
}

impl Kernel for Narrow<'_> {
    type Output = (Vec<u16>, Vec<f32>, Vec<f32>, Vec<[f32; 3]>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let count = self.values.len();
        let (mut narrow, mut wide, mut halves) = (vec![0; count], vec![0.0; count], vec![0.0; count]);
        let mut pairs = vec![[0.0; 3]; count];
        for start in (0..count).step_by(S::COUNT) {
            // SAFETY: all slices hold whole registers.
            unsafe {
                simd.store_bf16(simd.load(self.values[start..].as_ptr()), narrow[start..].as_mut_ptr());
                simd.store(simd.load_bf16(narrow[start..].as_ptr()), wide[start..].as_mut_ptr());
                simd.store(simd.load_f16(self.halves[start..].as_ptr()), halves[start..].as_mut_ptr());
                let own = simd.load_pairs(self.pairs[2 * start..].as_ptr());
                let first = simd.splat_pair(self.pairs.as_ptr());
                let (early, late) = simd.widen(own);
                let products = simd.add_pair_products(own, first, simd.splat(1.0));
                for (part, lanes) in [early, late, products].into_iter().enumerate() {
                    let mut values = [0f32; 16];
                    simd.store(lanes, values.as_mut_ptr());
                    for lane in 0..S::COUNT {
                        pairs[start + lane][part] = values[lane];
                    }
                }
            }
        }
        (narrow, wide, halves, pairs)
    }
}

#[test]
fn narrow_numbers_are_rounded_and_widened_as_by_half() {
    let mut values: Vec<f32> = (0..58).map(|index| (index as f32 * 0.731).sin() * 1e3).collect();
    // Ties, the largest and smallest, and what is no number.
    values.extend([1.003_906_3, 1.011_718_8, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NAN]);
    let halves: Vec<u16> = values.iter().map(|value| f16::from_f32(*value).to_bits()).collect();
    let pairs: Vec<u16> = (0..128).map(|index| bf16::from_f32((index as f32 * 0.37).cos()).to_bits()).collect();
    let number = |bits: u16| bf16::from_bits(bits).to_f32();
    for isa in Isa::tested() {
        let (narrow, wide, widened, found) =
            dispatch_on(isa, Narrow { values: &values, halves: &halves, pairs: &pairs });
        for (index, value) in values.iter().enumerate() {
            let expected = bf16::from_f32(*value);
            if value.is_nan() {
                assert!(bf16::from_bits(narrow[index]).is_nan() && wide[index].is_nan() && widened[index].is_nan());
            } else {
                assert_eq!((narrow[index], wide[index]), (expected.to_bits(), expected.to_f32()), "{isa}: {value}");
                assert_eq!(widened[index], f16::from_bits(halves[index]).to_f32(), "{isa}: {value}");
            }
            let (early, late) = (number(pairs[2 * index]), number(pairs[2 * index + 1]));
            assert_eq!(found[index][..2], [early, late], "{isa}");
            let product = 1.0 + early * number(pairs[0]) + late * number(pairs[1]);
            assert!((found[index][2] - product).abs() < 1e-5, "{isa}: {} for {product}", found[index][2]);
        }
    }
}

/// Sums of four products onto lane numbers, as f32, and values as bytes.
struct Integers<'a> {
    quads: &'a [u8],
    values: &'a [f32],
}

impl Kernel for Integers<'_> {
    type Output = (usize, Vec<f32>, Vec<u8>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let count = self.values.len();
        let (mut sums, mut bytes) = (vec![0.0; count], vec![0; count]);
        let lanes: Vec<i32> = (0..S::COUNT as i32).collect();
        for start in (0..count).step_by(S::COUNT) {
            // SAFETY: all slices hold whole registers.
            unsafe {
                let (own, first) =
                    (simd.load_quads(self.quads[4 * start..].as_ptr()), simd.splat_quad(self.quads.as_ptr()));
                let mut copy = lanes.clone();
                simd.store_ints(simd.add_ints(simd.no_ints(), simd.load_ints(lanes.as_ptr())), copy.as_mut_ptr());
                let products = simd.add_quad_products(first, own, simd.load_ints(copy.as_ptr()));
                simd.store(simd.lanes_of(products), sums[start..].as_mut_ptr());
                simd.store_offset_bytes(simd.load(self.values[start..].as_ptr()), bytes[start..].as_mut_ptr());
            }
        }
        (S::COUNT, sums, bytes)
    }
}

#[test]
fn integers_are_multiplied_without_and_with_a_sign() {
    // The largest sums, and those on which a multiplication with 16 bits between would saturate.
    let mut quads: Vec<u8> = vec![255; 4];
    quads.extend([127, 127, 127, 127, 128, 128, 128, 128]);
    quads.extend((quads.len()..4 * 64).map(|index| (index * 89 % 256) as u8));
    let mut values: Vec<f32> = (0..60).map(|index| (index as f32 * 0.731).sin() * 127.0).collect();
    values.extend([0.5, 1.5, -127.0, 127.0]);
    for isa in Isa::tested() {
        let (count, sums, bytes) = dispatch_on(isa, Integers { quads: &quads, values: &values });
        for (index, found) in sums.iter().enumerate() {
            let product = |part: usize| i32::from(quads[part]) * i32::from(quads[4 * index + part] as i8);
            let expected = (0..4).map(product).sum::<i32>() + (index % count) as i32;
            assert_eq!(*found, expected as f32, "{isa}: {index}");
        }
        for (value, found) in values.iter().zip(bytes) {
            assert_eq!(i32::from(found) - 128, value.round_ties_even() as i32, "{isa}: {value}");
        }
    }
}

/// A square, and pairs of its values and those before them.
struct Squares<'a>(&'a [u32]);

impl Kernel for Squares<'_> {
    type Output = (Vec<u32>, Vec<u16>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (mut transposed, mut pairs) = (vec![0; S::COUNT * (S::COUNT + 1)], vec![0u16; 2 * S::COUNT]);
        // SAFETY: there are as many rows, and room for as many pairs.
        unsafe {
            simd.transpose((self.0.as_ptr(), S::COUNT + 3), (transposed.as_mut_ptr(), S::COUNT + 1));
            let values: Vec<f32> = (0..2 * S::COUNT).map(|index| (index as f32 * 0.37).sin()).collect();
            let (early, late) = (simd.load(values.as_ptr()), simd.load(values[S::COUNT..].as_ptr()));
            simd.store_pairs(simd.pairs_of(early, late), pairs.as_mut_ptr());
        }
        (transposed, pairs)
    }
}

#[test]
fn squares_are_transposed_and_pairs_rounded() {
    // Bits that are no numbers stay what they are.
    let values: Vec<u32> = (0..16 * 19).map(|index| 0x7F80_0001_u32.wrapping_add(index * 0x0101)).collect();
    for isa in Isa::tested() {
        let (transposed, pairs) = dispatch_on(isa, Squares(&values));
        let count = pairs.len() / 2;
        for (row, column) in (0..count).flat_map(|row| (0..count).map(move |column| (row, column))) {
            assert_eq!(transposed[column * (count + 1) + row], values[row * (count + 3) + column], "{isa}");
        }
        for (index, found) in pairs.into_iter().enumerate() {
            let value = ((index / 2 + index % 2 * count) as f32 * 0.37).sin();
            assert_eq!(found, bf16::from_f32(value).to_bits(), "{isa}");
        }
    }
}

#[test]
fn a_name_is_read_as_it_is_written() {
    for isa in Isa::ALL {
        assert_eq!(isa.to_string().parse(), Ok(isa));
    }
    assert!(Isa::Portable.is_available() && Isa::best().is_available());
    let message = "sse".parse::<Isa>().unwrap_err().to_string();
    assert_eq!(message, "`sse` is none of portable, avx2, avx2vnni, avx512, avx512vnni, avx512bf16, amx");
}
