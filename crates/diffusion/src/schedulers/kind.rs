//! The classes of schedulers, as diffusers names them.

use std::str::FromStr;

use super::schedule::FlowSigmas;
use crate::DiffusionError;

/// The noise schedulers on offer, by their diffusers class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// `DDIMScheduler`, deterministic (eta 0).
    Ddim,
    /// `DPMSolverMultistepScheduler`, the deterministic algorithms, also of flow matching.
    DpmSolverMultistep,
    /// `DDPMScheduler`, which adds noise at every step.
    Ddpm,
    /// `FlowMatchEulerDiscreteScheduler`, deterministic.
    FlowMatchEuler,
    /// `FlowMatchHeunDiscreteScheduler`: second order, two forwards per step but for the last.
    FlowMatchHeun,
    /// `SCMScheduler`, which adds noise at every step but the last.
    Scm,
    /// `UniPCMultistepScheduler`, for flow matching.
    UniPc,
}

/// What models predict, and so what they can be sampled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predicted {
    /// The noise, or what it follows from in a diffusion of constant variance.
    Noise,
    /// The velocity from picture to noise.
    Flow,
    /// The velocity on the arc between picture and noise.
    TrigFlow,
}

impl SchedulerKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Ddim,
        Self::DpmSolverMultistep,
        Self::Ddpm,
        Self::FlowMatchEuler,
        Self::FlowMatchHeun,
        Self::Scm,
        Self::UniPc,
    ];

    /// The diffusers class name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::FlowMatchEuler => "FlowMatchEulerDiscreteScheduler",
            Self::FlowMatchHeun => "FlowMatchHeunDiscreteScheduler",
            Self::Scm => "SCMScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
        }
    }

    /// Forwards of the model in so many denoising steps.
    pub fn forwards(self, steps: usize) -> usize {
        match self {
            Self::FlowMatchHeun => (2 * steps).saturating_sub(1),
            _ => steps,
        }
    }

    /// How many denoising steps so many forwards are; one that is under way counts.
    pub fn steps(self, forwards: usize) -> usize {
        forwards.div_ceil(self.forwards_per_step())
    }

    /// Forwards of a denoising step, but for the last, which may have fewer.
    pub fn forwards_per_step(self) -> usize {
        match self {
            Self::FlowMatchHeun => 2,
            _ => 1,
        }
    }

    /// Whether a forward, counted from 0, is the first of its step.
    pub fn begins_step(self, forward: usize) -> bool {
        forward.is_multiple_of(self.forwards_per_step())
    }

    /// Whether it is for models that predict this.
    pub(super) fn samples(self, predicted: Predicted) -> bool {
        match self {
            Self::Ddim | Self::Ddpm => predicted == Predicted::Noise,
            Self::DpmSolverMultistep => predicted != Predicted::TrigFlow,
            Self::FlowMatchEuler | Self::FlowMatchHeun | Self::UniPc => predicted == Predicted::Flow,
            Self::Scm => predicted == Predicted::TrigFlow,
        }
    }

    /// Whether it runs at noise levels that are chosen in this way.
    pub fn takes(self, sigmas: FlowSigmas) -> bool {
        sigmas == FlowSigmas::Scheduler || self != Self::FlowMatchHeun
    }
}

impl std::fmt::Display for SchedulerKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for SchedulerKind {
    type Err = DiffusionError;

    fn from_str(name: &str) -> Result<Self, DiffusionError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let supported = Self::ALL.map(Self::as_str).join(", ");
            DiffusionError::Scheduler(format!("scheduler {name:?} is not supported; supported are {supported}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_told_in_steps() {
        for kind in SchedulerKind::ALL {
            for steps in 1..30 {
                assert_eq!(kind.steps(kind.forwards(steps)), steps, "{kind}");
            }
        }
        assert_eq!([0, 1, 2, 3].map(|forwards| SchedulerKind::FlowMatchHeun.steps(forwards)), [0, 1, 1, 2]);
    }

    #[test]
    fn names_round_trip() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.as_str().parse::<SchedulerKind>().unwrap(), kind);
        }
        let error = "PNDMScheduler".parse::<SchedulerKind>().unwrap_err().to_string();
        assert!(error.contains("PNDMScheduler") && error.contains("DDIMScheduler"), "{error}");
    }
}
