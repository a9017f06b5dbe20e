//! Who attends to whom: every token to itself and those before it, as far as they are no padding and in the window.
//!
//! Follows transformers 5.23.0, `create_causal_mask` and `create_sliding_window_causal_mask`:
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/masking_utils.py>

use std::ops::Range;

use candle_core::{Device, Result, Tensor};

/// Added to scores that must not count: the softmax makes 0 of it in every dtype, and unlike an infinity it leaves no NaN.
const HIDDEN: f32 = -30_000.0;

/// What tokens see.
pub(super) struct Mask {
    /// Added to scores, `[rows, 1, tokens, tokens]`; one row where all are alike.
    pub(super) bias: Tensor,
    /// `[rows, tokens, 1]`: 0 for a token that sees none, and so gets nothing from attention, 1 for others. `None` where
    /// all see some.
    pub(super) sees_any: Option<Tensor>,
}

/// Of all layers.
pub(super) struct Masks {
    full: Mask,
    windowed: Option<Mask>,
}

impl Masks {
    /// Of rows of `tokens`, of which these are the texts and all others are padding.
    pub(super) fn new(texts: &[Range<usize>], tokens: usize, window: Option<usize>, device: &Device) -> Result<Self> {
        let mask = |window| Mask::new(texts, tokens, window, device);
        let windowed = window.filter(|window| *window < tokens).map(mask).transpose()?;
        Ok(Self { full: mask(tokens)?, windowed })
    }

    pub(super) fn of(&self, is_windowed: bool) -> &Mask {
        self.windowed.as_ref().filter(|_| is_windowed).unwrap_or(&self.full)
    }
}

impl Mask {
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    fn new(texts: &[Range<usize>], tokens: usize, window: usize, device: &Device) -> Result<Self> {
        let rows = if texts.iter().all(|text| *text == (0..tokens)) { 1 } else { texts.len() };
        let mut bias = Vec::with_capacity(rows * tokens * tokens);
        let mut sees_any = Vec::with_capacity(rows * tokens);
        for text in &texts[..rows] {
            for query in 0..tokens {
                let is_seen = |key: &usize| *key <= query && text.contains(key) && key + window > query;
                bias.extend((0..tokens).map(|key| if is_seen(&key) { 0.0 } else { HIDDEN }));
                sees_any.push(if (0..=query).any(|key| is_seen(&key)) { 1.0f32 } else { 0.0 });
            }
        }
        let sees_any = match sees_any.contains(&0.0) {
            true => Some(Tensor::from_vec(sees_any, (rows, tokens, 1), device)?),
            false => None,
        };
        Ok(Self { bias: Tensor::from_vec(bias, (rows, 1, tokens, tokens), device)?, sees_any })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mask: &Mask) -> Vec<Vec<u8>> {
        let rows = mask.bias.flatten(0, 2).unwrap().to_vec2::<f32>().unwrap();
        rows.iter().map(|row| row.iter().map(|bias| u8::from(*bias == 0.0)).collect()).collect()
    }

    #[test]
    fn tokens_look_back_as_far_as_the_window_and_never_at_padding() {
        let masks = Masks::new(&[0..3, 0..2], 3, Some(2), &Device::Cpu).unwrap();
        let full = [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]];
        assert_eq!(seen(masks.of(false)), full);
        let windowed = [[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0]];
        assert_eq!(seen(masks.of(true)), windowed);
        assert_eq!(Masks::new(&[0..3, 0..3], 3, None, &Device::Cpu).unwrap().of(true).bias.dims(), [1, 1, 3, 3]);
        assert!(masks.of(false).sees_any.is_none());
    }

    #[test]
    fn padding_before_a_text_sees_nothing() {
        let masks = Masks::new(&[1..3, 0..3], 3, None, &Device::Cpu).unwrap();
        assert_eq!(seen(masks.of(false)), [[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]);
        let sees_any = masks.of(false).sees_any.as_ref().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(sees_any, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    }
}
