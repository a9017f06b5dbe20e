//! Which step, and which guidance branch, a forward belongs to.
//!
//! Where cond and uncond run as two forwards, both belong to one step. A forced refresh makes the
//! method's step count start again, while the request's own goes on.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/cache_context.py`, lines 146-168 (`mark_step_begin`) and
//! 298-310 (`is_separate_cfg_step`); `cache_manager.py` there, lines 111-120 (the forced refresh).

use crate::config::RefreshConfig;

#[derive(Debug, Clone)]
pub(crate) struct StepClock {
    separate_cfg: bool,
    /// With separate forwards: the unconditional one comes first.
    uncond_first: bool,
    refresh: Option<RefreshConfig>,
    forwards: usize,
    steps: usize,
    request_steps: usize,
}

/// The forward in progress.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pass {
    /// 0, or 1 for a separate unconditional forward.
    pub(crate) branch: usize,
    /// Index of the step since the last refresh.
    pub(crate) step: usize,
    /// Index of the step in the request.
    pub(crate) request_step: usize,
}

impl StepClock {
    pub(crate) fn new(separate_cfg: bool, uncond_first: bool, refresh: Option<RefreshConfig>) -> Self {
        Self { separate_cfg, uncond_first, refresh, forwards: 0, steps: 0, request_steps: 0 }
    }

    /// Names of the branches, by index.
    pub(crate) fn branches(separate_cfg: bool) -> &'static [&'static str] {
        if separate_cfg { &["cond", "uncond"] } else { &["all"] }
    }

    /// Whether the method's state has to be dropped before the forward that begins.
    pub(crate) fn refresh_if_due(&mut self) -> bool {
        let Some(refresh) = self.refresh.filter(|refresh| refresh.forwards == self.forwards) else { return false };
        if !refresh.repeats {
            self.refresh = None;
        }
        self.forwards = 0;
        self.steps = 0;
        true
    }

    /// Counts a forward.
    pub(crate) fn begin(&mut self) -> Pass {
        let first_of_step = !self.separate_cfg || self.forwards.is_multiple_of(2);
        self.forwards += 1;
        if first_of_step {
            self.steps += 1;
            self.request_steps += 1;
        }
        let uncond = self.separate_cfg && first_of_step == self.uncond_first;
        Pass { branch: usize::from(uncond), step: self.steps - 1, request_step: self.request_steps - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(clock: &mut StepClock, forwards: usize) -> Vec<(usize, usize, usize)> {
        let mut pass = || {
            clock.refresh_if_due();
            let Pass { branch, step, request_step } = clock.begin();
            (branch, step, request_step)
        };
        (0..forwards).map(|_| pass()).collect()
    }

    #[test]
    fn two_forwards_make_one_step_of_separate_guidance() {
        let mut clock = StepClock::new(true, false, None);
        assert_eq!(passes(&mut clock, 4), [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1)]);
        let mut clock = StepClock::new(true, true, None);
        assert_eq!(passes(&mut clock, 3), [(1, 0, 0), (0, 0, 0), (1, 1, 1)]);
    }

    #[test]
    fn a_refresh_restarts_the_method_but_not_the_request() {
        let once = RefreshConfig { forwards: 2, repeats: false };
        assert_eq!(
            passes(&mut StepClock::new(false, false, Some(once)), 5),
            [(0, 0, 0), (0, 1, 1), (0, 0, 2), (0, 1, 3), (0, 2, 4)]
        );
        let repeated = RefreshConfig { forwards: 2, repeats: true };
        assert_eq!(
            passes(&mut StepClock::new(false, false, Some(repeated)), 5),
            [(0, 0, 0), (0, 1, 1), (0, 0, 2), (0, 1, 3), (0, 0, 4)]
        );
    }
}
