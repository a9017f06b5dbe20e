//! Attention of picture and text to each other, and of the picture to itself.

use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{Linear, RmsNorm, scaled_dot_product};
use crate::weights::Parameters;

/// Epsilon of the norms of queries and keys; fixed in diffusers.
const QK_NORM_EPS: f64 = 1e-6;

/// The three projections of one stream, split into heads.
#[derive(Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
}

/// What their parameters are called.
struct Names {
    projections: [&'static str; 3],
    norms: [&'static str; 2],
}

const PICTURE: Names = Names { projections: ["to_q", "to_k", "to_v"], norms: ["norm_q", "norm_k"] };
const TEXT: Names =
    Names { projections: ["add_q_proj", "add_k_proj", "add_v_proj"], norms: ["norm_added_q", "norm_added_k"] };

/// `[rows, heads, tokens, head size]` each.
struct Heads {
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

impl Projections {
    fn new(config: &TransformerConfig, names: &Names, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let [query, key, value] = names.projections.map(|name| Linear::new(size, size, parameters.pp(name)));
        let norm = |name: &str| {
            let weight = parameters.pp(name).get(config.attention_head_dim, "weight")?;
            Ok::<_, candle_core::Error>(RmsNorm::new(weight, QK_NORM_EPS))
        };
        let norms = if config.norms_queries() { Some((norm(names.norms[0])?, norm(names.norms[1])?)) } else { None };
        Ok(Self { query: query?, key: key?, value: value?, norms, heads: config.num_attention_heads })
    }

    fn forward(&self, x: &Tensor) -> Result<Heads> {
        let (rows, tokens, _) = x.dims3()?;
        let split =
            |linear: &Linear| linear.forward(x)?.reshape((rows, tokens, self.heads, ()))?.transpose(1, 2)?.contiguous();
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        Ok(match &self.norms {
            Some((norm_query, norm_key)) => {
                Heads { query: norm_query.forward(&query)?, key: norm_key.forward(&key)?, value }
            }
            None => Heads { query, key, value },
        })
    }
}

/// Of the picture to itself.
#[derive(Debug)]
pub(super) struct SelfAttention {
    picture: Projections,
    to_out: Linear,
}

impl SelfAttention {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        Ok(Self {
            picture: Projections::new(config, &PICTURE, parameters)?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
        })
    }

    /// `[rows, tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Heads { query, key, value } = self.picture.forward(x)?;
        self.to_out.forward(&scaled_dot_product(&query, &key, &value, None)?)
    }
}

/// Of picture and text to both.
#[derive(Debug)]
pub(super) struct JointAttention {
    picture: Projections,
    text: Projections,
    to_out: Linear,
    /// `None` in the last block, whose text nobody reads.
    to_text_out: Option<Linear>,
}

impl JointAttention {
    pub(super) fn new(config: &TransformerConfig, gives_text: bool, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let to_text_out = || Linear::new(size, size, parameters.pp("to_add_out"));
        Ok(Self {
            picture: Projections::new(config, &PICTURE, parameters)?,
            text: Projections::new(config, &TEXT, parameters)?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
            to_text_out: gives_text.then(to_text_out).transpose()?,
        })
    }

    /// `picture` and `text` are `[rows, tokens, hidden]`; both come back, the text but from the last block.
    pub(super) fn forward(&self, picture: &Tensor, text: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (picture_tokens, text_tokens) = (picture.dim(1)?, text.dim(1)?);
        let (picture, text) = (self.picture.forward(picture)?, self.text.forward(text)?);
        // The picture comes first.
        let join = |picture: &Tensor, text: &Tensor| Tensor::cat(&[picture, text], 2);
        let (key, value) = (join(&picture.key, &text.key)?, join(&picture.value, &text.value)?);
        let Some(to_text_out) = &self.to_text_out else {
            let attended = scaled_dot_product(&picture.query, &key, &value, None)?;
            return Ok((self.to_out.forward(&attended)?, None));
        };
        let attended = scaled_dot_product(&join(&picture.query, &text.query)?, &key, &value, None)?;
        let part = |start: usize, tokens: usize| attended.narrow(1, start, tokens)?.contiguous();
        let picture = self.to_out.forward(&part(0, picture_tokens)?)?;
        Ok((picture, Some(to_text_out.forward(&part(picture_tokens, text_tokens)?)?)))
    }
}
