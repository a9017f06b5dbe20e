//! Who attends to whom: every token to itself and those before it, as far as they are no padding and in the window.
//!
//! Follows transformers 5.23.0, `create_causal_mask` and `create_sliding_window_causal_mask`:
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/masking_utils.py>

use candle_core::{Device, Result, Tensor};

/// Added to scores that must not count: the softmax makes 0 of it in every dtype, and unlike an infinity it leaves no NaN.
const HIDDEN: f32 = -30_000.0;

/// Biases of scores, `[rows, 1, tokens, tokens]`; one row where all are alike.
pub(super) struct Masks {
    full: Tensor,
    windowed: Option<Tensor>,
}

impl Masks {
    /// Of rows with so many tokens each, padded at their ends to `tokens`.
    pub(super) fn new(lengths: &[usize], tokens: usize, window: Option<usize>, device: &Device) -> Result<Self> {
        let mask = |window| mask(lengths, tokens, window, device);
        let windowed = window.filter(|window| *window < tokens).map(mask).transpose()?;
        Ok(Self { full: mask(tokens)?, windowed })
    }

    pub(super) fn of(&self, is_windowed: bool) -> &Tensor {
        self.windowed.as_ref().filter(|_| is_windowed).unwrap_or(&self.full)
    }
}

fn mask(lengths: &[usize], tokens: usize, window: usize, device: &Device) -> Result<Tensor> {
    let lengths = if lengths.iter().all(|length| *length == tokens) { &[tokens] } else { lengths };
    let mut bias = Vec::with_capacity(lengths.len() * tokens * tokens);
    for length in lengths {
        for query in 0..tokens {
            let is_seen = |key: usize| key <= query && key < *length && key + window > query;
            bias.extend((0..tokens).map(|key| if is_seen(key) { 0.0 } else { HIDDEN }));
        }
    }
    Tensor::from_vec(bias, (lengths.len(), 1, tokens, tokens), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mask: &Tensor) -> Vec<Vec<u8>> {
        let rows = mask.flatten(0, 2).unwrap().to_vec2::<f32>().unwrap();
        rows.iter().map(|row| row.iter().map(|bias| u8::from(*bias == 0.0)).collect()).collect()
    }

    #[test]
    fn tokens_look_back_as_far_as_the_window_and_never_at_padding() {
        let masks = Masks::new(&[3, 2], 3, Some(2), &Device::Cpu).unwrap();
        let full = [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]];
        assert_eq!(seen(masks.of(false)), full);
        let windowed = [[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0]];
        assert_eq!(seen(masks.of(true)), windowed);
        assert_eq!(Masks::new(&[3, 3], 3, None, &Device::Cpu).unwrap().of(true).dims(), [1, 1, 3, 3]);
    }
}
