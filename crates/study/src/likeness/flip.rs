//! FLIP: the difference that a person sees who switches between two pictures.
//!
//! LDR-FLIP of Andersson et al. (2020, doi:10.1145/3406183), the mean over all pixels, at the viewing distance that its authors
//! take if none is given. Colours are compared after the eye's filter (its contrast sensitivity), in a space where distances are those seen;
//! differing edges and points raise the difference.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use afterimage_runner::RgbImage;

use super::LikenessError;
use super::colour::{Triple, hunt_lab, hyab, linear_of_srgb, linear_of_ycc, ycc_of_linear};
use super::plane::{Kernel, Plane};

/// 0.7 m before a screen 0.7 m wide with 3840 pixels.
const PIXELS_PER_DEGREE: f64 = 3840.0 * PI / 180.0;
/// Exponents and knee of the colour difference, width of the features' detector and exponent of their difference.
const COLOUR_EXPONENT: f64 = 0.7;
const KNEE: f64 = 0.4;
const AT_KNEE: f64 = 0.95;
const FEATURE_WIDTH_DEGREES: f64 = 0.082;
const FEATURE_EXPONENT: f64 = 0.5;

/// A Gaussian of the contrast sensitivity: its weight and its spread in square degrees.
struct Sensitivity {
    weight: f64,
    spread: f64,
}

const LUMINANCE: [Sensitivity; 1] = [Sensitivity { weight: 1.0, spread: 0.0047 }];
const RED_GREEN: [Sensitivity; 1] = [Sensitivity { weight: 1.0, spread: 0.0053 }];
const BLUE_YELLOW: [Sensitivity; 2] =
    [Sensitivity { weight: 34.1, spread: 0.04 }, Sensitivity { weight: 13.5, spread: 0.025 }];
const WIDEST_SPREAD: f64 = 0.04;

/// The mean difference, 0 for equal pictures and at most 1.
///
/// # Errors
/// If the pictures differ in size.
pub fn flip(reference: &RgbImage, picture: &RgbImage) -> Result<f64, LikenessError> {
    if reference.size != picture.size {
        return Err(LikenessError::Sizes(reference.size, picture.size));
    }
    let [seen, other] = [reference, picture].map(Seen::new);
    let most = hyab(hunt_lab([0.0, 1.0, 0.0]), hunt_lab([0.0, 0.0, 1.0])).powf(COLOUR_EXPONENT);
    let pixels = seen.colours.len();
    let differences = (0..pixels).map(|pixel| {
        let colour = redistributed(hyab(seen.colours[pixel], other.colours[pixel]).powf(COLOUR_EXPONENT), most);
        let edges = (seen.edges[pixel] - other.edges[pixel]).abs();
        let points = (seen.points[pixel] - other.points[pixel]).abs();
        let features = (FRAC_1_SQRT_2 * edges.max(points)).powf(FEATURE_EXPONENT).min(1.0);
        colour.powf(1.0 - features)
    });
    Ok(differences.sum::<f64>() / pixels as f64)
}

/// From 0 to 1; the few large differences share the uppermost part.
fn redistributed(difference: f64, most: f64) -> f64 {
    let knee = KNEE * most;
    if difference < knee {
        AT_KNEE / knee * difference
    } else {
        AT_KNEE + (difference - knee) / (most - knee) * (1.0 - AT_KNEE)
    }
}

/// A picture as the eye takes it, pixel by pixel.
struct Seen {
    /// L*a*b* with colourfulness that grows with luminance.
    colours: Vec<Triple>,
    /// How much of an edge, and of a point, there is.
    edges: Vec<f64>,
    points: Vec<f64>,
}

impl Seen {
    fn new(picture: &RgbImage) -> Self {
        let pixels = picture.data.chunks_exact(3);
        let ycc: Vec<Triple> = pixels.map(|rgb| ycc_of_linear([rgb[0], rgb[1], rgb[2]].map(linear_of_srgb))).collect();
        let plane = |channel: usize| Plane {
            width: picture.size.width,
            height: picture.size.height,
            values: ycc.iter().map(|pixel| pixel[channel]).collect(),
        };
        let filtered =
            [filtered(&plane(0), &LUMINANCE), filtered(&plane(1), &RED_GREEN), filtered(&plane(2), &BLUE_YELLOW)];
        let colour = |pixel: usize| {
            let linear = linear_of_ycc([0, 1, 2].map(|channel: usize| filtered[channel][pixel]));
            hunt_lab(linear.map(|value| value.clamp(0.0, 1.0)))
        };
        let mut luminance = plane(0);
        luminance.values.iter_mut().for_each(|value| *value = (*value + 16.0) / 116.0);
        let (edges, points) = features(&luminance);
        Self { colours: (0..ycc.len()).map(colour).collect(), edges, points }
    }
}

/// A channel through the eye's filter: a sum of Gaussians whose weights add up to 1.
fn filtered(plane: &Plane, sensitivities: &[Sensitivity]) -> Vec<f64> {
    let radius = (3.0 * (WIDEST_SPREAD / (2.0 * PI * PI)).sqrt() * PIXELS_PER_DEGREE).ceil() as i32;
    let mut sum = vec![0.0; plane.values.len()];
    let mut total = 0.0;
    for Sensitivity { weight, spread } in sensitivities {
        let gaussian = Kernel::new(radius, |pixels| (-(PI * pixels / PIXELS_PER_DEGREE).powi(2) / spread).exp());
        let share = weight * (PI / spread).sqrt() * gaussian.sum().powi(2);
        let gaussian = gaussian.normalised();
        for (sum, value) in sum.iter_mut().zip(plane.filtered(&gaussian, &gaussian).values) {
            *sum += share * value;
        }
        total += share;
    }
    sum.iter_mut().for_each(|value| *value /= total);
    sum
}

/// Edges and points: the magnitudes of the first and second derivatives of a Gaussian.
fn features(luminance: &Plane) -> (Vec<f64>, Vec<f64>) {
    let deviation = 0.5 * FEATURE_WIDTH_DEGREES * PIXELS_PER_DEGREE;
    let radius = (3.0 * deviation).ceil() as i32;
    let bell = |pixels: f64| (-pixels * pixels / (2.0 * deviation * deviation)).exp();
    let gaussian = Kernel::new(radius, bell).normalised();
    let magnitude = |derivative: &Kernel| {
        let across = luminance.filtered(derivative, &gaussian).values;
        let down = luminance.filtered(&gaussian, derivative).values;
        across.into_iter().zip(down).map(|(x, y)| x.hypot(y)).collect()
    };
    let first = Kernel::new(radius, |pixels| -pixels * bell(pixels)).normalised_by_sign();
    let second = Kernel::new(radius, |pixels| (pixels * pixels / (deviation * deviation) - 1.0) * bell(pixels))
        .normalised_by_sign();
    (magnitude(&first), magnitude(&second))
}
