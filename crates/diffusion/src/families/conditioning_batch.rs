//! The conditioning of all rows of a forward.

use candle_core::{Result, Tensor};

use super::conditioning::{Conditioning, EncodedText};

/// What the rows of one forward are conditioned on, gathered. Each part is there for all rows or for none.
#[derive(Debug, Clone, Default)]
pub struct ConditioningBatch {
    /// `[rows, tokens, dim]`: states of texts, with zeros behind those that are shorter than others.
    pub states: Option<Tensor>,
    /// Tokens of each text.
    pub lengths: Vec<usize>,
    /// `[rows, tokens]`, f32: what is added to attention scores of text tokens.
    pub bias: Option<Tensor>,
    /// `[rows, dim]`: texts in one vector each.
    pub pooled: Option<Tensor>,
    /// One per row.
    pub classes: Option<Vec<u32>>,
    /// `[rows, values]`: the rows' [`Transformer::modulations`](super::Transformer::modulations) at their timesteps, if they were
    /// made before.
    pub modulations: Option<Tensor>,
}

impl ConditioningBatch {
    /// Of rows that are all a family's.
    ///
    /// # Errors
    /// If some rows have a part that others lack, or a tensor operation fails.
    pub fn gather(rows: &[&Conditioning]) -> Result<Self> {
        let mut classes = Vec::new();
        let mut texts = Vec::new();
        for row in rows {
            match row {
                Conditioning::Class(class) => classes.push(*class),
                Conditioning::Text(text) => texts.push(text),
            }
        }
        if !classes.is_empty() && !texts.is_empty() {
            candle_core::bail!("rows conditioned on classes and rows conditioned on texts share no forward");
        }
        Ok(Self {
            states: of_all(&padded(&texts)?)?,
            lengths: texts.iter().map(|text| text.states.dim(1)).collect::<Result<_>>()?,
            bias: of_all(&texts.iter().map(|text| text.bias.clone()).collect::<Vec<_>>())?,
            pooled: of_all(&texts.iter().map(|text| text.pooled.clone()).collect::<Vec<_>>())?,
            classes: (!classes.is_empty()).then_some(classes),
            modulations: None,
        })
    }

    pub(super) fn states(&self) -> Result<&Tensor> {
        present(self.states.as_ref(), "texts")
    }

    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    pub(super) fn bias(&self) -> Result<&Tensor> {
        present(self.bias.as_ref(), "texts with padding")
    }

    pub(super) fn pooled(&self) -> Result<&Tensor> {
        present(self.pooled.as_ref(), "texts in one vector")
    }

    pub(super) fn classes(&self) -> Result<&[u32]> {
        present(self.classes.as_deref(), "classes")
    }
}

/// The states of texts, each `[1, tokens of the longest, dim]`.
fn padded(texts: &[&EncodedText]) -> Result<Vec<Option<Tensor>>> {
    let longest =
        texts.iter().map(|text| text.states.dim(1)).try_fold(0, |longest, tokens| tokens.map(|it| longest.max(it)))?;
    let padded = texts.iter().map(|text| text.states.pad_with_zeros(1, 0, longest - text.states.dim(1)?).map(Some));
    padded.collect()
}

/// A part of all texts, `[1, ..]` each, as one tensor; `None` where no text has it.
fn of_all(texts: &[Option<Tensor>]) -> Result<Option<Tensor>> {
    let parts: Vec<_> = texts.iter().flatten().collect();
    match parts.len() {
        0 => Ok(None),
        count if count == texts.len() => Tensor::cat(&parts, 0).map(Some),
        _ => candle_core::bail!("texts of two kinds share no forward"),
    }
}

fn present<'a, T: ?Sized>(part: Option<&'a T>, name: &str) -> Result<&'a T> {
    part.ok_or_else(|| candle_core::Error::Msg(format!("the model is conditioned on {name}, which its rows lack")))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn text(pooled: bool) -> Conditioning {
        let vector = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
        let pooled = pooled.then(|| vector(&[1, 3]));
        Conditioning::Text(EncodedText { states: vector(&[1, 5, 3]), bias: None, pooled, cuts: Vec::new() })
    }

    #[test]
    fn rows_are_gathered_part_by_part() {
        let batch = ConditioningBatch::gather(&[&text(true), &text(true)]).unwrap();
        assert_eq!((batch.states().unwrap().dims(), batch.pooled().unwrap().dims()), (&[2, 5, 3][..], &[2, 3][..]));
        assert!(batch.bias().is_err() && batch.classes().is_err());
        let batch = ConditioningBatch::gather(&[&Conditioning::Class(7), &Conditioning::Class(1000)]).unwrap();
        assert_eq!(batch.classes().unwrap(), [7, 1000]);
        assert!(batch.states().unwrap_err().to_string().contains("conditioned on texts, which its rows lack"));
    }

    #[test]
    fn shorter_texts_are_filled_up_with_zeros() {
        let of = |tokens: usize| {
            let states = Tensor::ones((1, tokens, 2), DType::F32, &Device::Cpu).unwrap();
            Conditioning::Text(EncodedText { states, bias: None, pooled: None, cuts: Vec::new() })
        };
        let batch = ConditioningBatch::gather(&[&of(1), &of(3)]).unwrap();
        assert_eq!(batch.lengths(), [1, 3]);
        let sums = batch.states().unwrap().sum(2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(sums, [[2.0, 0.0, 0.0], [2.0, 2.0, 2.0]]);
    }

    #[test]
    fn rows_of_two_kinds_are_refused() {
        assert!(ConditioningBatch::gather(&[&text(true), &text(false)]).is_err());
        assert!(ConditioningBatch::gather(&[&text(true), &Conditioning::Class(1)]).is_err());
    }
}
