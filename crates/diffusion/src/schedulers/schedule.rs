//! What a run's noise levels depend on, beside the model's configuration.

/// What a schedule is made for, beside the model's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Denoising steps.
    pub steps: usize,
    /// Tokens of the picture in the transformer, which dynamic shifting goes by.
    pub image_tokens: usize,
    /// Where the noise levels of flow matching come from.
    pub sigmas: FlowSigmas,
}

impl Schedule {
    /// So many steps, where neither the picture's size nor the pipeline counts.
    pub fn new(steps: usize) -> Self {
        Self { steps, image_tokens: 0, sigmas: FlowSigmas::Scheduler }
    }
}

/// Where the noise levels of flow matching come from, before they are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowSigmas {
    /// The scheduler spreads them over its training schedule.
    #[default]
    Scheduler,
    /// The pipeline gives them: evenly from 1 to 1 / steps. Solvers have levels of their own.
    Even,
    /// The same, also for solvers that take any.
    EvenForSolvers,
    /// The same, and how far they are shifted depends on the number of steps too, by a rule of the pipeline's.
    EvenWithOwnShift,
}
