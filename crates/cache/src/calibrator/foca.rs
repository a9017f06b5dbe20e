//! FoCa: forecast then calibrate (arXiv 2508.16211), as cache-dit 1.5.3 computes it.
//!
//! The slope is the sum of two differences: between the last two computed values, and between the
//! last two values of either kind, predicted ones included. It is not divided by the step gap. Far
//! predictions (more than three steps ahead) are damped towards the last computed value.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_contexts/calibrators/foca.py`, lines 138-205 (`FoCaState`).

use candle_core::{Result, Tensor};

use crate::combination::{Term, combined_on_gpu};

/// Steps ahead from which predictions are damped.
const DAMPED_FROM: f64 = 3.0;

/// State of one stream.
#[derive(Debug, Clone, Default)]
pub struct FoCa {
    /// The last two computed values, newest first.
    computed: [Option<Tensor>; 2],
    /// The last two values, predicted or computed, newest first.
    recent: [Option<Tensor>; 2],
    ticks: i64,
    ticks_at_update: i64,
}

impl FoCa {
    pub(super) fn tick(&mut self) {
        if self.computed[0].is_some() {
            self.ticks += 1;
        }
    }

    pub(super) fn update(&mut self, value: Tensor) {
        self.ticks_at_update = self.ticks;
        self.computed = [Some(value.clone()), self.computed[0].take()];
        self.recent = [Some(value), self.recent[0].take()];
    }

    pub(super) fn predict(&mut self) -> Result<Option<Tensor>> {
        let [Some(value), Some(value_before)] = &self.computed else { return Ok(self.computed[0].clone()) };
        let [Some(recent), Some(recent_before)] = &self.recent else { return Ok(Some(value.clone())) };
        let elapsed = (self.ticks - self.ticks_at_update) as f64;
        // Of the slope in the forecast, and of the forecast beside the value.
        let (ahead, weight) = match elapsed <= DAMPED_FROM {
            true => (elapsed / 2.0, 1.0),
            false => (DAMPED_FROM / 2.0, DAMPED_FROM / elapsed),
        };
        let on_gpu = combined_on_gpu(&[
            Term::new(1.0, value),
            Term::of_difference(weight * ahead, value, value_before),
            Term::of_difference(weight * ahead, recent, recent_before),
        ])?;
        let prediction = match on_gpu {
            Some(prediction) => prediction,
            None => {
                let slope = ((value - value_before)? + (recent - recent_before)?)?;
                let forecast = (value + (slope * ahead)?)?;
                if elapsed <= DAMPED_FROM { forecast } else { ((forecast * weight)? + (value * (1.0 - weight))?)? }
            }
        };
        self.recent = [Some(prediction.clone()), self.recent[0].take()];
        Ok(Some(prediction))
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        self.computed.iter().chain(&self.recent).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn scalar(value: f32) -> Tensor {
        Tensor::new(&[value], &Device::Cpu).unwrap()
    }

    fn predicted(state: &mut FoCa) -> f32 {
        state.tick();
        state.predict().unwrap().unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn one_value_is_repeated_and_two_give_a_slope() {
        let mut state = FoCa::default();
        state.update(scalar(2.0));
        assert_eq!(predicted(&mut state), 2.0);
        state.tick();
        state.update(scalar(5.0));
        // value 5, both differences 3: 5 + 1/2 * 6
        assert_eq!(predicted(&mut state), 8.0);
        // recent 8 - 5 = 3, computed 5 - 2 = 3, two steps ahead: 5 + 2/2 * 6
        assert_eq!(predicted(&mut state), 11.0);
    }

    #[test]
    fn far_predictions_lean_towards_the_last_computed_value() {
        let mut state = FoCa::default();
        state.update(scalar(0.0));
        state.tick();
        state.update(scalar(1.0));
        for _ in 0..3 {
            predicted(&mut state);
        }
        // Before: 2, 3, 4 (recent difference 1 each time); four steps ahead: weight 3/4 on 1 + 1.5 * 2.
        assert_eq!(predicted(&mut state), 0.75 * 4.0 + 0.25);
    }
}
