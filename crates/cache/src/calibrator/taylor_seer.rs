//! TaylorSeer: a Taylor expansion around the last computed step (arXiv 2503.06923).
//!
//! Derivatives are differences between computed steps, each divided by the gap between the last two
//! of them. The ladder grows by one order per computed step, and not before the third step after the
//! first update, because the first steps of a diffusion change too fast to be extrapolated.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/calibrators/taylorseer.py`, lines 50-127
//! (`TaylorSeerState`).

use candle_core::{Result, Tensor};

use crate::combination::{Term, combined_on_gpu};

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
                ladder.push(difference(&ladder[ladder.len() - 1], previous, gap)?);
            }
        }
        self.ladder = ladder;
        self.ticks_at_update = self.ticks;
        Ok(())
    }

    pub(super) fn predict(&self) -> Result<Option<Tensor>> {
        let elapsed = (self.ticks - self.ticks_at_update) as f64;
        let Some((value, derivatives)) = self.ladder.split_first() else { return Ok(None) };
        if derivatives.is_empty() {
            return Ok(Some(value.clone()));
        }
        let weight = |order: usize| elapsed.powi(order as i32) / factorial(order);
        let terms: Vec<_> = (0..).zip(&self.ladder).map(|(order, tensor)| Term::new(weight(order), tensor)).collect();
        if let Some(sum) = combined_on_gpu(&terms)? {
            return Ok(Some(sum));
        }
        let mut sum = value.clone();
        for (order, derivative) in (1..).zip(derivatives) {
            let term = ((derivative * (1.0 / factorial(order)))? * elapsed.powi(order as i32))?;
            sum = (sum + term)?;
        }
        Ok(Some(sum))
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        self.ladder.iter().collect()
    }
}

/// `(value - previous) / gap`
fn difference(value: &Tensor, previous: &Tensor, gap: f64) -> Result<Tensor> {
    match combined_on_gpu(&[Term::of_difference(1.0 / gap, value, previous)])? {
        Some(difference) => Ok(difference),
        None => (value - previous)? / gap,
    }
}

fn factorial(order: usize) -> f64 {
    (1..=order).map(|factor| factor as f64).product()
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
