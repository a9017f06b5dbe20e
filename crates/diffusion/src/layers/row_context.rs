//! What the blocks of a transformer are conditioned on, row by row.
//!
//! One type for all families: a block finds here whatever its rows have beside their tokens, and the rows of a forward
//! are selected in one place. What blocks compute from it (shifts, scales, gates) is their own.

use candle_core::{Result, Tensor};

use super::rope::RotaryPositions;

/// Tensors of a [`RowContext`].
const PARTS: usize = 6;

/// What blocks need of the rows of one forward.
#[derive(Debug, Clone)]
pub(crate) struct RowContext {
    /// `[rows, ..]`: what shifts, scales and gates are made from, or these themselves where all blocks share them.
    pub(crate) modulation: Tensor,
    encoder: Option<EncoderStates>,
    positions: Option<RotaryPositions>,
    /// `[rows, 1, 1, tokens]`
    token_bias: Option<Tensor>,
}

/// What blocks attend to beside their own tokens.
#[derive(Debug, Clone)]
pub(crate) struct EncoderStates {
    /// `[rows, tokens, hidden]`
    pub(crate) states: Tensor,
    /// `[rows, 1, 1, tokens]`: added to the scores of attention to them.
    pub(crate) bias: Option<Tensor>,
}

impl RowContext {
    /// Of blocks that take nothing else.
    pub(crate) fn new(modulation: Tensor) -> Self {
        Self { modulation, encoder: None, positions: None, token_bias: None }
    }

    /// With states that blocks attend to.
    pub(crate) fn with_encoder(self, encoder: EncoderStates) -> Self {
        Self { encoder: Some(encoder), ..self }
    }

    /// With the positions of all tokens.
    pub(crate) fn with_positions(self, positions: RotaryPositions) -> Self {
        Self { positions: Some(positions), ..self }
    }

    /// With what is added to the scores of attention to the rows' own tokens, `[rows, 1, 1, tokens]`, where rows are of
    /// different lengths.
    pub(crate) fn with_token_bias(self, token_bias: Option<Tensor>) -> Self {
        Self { token_bias, ..self }
    }

    /// Added to the scores of attention to the rows' own tokens, if anything.
    pub(crate) fn token_bias(&self) -> Option<&Tensor> {
        self.token_bias.as_ref()
    }

    /// An error where the transformer gave none, as with the other parts.
    pub(crate) fn encoder(&self) -> Result<&EncoderStates> {
        present(self.encoder.as_ref(), "encoder states")
    }

    pub(crate) fn positions(&self) -> Result<&RotaryPositions> {
        present(self.positions.as_ref(), "positions")
    }

    /// The same for some of the rows, given by ascending index.
    pub(crate) fn select(&self, rows: &[usize]) -> Result<Self> {
        self.map(|tensor| selected(tensor, rows))
    }

    /// The same for `count` rows from `first` on.
    pub(crate) fn range(&self, first: usize, count: usize) -> Result<Self> {
        self.map(|tensor| tensor.narrow(0, first, count))
    }

    /// Of all tensors that are the rows' own.
    fn map(&self, of_rows: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let optional = |tensor: &Option<Tensor>| tensor.as_ref().map(&of_rows).transpose();
        let encoder = match &self.encoder {
            Some(EncoderStates { states, bias }) => {
                Some(EncoderStates { states: of_rows(states)?, bias: optional(bias)? })
            }
            None => None,
        };
        Ok(Self {
            modulation: of_rows(&self.modulation)?,
            encoder,
            positions: self.positions.as_ref().map(|positions| positions.map_rows(&of_rows)).transpose()?,
            token_bias: optional(&self.token_bias)?,
        })
    }

    /// All tensors, in the order in which [`Self::of_parts`] takes them.
    pub(crate) fn parts(&self) -> [Option<&Tensor>; PARTS] {
        let (encoder, positions) = (self.encoder.as_ref(), self.positions.as_ref().map(RotaryPositions::tables));
        [
            Some(&self.modulation),
            encoder.map(|encoder| &encoder.states),
            encoder.and_then(|encoder| encoder.bias.as_ref()),
            positions.map(|(cosines, _)| cosines),
            positions.map(|(_, sines)| sines),
            self.token_bias.as_ref(),
        ]
    }

    /// Of tensors as [`Self::parts`] gives them.
    pub(crate) fn of_parts(parts: &[Option<Tensor>]) -> Result<Self> {
        let [modulation, states, bias, cosines, sines, token_bias] = parts else {
            candle_core::bail!("{PARTS} parts make what blocks need");
        };
        let positions =
            cosines.clone().zip(sines.clone()).map(|(cosines, sines)| RotaryPositions::of_rows(cosines, sines));
        Ok(Self {
            modulation: present(modulation.as_ref(), "a modulation")?.clone(),
            encoder: states.clone().map(|states| EncoderStates { states, bias: bias.clone() }),
            positions,
            token_bias: token_bias.clone(),
        })
    }
}

/// Some rows of a tensor, runs of neighbours at a time: indices would have to go to the device first.
fn selected(tensor: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let runs = rows.chunk_by(|row, next| row + 1 == *next);
    let runs = runs.map(|run| tensor.narrow(0, run[0], run.len()));
    Tensor::cat(&runs.collect::<Result<Vec<_>>>()?, 0)
}

fn present<'a, T>(part: Option<&'a T>, name: &str) -> Result<&'a T> {
    part.ok_or_else(|| candle_core::Error::Msg(format!("blocks need {name}, which their transformer did not give")))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn all_parts_are_selected_alike() {
        let numbers = |shape: &[usize]| {
            let count = shape.iter().product::<usize>() as u32;
            Tensor::arange(0, count, &Device::Cpu).unwrap().reshape(shape).unwrap()
        };
        let context = RowContext::new(numbers(&[3, 2]))
            .with_token_bias(Some(numbers(&[3, 1, 1, 1])))
            .with_encoder(EncoderStates { states: numbers(&[3, 1, 2]), bias: Some(numbers(&[3, 1, 1, 1])) });
        let chosen = context.select(&[0, 2]).unwrap();
        let neighbours = context.range(1, 2).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(values(&chosen.modulation), [0, 1, 4, 5]);
        assert_eq!(values(&neighbours.modulation), [2, 3, 4, 5]);
        assert_eq!(values(chosen.token_bias().unwrap()), [0, 2]);
        let again = RowContext::of_parts(&chosen.parts().map(Option::<&Tensor>::cloned)).unwrap();
        for (part, same) in chosen.parts().into_iter().zip(again.parts()) {
            assert_eq!(part.map(Tensor::id), same.map(Tensor::id));
        }
        let encoder = chosen.encoder().unwrap();
        assert_eq!((values(&encoder.states), values(encoder.bias.as_ref().unwrap())), (vec![0, 1, 4, 5], vec![0, 2]));
    }

    #[test]
    fn a_part_that_is_not_there_is_named() {
        let context = RowContext::new(Tensor::zeros((1, 1), candle_core::DType::F32, &Device::Cpu).unwrap());
        let message = context.positions().unwrap_err().to_string();
        assert!(message.contains("blocks need positions"), "{message}");
    }
}
