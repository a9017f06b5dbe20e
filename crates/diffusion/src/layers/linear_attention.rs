//! Attention without scores: what queries would weight is summed up once for all of them, so that its cost grows with the
//! number of tokens, not its square. Katharopoulos et al., "Transformers are RNNs", arXiv 2006.16236, with ReLU as kernel.
//!
//! Follows diffusers 0.42.1, `SanaLinearAttnProcessor2_0` (lines 5341-5390) and `SanaMultiscaleAttnProcessor2_0`
//! (5245-5302):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L5245>
//!
//! Departs from it: feature maps of no more pixels than a head has channels, for which diffusers writes the scores, are
//! attended to in the same way; the sums are the same ones.

use candle_core::{DType, Result, Tensor};

/// Added to the sum of weights, which may be 0.
const LEAST_WEIGHT: f64 = 1e-15;

/// `[rows, tokens, heads, head size]` each and again, in f32 whatever their dtype is.
pub(crate) fn linear_attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let by_head = |x: &Tensor| x.to_dtype(DType::F32)?.transpose(1, 2)?.contiguous();
    let (queries, keys, values) = (by_head(query)?.relu()?, by_head(key)?.relu()?, by_head(value)?);
    let (rows, heads, tokens, size) = values.dims4()?;
    // The last column sums up the weights.
    let ones = Tensor::ones((rows, heads, tokens, 1), DType::F32, values.device())?;
    let values = Tensor::cat(&[values, ones], 3)?;
    // -> [rows, heads, head size, head size + 1]
    let summed = keys.transpose(2, 3)?.contiguous()?.matmul(&values)?;
    let attended = queries.matmul(&summed)?;
    let weights = (attended.narrow(3, size, 1)? + LEAST_WEIGHT)?;
    attended.narrow(3, 0, size)?.broadcast_div(&weights)?.transpose(1, 2)?.contiguous()?.to_dtype(query.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::noise::randn;

    #[test]
    fn equals_attention_with_scores() {
        let random = |seed| Tensor::from_vec(randn(seed, &[2 * 7 * 3 * 4]), (2, 7, 3, 4), &Device::Cpu).unwrap();
        let (query, key, value) = (random(1), random(2), random(3));
        let by_head = |x: &Tensor| x.transpose(1, 2).unwrap().contiguous().unwrap();
        let (queries, keys) = (by_head(&query).relu().unwrap(), by_head(&key).relu().unwrap());
        let scores = queries.matmul(&keys.transpose(2, 3).unwrap().contiguous().unwrap()).unwrap();
        let sums = scores.sum_keepdim(3).unwrap().affine(1.0, LEAST_WEIGHT).unwrap();
        let expected = scores.broadcast_div(&sums).unwrap().matmul(&by_head(&value)).unwrap();
        let difference = (by_head(&linear_attention(&query, &key, &value).unwrap()) - expected).unwrap();
        let largest: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(largest < 1e-5, "{largest} off");
    }
}
