//! A decoder, from token ids to the hidden states that somebody reads.

use std::ops::Range;

use afterimage_checkpoint::Parameters;
use candle_core::{Device, Result, Tensor};

use super::config::DecoderConfig;
use super::kind::DecoderKind;
use super::layer::Layer;
use super::mask::Masks;
use super::norm::Norm;
use super::taps::Taps;
use super::weight_names;
use crate::layers::{HalfRotaryPositions, TokenTable};

#[derive(Debug)]
pub(in crate::text) struct Decoder {
    tokens: TokenTable,
    /// As many as are read.
    layers: Vec<Layer>,
    /// Where the last hidden state is read.
    norm: Option<Norm>,
    taps: Taps,
    config: DecoderConfig,
    device: Device,
}

impl Decoder {
    /// `parameters` are those of the file.
    pub(in crate::text) fn new(config: &DecoderConfig, taps: &Taps, parameters: &Parameters) -> Result<Self> {
        let parameters = weight_names::decoder(parameters);
        let (size, layers) = (config.hidden_size, parameters.pp("layers"));
        let layer = |index: usize| Layer::new(config, &layers.pp(index));
        Ok(Self {
            tokens: TokenTable::load(config.vocab_size, size, &parameters.pp("embed_tokens"))?,
            layers: (0..taps.layers_read()).map(layer).collect::<Result<_>>()?,
            norm: match taps.reads_the_norm() {
                true => Some(Norm::load(config, size, &parameters.pp("norm"))?),
                false => None,
            },
            taps: taps.clone(),
            config: config.clone(),
            device: parameters.device().clone(),
        })
    }

    /// Ids of as many rows as there are texts, all of one length, of which each row's text counts and the others are padding,
    /// to `[rows, tokens, taps * hidden]`. Rows do not depend on each other, nor texts on padding.
    pub(in crate::text) fn forward(&self, ids: &[u32], texts: &[Range<usize>]) -> Result<Tensor> {
        let tokens = ids.len() / texts.len().max(1);
        let masks = Masks::new(texts, tokens, self.config.window, &self.device)?;
        let positions = HalfRotaryPositions::new(tokens, self.config.head_size, self.config.theta, &self.device)?;
        let mut x = self.embed(ids)?.reshape((texts.len(), tokens, ()))?;
        let mut states = vec![None; self.config.layers + 1];
        for (number, layer) in self.layers.iter().enumerate() {
            let next = layer.forward(&x, &positions, masks.of(self.config.is_windowed[number]))?;
            states[number] = Some(x).filter(|_| self.taps.reads(number));
            x = next;
        }
        states[self.layers.len()] = Some(match &self.norm {
            Some(norm) => norm.forward(&x)?,
            None => x,
        });
        let read: Vec<_> = self.taps.states().iter().filter_map(|state| states[*state].as_ref()).collect();
        Tensor::cat(&read, 2)
    }

    /// `[ids, hidden]`
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let embedded = self.tokens.rows(ids)?;
        if self.config.kind != DecoderKind::Gemma2 {
            return Ok(embedded);
        }
        // The factor is rounded to the dtype before it is used.
        let factor = Tensor::new((self.config.hidden_size as f64).sqrt() as f32, &self.device)?;
        embedded.broadcast_mul(&factor.to_dtype(embedded.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden_fixture::{Fixture, assert_near};

    #[test]
    fn rows_of_a_batch_do_not_depend_on_each_other() {
        for (name, kind) in [("qwen3", DecoderKind::Qwen3), ("gemma2", DecoderKind::Gemma2)] {
            let fixture = Fixture::open(&format!("decoders/{name}"));
            let text = fixture.folder.text("text_encoder/config.json").unwrap();
            let config = DecoderConfig::from_json(kind, "config.json", &text).unwrap();
            let weights = fixture.folder.weights("text_encoder").unwrap();
            let parameters = weights.parameters(candle_core::DType::F32, &Device::Cpu);
            let decoder = Decoder::new(&config, &Taps::new(&[-1, 2], config.layers).unwrap(), &parameters).unwrap();
            let rows = [(20u32, 17usize), (300, 9), (5, 1)];
            let ids = |(first, length): (u32, usize)| {
                (0..17usize).map(move |at| if at < length { first + at as u32 } else { 0 })
            };
            let ids: Vec<u32> = rows.iter().flat_map(|row| ids(*row)).collect();
            let together = decoder.forward(&ids, &rows.map(|(_, length)| 0..length)).unwrap();
            for (row, (_, length)) in rows.iter().enumerate() {
                let alone = &ids[row * 17..][..*length];
                let alone = decoder.forward(alone, std::slice::from_ref(&(0..*length))).unwrap();
                let together = together.narrow(0, row, 1).unwrap().narrow(1, 0, *length).unwrap();
                assert_near(&together, &alone, &format!("{name}, row {row}"));
            }
        }
    }
}
