//! Structural similarity.
//!
//! The mean over channels and over all windows that lie in the picture. A window is 7 x 7 pixels with equal weights, and variances
//! are those of a sample (divided by 48), which is what scikit-image does by default; the original of Wang et al. (2004,
//! doi:10.1109/TIP.2003.819861) weighs 11 x 11 pixels by a Gaussian, and gives other figures.

use afterimage_runner::RgbImage;

use super::LikenessError;

const WINDOW: usize = 7;
const PIXELS: f64 = (WINDOW * WINDOW) as f64;
const CHANNELS: usize = 3;
const RANGE: f64 = 255.0;
const C1: f64 = (0.01 * RANGE) * (0.01 * RANGE);
const C2: f64 = (0.03 * RANGE) * (0.03 * RANGE);

/// The similarity, 1 for equal pictures and about 0 for unrelated ones.
///
/// # Errors
/// If the pictures differ in size, or are smaller than a window.
pub fn ssim(reference: &RgbImage, picture: &RgbImage) -> Result<f64, LikenessError> {
    let size = reference.size;
    if size != picture.size {
        return Err(LikenessError::Sizes(size, picture.size));
    }
    if size.width < WINDOW || size.height < WINDOW {
        return Err(LikenessError::TooSmall(size));
    }
    let channels = (0..CHANNELS).map(|channel| of_channel(reference, picture, channel));
    Ok(channels.sum::<f64>() / CHANNELS as f64)
}

/// Sums over a window: of both, of their squares, and of their product. Whole numbers, so nothing is rounded.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    a: u64,
    b: u64,
    aa: u64,
    bb: u64,
    ab: u64,
}

impl Sums {
    fn of_pixel(a: u8, b: u8) -> Self {
        let (a, b) = (u64::from(a), u64::from(b));
        Self { a, b, aa: a * a, bb: b * b, ab: a * b }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            a: self.a + other.a,
            b: self.b + other.b,
            aa: self.aa + other.aa,
            bb: self.bb + other.bb,
            ab: self.ab + other.ab,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            a: self.a - other.a,
            b: self.b - other.b,
            aa: self.aa - other.aa,
            bb: self.bb - other.bb,
            ab: self.ab - other.ab,
        }
    }

    fn similarity(self) -> f64 {
        let [a, b, aa, bb, ab] = [self.a, self.b, self.aa, self.bb, self.ab].map(|sum| sum as f64 / PIXELS);
        let of_sample = PIXELS / (PIXELS - 1.0);
        let variance_a = of_sample * (aa - a * a);
        let variance_b = of_sample * (bb - b * b);
        let covariance = of_sample * (ab - a * b);
        let luminance = (2.0 * a * b + C1) / (a * a + b * b + C1);
        let structure = (2.0 * covariance + C2) / (variance_a + variance_b + C2);
        luminance * structure
    }
}

/// The mean over all windows; each is the one above it, less its uppermost row, and one row more.
fn of_channel(reference: &RgbImage, picture: &RgbImage, channel: usize) -> f64 {
    let (width, height) = (reference.size.width, reference.size.height);
    let pixel = |x: usize, y: usize| {
        let place = (y * width + x) * CHANNELS + channel;
        Sums::of_pixel(reference.data[place], picture.data[place])
    };
    let (mut similarity, mut windows) = (0.0, 0usize);
    // Of the last seven rows, column by column.
    let mut columns = vec![Sums::default(); width];
    for y in 0..height {
        for (x, column) in columns.iter_mut().enumerate() {
            *column = column.plus(pixel(x, y));
            if y >= WINDOW {
                *column = column.minus(pixel(x, y - WINDOW));
            }
        }
        if y + 1 < WINDOW {
            continue;
        }
        let mut sums = columns[..WINDOW - 1].iter().fold(Sums::default(), |sums, column| sums.plus(*column));
        for x in WINDOW - 1..width {
            sums = sums.plus(columns[x]);
            similarity += sums.similarity();
            sums = sums.minus(columns[x + 1 - WINDOW]);
            windows += 1;
        }
    }
    similarity / windows as f64
}
