//! What is searched for.

use std::fmt;

use super::trial::Trial;
use crate::profile::Floor;

/// What the best setting is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The fastest of those of which 19 of 20 pictures are this alike to the uncached ones.
    Alike(Floor),
    /// The most alike of those that are at least this many times faster.
    Fast(f64),
}

/// Decibels by which more than is asked for is looked for, too: what a search has seen may fail on other pictures.
const SAFER_DECIBELS: [f64; 3] = [0.0, 1.0, 2.5];
/// Factors by which counted blocks have to promise more than is asked for: what else a step costs takes some of it.
const SAFER_FACTORS: [f64; 3] = [1.04, 1.1, 1.2];

impl Goal {
    /// The goal, and safer ones.
    pub(super) fn and_safer(self) -> [Self; 3] {
        match self {
            Self::Alike(floor) => SAFER_DECIBELS.map(|decibels| Self::Alike(floor.raised(decibels))),
            Self::Fast(factor) => SAFER_FACTORS.map(|safer| Self::Fast(factor * safer)),
        }
    }

    /// Larger is better: settings that meet the goal stand before those that are only near.
    pub(super) fn rank(self, trial: &Trial) -> (bool, f64) {
        let (psnr_db, ssim) = trial.expected();
        match self {
            Self::Alike(floor) if trial.bound > 1.0 && floor.is_held_by(psnr_db, ssim) => (true, trial.bound),
            Self::Alike(_) => (false, psnr_db),
            Self::Fast(factor) if trial.bound >= factor => (true, psnr_db),
            Self::Fast(_) => (false, trial.bound),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alike(floor) => write!(f, "at least {floor}"),
            Self::Fast(factor) => write!(f, "at least {factor} times faster"),
        }
    }
}
