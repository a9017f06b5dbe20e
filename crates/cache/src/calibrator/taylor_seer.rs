//! TaylorSeer: a Taylor expansion around the last computed step (arXiv 2503.06923).
//!
//! Derivatives are differences between computed steps, each divided by the gap between the last two
//! of them. The ladder grows by one order per computed step, and not before the third step after the
//! first update, because the first steps of a diffusion change too fast to be extrapolated.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/calibrators/taylorseer.py`, lines 50-127
//! (`TaylorSeerState`).

use candle_core::{Result, Tensor};

/// Ticks (counted from the first update) up to which no derivative is taken.
const TICKS_WITHOUT_DERIVATIVE: i64 = 1;

/// State of one stream.
#[derive(Debug, Clone)]
pub struct TaylorSeer {
    order: usize,
    /// Value and derivatives at the last computed step, lowest order first.
    ladder: Vec<Tensor>,
    /// Forwards since the first update, which itself counts as -1.
    ticks: i64,
    ticks_at_update: i64,
}

impl TaylorSeer {
    pub(super) fn new(order: usize) -> Self {
        Self { order, ladder: Vec::new(), ticks: -1, ticks_at_update: -1 }
    }

    pub(super) fn tick(&mut self) {
        if !self.ladder.is_empty() {
            self.ticks += 1;
        }
    }

    pub(super) fn update(&mut self, value: Tensor) -> Result<()> {
        let gap = (self.ticks - self.ticks_at_update) as f64;
        let mut ladder = vec![value];
        if self.ticks > TICKS_WITHOUT_DERIVATIVE {
            for previous in self.ladder.iter().take(self.order) {
                let difference = ((&ladder[ladder.len() - 1] - previous)? / gap)?;
                ladder.push(difference);
            }
        }
        self.ladder = ladder;
        self.ticks_at_update = self.ticks;
        Ok(())
    }

    pub(super) fn predict(&self) -> Result<Option<Tensor>> {
        let elapsed = (self.ticks - self.ticks_at_update) as f64;
        let mut terms = self.ladder.iter().enumerate();
        let Some((_, value)) = terms.next() else { return Ok(None) };
        let mut sum = value.clone();
        let mut factorial = 1.0;
        for (order, derivative) in terms {
            factorial *= order as f64;
            let term = ((derivative * (1.0 / factorial))? * elapsed.powi(order as i32))?;
            sum = (sum + term)?;
        }
        Ok(Some(sum))
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        self.ladder.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn scalar(value: f32) -> Tensor {
        Tensor::new(&[value], &Device::Cpu).unwrap()
    }

    fn predicted(state: &TaylorSeer) -> f32 {
        state.predict().unwrap().unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn a_straight_line_is_continued_once_four_steps_are_computed() {
        let mut state = TaylorSeer::new(1);
        for step in 0..4 {
            state.tick();
            state.update(scalar(10.0 + 3.0 * step as f32)).unwrap();
        }
        for step in 4..7 {
            state.tick();
            assert_eq!(predicted(&state), 10.0 + 3.0 * step as f32);
        }
    }

    #[test]
    fn the_first_three_computed_steps_give_plain_reuse() {
        let mut state = TaylorSeer::new(2);
        assert!(state.predict().unwrap().is_none());
        for step in 0..3 {
            state.tick();
            state.update(scalar(step as f32)).unwrap();
        }
        state.tick();
        assert_eq!(predicted(&state), 2.0);
    }

    #[test]
    fn the_second_derivative_appears_one_computed_step_later() {
        let mut state = TaylorSeer::new(2);
        for step in 0..5 {
            state.tick();
            state.update(scalar((step * step) as f32)).unwrap();
        }
        // First differences 5 (4-9) and 7 (9-16): value 16, slope 7, curvature 2.
        state.tick();
        assert_eq!(predicted(&state), 16.0 + 7.0 + 0.5 * 2.0);
    }
}
