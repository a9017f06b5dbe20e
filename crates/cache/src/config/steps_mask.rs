//! Where a request's steps mask comes from, and what holds for the steps that it leaves open.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::fields::Fields;
use super::in_force::InForce;
use crate::steps_mask::MaskPolicy;

/// What a step outside the forced steps of a mask does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskMode {
    /// The ordinary checks.
    Dynamic,
    /// Reuse without any check.
    Static,
}

/// A source of the steps computation mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepsMask {
    /// A named policy, made for the request's number of steps.
    Policy(MaskPolicy),
    /// Own run lengths.
    Bins {
        /// Lengths of the computed runs.
        compute: Vec<usize>,
        /// Lengths of the runs that may be reused.
        cache: Vec<usize>,
    },
    /// The mask itself; `true` = compute.
    Explicit(Vec<bool>),
}

impl StepsMask {
    /// The source of the mask, and the mask it must give where both are there.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<(Option<Self>, Option<Vec<bool>>), ConfigError> {
        let policy: Option<MaskPolicy> = fields.read("scm_steps_mask_policy")?;
        let compute: Option<Vec<usize>> = fields.read("scm_compute_bins")?;
        let cache: Option<Vec<usize>> = fields.read("scm_cache_bins")?;
        let mask: Option<Vec<u8>> = fields.read("steps_computation_mask")?;
        let mask: Option<Vec<bool>> = mask.map(|mask| mask.into_iter().map(|bit| bit == 1).collect());
        let source = match (policy, compute, cache) {
            (None, None, None) => return Ok((mask.map(Self::Explicit), None)),
            (Some(policy), None, None) => Self::Policy(policy),
            (None, Some(compute), Some(cache)) => Self::Bins { compute, cache },
            (Some(_), Some(_), Some(_)) => {
                let message = "`scm_compute_bins` and `scm_steps_mask_policy` both give a steps mask; give one";
                return Err(ConfigError::at("scm_compute_bins", message));
            }
            (_, Some(_), None) => {
                let message = "`scm_compute_bins` needs `scm_cache_bins` beside it";
                return Err(ConfigError::at("scm_cache_bins", message));
            }
            (_, None, Some(_)) => {
                let message = "`scm_cache_bins` needs `scm_compute_bins` beside it";
                return Err(ConfigError::at("scm_compute_bins", message));
            }
        };
        Ok((Some(source), mask))
    }

    /// Adds the keys of all sources; `mask` is what this one has made for the request.
    pub(super) fn show(source: Option<&Self>, mode: MaskMode, mask: Option<&[bool]>, keys: InForce) -> InForce {
        let (policy, compute, cache) = match source {
            Some(Self::Policy(policy)) => (Some(policy.as_str()), None, None),
            Some(Self::Bins { compute, cache }) => (None, Some(compute), Some(cache)),
            Some(Self::Explicit(_)) | None => (None, None, None),
        };
        let mask: Option<Vec<u8>> = mask.map(|mask| mask.iter().copied().map(u8::from).collect());
        keys.with("scm_steps_mask_policy", policy)
            .with("scm_compute_bins", compute)
            .with("scm_cache_bins", cache)
            .with("scm_steps_policy", mode)
            .with("steps_computation_mask", mask)
    }
}
