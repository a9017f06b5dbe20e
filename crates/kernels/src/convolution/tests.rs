use half::bf16;

use super::*;

const SIZES: [[usize; 4]; 10] = [
    [1, 1, 1, 1],
    [2, 3, 1, 5],
    [3, 2, 7, 1],
    [4, 5, 3, 3],
    [2, 4, 2, 300],
    [5, 3, 33, 17],
    [3, 14, 40, 40],
    [30, 13, 9, 31],
    [65, 1, 4, 8],
    [257, 2, 3, 2],
];

const ALL: [Neighbourhood; 3] = [Neighbourhood::Pixel, Neighbourhood::Three, Neighbourhood::ThreeOfDoubled];

fn values(length: usize, seed: f32) -> Vec<f32> {
    (0..length).map(|index| bf16::from_f32((index as f32 * 0.731 + seed).sin()).to_f32()).collect()
}

/// Multiples of an eighth, of which bf16 holds the sums of four without rounding.
fn kernels(length: usize) -> Vec<f32> {
    (0..length).map(|index| ((index as f32 * 0.731 + 0.7).sin() * 8.0).round() / 8.0).collect()
}

/// The definition, in f64.
fn plain(
    neighbourhood: Neighbourhood,
    [inputs, outputs, height, width]: [usize; 4],
    input: &[f32],
    (kernels, bias): (&[f32], &[f32]),
) -> Vec<f64> {
    let (side, scale) = (neighbourhood.side(), neighbourhood.scale());
    let mut output = Vec::new();
    for out in 0..outputs {
        for (y, x) in (0..scale * height).flat_map(|y| (0..scale * width).map(move |x| (y, x))) {
            let mut sum = f64::from(bias[out]);
            for (channel, dy, dx) in
                (0..inputs * side * side).map(|tap| (tap / side / side, tap / side % side, tap % side))
            {
                let (row, column) = ((y + dy).wrapping_sub(side / 2), (x + dx).wrapping_sub(side / 2));
                if row < scale * height && column < scale * width {
                    let value = input[(channel * height + row / scale) * width + column / scale];
                    sum += f64::from(value) * f64::from(kernels[((out * inputs + channel) * side + dy) * side + dx]);
                }
            }
            output.push(sum);
        }
    }
    output
}

fn convolved<T: Value>(
    conv: &Convolution,
    rows: Range<usize>,
    input: &[f32],
    (height, width): (usize, usize),
) -> Vec<f32> {
    let input: Vec<_> = input.iter().map(|value| T::of(*value)).collect();
    let stride = rows.len() * conv.scale() * width;
    let mut values = vec![f32::NAN; conv.output_channels() * stride];
    let output = ConvolvedRows { values: &mut values, stride, adds: false };
    conv.run(rows, Picture { values: &input, height, width }, output);
    values
}

#[test]
fn equals_the_definition_for_odd_and_tiny_sizes() {
    for (neighbourhood, size, isa) in cases() {
        let [inputs, outputs, height, width] = size;
        let side = neighbourhood.side();
        let input = values(inputs * height * width, 0.1);
        let (kernels, bias) = (kernels(outputs * inputs * side * side), values(outputs, 0.3));
        let expected = plain(neighbourhood, size, &input, (&kernels, &bias));
        let rows = 0..neighbourhood.scale() * height;
        let conv = Convolution::packed(isa, neighbourhood, inputs, (&kernels, &bias), false);
        let found = convolved::<f32>(&conv, rows.clone(), &input, (height, width));
        assert_close(&found, &expected, 3e-5, &format!("{isa}, {neighbourhood:?}, {size:?}"));
        let conv = Convolution::packed(isa, neighbourhood, inputs, (&kernels, &bias), true);
        let found = convolved::<bf16>(&conv, rows, &input, (height, width));
        assert_close(&found, &expected, 5e-5, &format!("{isa}, {neighbourhood:?}, {size:?}, bf16"));
    }
}

fn cases() -> impl Iterator<Item = (Neighbourhood, [usize; 4], Isa)> {
    let sizes = ALL.into_iter().flat_map(|neighbourhood| SIZES.map(|size| (neighbourhood, size)));
    sizes.flat_map(|(neighbourhood, size)| Isa::tested().map(move |isa| (neighbourhood, size, isa)))
}

/// Compared with the largest of them.
fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let largest = expected.iter().fold(1f64, |largest, value| largest.max(value.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < tolerance * largest, "{what}: {found} for {expected}");
    }
}

#[test]
fn some_rows_are_the_same_as_in_the_whole() {
    for neighbourhood in ALL {
        let (side, scale) = (neighbourhood.side(), neighbourhood.scale());
        let (input, kernels, bias) = (values(3 * 21 * 30, 0.1), kernels(4 * 3 * side * side), values(4, 0.3));
        let conv = Convolution::new(neighbourhood, 3, &kernels, &bias, false);
        let (height, width) = (21 * scale, 30 * scale);
        let whole = convolved::<f32>(&conv, 0..height, &input, (21, 30));
        for rows in [0..1, 0..height, 5..17, 6..17, 5..18, height - 1..height, 7..7] {
            let found = convolved::<f32>(&conv, rows.clone(), &input, (21, 30));
            for (channel, part) in found.chunks_exact((width * rows.len()).max(1)).enumerate() {
                assert_eq!(part, &whole[(channel * height + rows.start) * width..][..width * rows.len()], "{rows:?}");
            }
        }
    }
}

#[test]
fn rows_of_a_larger_picture_are_added_to_what_is_there() {
    for (neighbourhood, isa) in ALL.into_iter().flat_map(|seen| Isa::tested().map(move |isa| (seen, isa))) {
        let (side, scale) = (neighbourhood.side(), neighbourhood.scale());
        let (input, kernels, bias) = (values(3 * 8 * 9, 0.1), kernels(4 * 3 * side * side), values(4, 0.3));
        let conv = Convolution::packed(isa, neighbourhood, 3, (&kernels, &bias), false);
        let rows = convolved::<f32>(&conv, 1..6, &input, (8, 9));
        let (pixels, stride, before) = (5 * 9 * scale, 5 * 9 * scale + 7, values(4 * (5 * 9 * scale + 7), 0.9));
        let mut found = before.clone();
        let output = ConvolvedRows { values: &mut found, stride, adds: true };
        conv.run(1..6, Picture { values: &input[..], height: 8, width: 9 }, output);
        for (index, (found, before)) in found.iter().zip(&before).enumerate() {
            let (channel, pixel) = (index / stride, index % stride);
            let added = if pixel < pixels { rows[channel * pixels + pixel] } else { 0.0 };
            assert_eq!(*found, before + added, "{isa}, {neighbourhood:?}, {index}");
        }
    }
}
