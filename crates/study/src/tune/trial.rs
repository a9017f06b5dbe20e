//! What was seen of one setting.

use crate::error::StudyError;
use crate::row::{PictureRow, Row};

/// Standard deviations below the mean: of normally distributed values one of 20 is lower.
const DEVIATIONS: f64 = 1.645;

/// A setting's figures on the pictures that it made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trial {
    /// Times faster, by counted blocks.
    pub(super) bound: f64,
    /// One for each picture.
    pub(super) psnr_db: Vec<f64>,
    /// One for each picture.
    pub(super) ssim: Vec<f64>,
}

impl Trial {
    pub(super) fn of(row: &Row) -> Result<Self, StudyError> {
        let of = |figure: fn(&PictureRow) -> Option<f64>| {
            row.pictures.iter().map(figure).collect::<Option<Vec<_>>>().ok_or(StudyError::NotComparable)
        };
        Ok(Self {
            bound: row.speedup_bound,
            psnr_db: of(|picture| picture.psnr_db)?,
            ssim: of(|picture| picture.ssim)?,
        })
    }

    pub(super) fn pictures(&self) -> usize {
        self.psnr_db.len()
    }

    /// What 19 of 20 pictures of the kind should reach: PSNR and SSIM.
    pub(super) fn expected(&self) -> (f64, f64) {
        (low(&self.psnr_db), low(&self.ssim))
    }

    /// Likenesses of both on all pictures.
    pub(super) fn with(&self, others: &Self) -> Self {
        let both = |own: &[f64], other: &[f64]| [own, other].concat();
        Self { bound: self.bound, psnr_db: both(&self.psnr_db, &others.psnr_db), ssim: both(&self.ssim, &others.ssim) }
    }
}

fn low(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / values.len().saturating_sub(1).max(1) as f64).sqrt();
    mean - DEVIATIONS * deviation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_expected_where_pictures_differ() {
        assert_eq!((low(&[30.0, 30.0]), low(&[30.0])), (30.0, 30.0));
        assert!((low(&[30.0, 34.0, 38.0]) - (34.0 - 1.645 * 4.0)).abs() < 1e-9);
    }
}
