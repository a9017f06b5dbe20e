//! Colours as FLIP compares them: from sRGB over linear RGB to YCxCz and to L*a*b* under D65.

/// One colour.
pub(super) type Triple = [f64; 3];

/// XYZ of linear sRGB primaries, as fractions that FLIP's authors give.
const XYZ_OF_RGB: [Triple; 3] = [
    [10_135_552.0 / 24_577_794.0, 8_788_810.0 / 24_577_794.0, 4_435_075.0 / 24_577_794.0],
    [2_613_072.0 / 12_288_897.0, 8_788_810.0 / 12_288_897.0, 887_015.0 / 12_288_897.0],
    [1_425_312.0 / 73_733_382.0, 8_788_810.0 / 73_733_382.0, 70_074_185.0 / 73_733_382.0],
];
const RGB_OF_XYZ: [Triple; 3] = [
    [3.241_003_275, -1.537_398_934, -0.498_615_861],
    [-0.969_224_334, 1.875_930_071, 0.041_554_224],
    [0.055_639_423, -0.204_011_202, 1.057_148_933],
];

pub(super) fn linear_of_srgb(byte: u8) -> f64 {
    let value = f64::from(byte) / 255.0;
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

pub(super) fn ycc_of_linear(rgb: Triple) -> Triple {
    let [x, y, z] = relative_to_white(rgb);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

pub(super) fn linear_of_ycc([luminance, cx, cz]: Triple) -> Triple {
    let y = (luminance + 16.0) / 116.0;
    let relative = [y + cx / 500.0, y, y - cz / 200.0];
    let white = product(&XYZ_OF_RGB, [1.0; 3]);
    product(&RGB_OF_XYZ, [0, 1, 2].map(|axis: usize| relative[axis] * white[axis]))
}

/// L*a*b* whose a* and b* grow with luminance, as the Hunt effect has it.
pub(super) fn hunt_lab(rgb: Triple) -> Triple {
    let [x, y, z] = relative_to_white(rgb).map(cube_root);
    let lightness = 116.0 * y - 16.0;
    [lightness, 0.01 * lightness * 500.0 * (x - y), 0.01 * lightness * 200.0 * (y - z)]
}

/// The distance that fits large differences: city block in lightness, straight in colour.
pub(super) fn hyab(one: Triple, other: Triple) -> f64 {
    (one[0] - other[0]).abs() + (one[1] - other[1]).hypot(one[2] - other[2])
}

/// The cube root, with a straight part near 0.
fn cube_root(value: f64) -> f64 {
    const BEND: f64 = 6.0 / 29.0;
    if value > BEND * BEND * BEND { value.cbrt() } else { value / (3.0 * BEND * BEND) + 4.0 / 29.0 }
}

fn relative_to_white(rgb: Triple) -> Triple {
    let (colour, white) = (product(&XYZ_OF_RGB, rgb), product(&XYZ_OF_RGB, [1.0; 3]));
    [0, 1, 2].map(|axis: usize| colour[axis] / white[axis])
}

fn product(matrix: &[Triple; 3], [a, b, c]: Triple) -> Triple {
    [0, 1, 2].map(|row: usize| matrix[row][0] * a + matrix[row][1] * b + matrix[row][2] * c)
}
