//! One channel of a picture, and filters over it.

/// Values of one channel, row by row.
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<f64>,
}

/// Weights by place, from `-radius` to `radius`.
pub(super) struct Kernel(Vec<f64>);

impl Kernel {
    pub(super) fn new(radius: i32, weight: impl Fn(f64) -> f64) -> Self {
        Self((-radius..=radius).map(|place| weight(f64::from(place))).collect())
    }

    pub(super) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// With a sum of 1.
    pub(super) fn normalised(self) -> Self {
        let sum = self.sum();
        Self(self.0.into_iter().map(|weight| weight / sum).collect())
    }

    /// Positive weights that add up to 1, negative ones to -1.
    pub(super) fn normalised_by_sign(self) -> Self {
        let positive: f64 = self.0.iter().filter(|weight| **weight > 0.0).sum();
        let negative: f64 = self.0.iter().filter(|weight| **weight < 0.0).sum();
        let scaled = |weight: f64| if weight > 0.0 { weight / positive } else { weight / -negative };
        Self(self.0.into_iter().map(scaled).collect())
    }
}

impl Plane {
    /// Through one filter along rows and one along columns; the border's pixels go on outside.
    pub(super) fn filtered(&self, along_rows: &Kernel, along_columns: &Kernel) -> Self {
        let (width, height) = (self.width, self.height);
        let rows = self.values.chunks_exact(width);
        let across: Vec<f64> =
            rows.flat_map(|row| (0..width).map(|x| weighed(along_rows, x, width, |place| row[place]))).collect();
        let down = (0..height).flat_map(|y| {
            let across = &across;
            (0..width).map(move |x| weighed(along_columns, y, height, |place| across[place * width + x]))
        });
        Self { width, height, values: down.collect() }
    }
}

/// The weighed sum around `centre` of `length` values.
fn weighed(kernel: &Kernel, centre: usize, length: usize, value: impl Fn(usize) -> f64) -> f64 {
    let radius = kernel.0.len() / 2;
    let places = (0..kernel.0.len()).map(|place| (centre + place).saturating_sub(radius).min(length - 1));
    kernel.0.iter().zip(places).map(|(weight, place)| weight * value(place)).sum()
}
