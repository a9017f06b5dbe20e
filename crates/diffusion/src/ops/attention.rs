//! Attention proper: weighted sums of values. candle's operators on all devices, with the scores of all pairs in memory.

use candle_core::{D, Result, Tensor};

/// What becomes of products of queries and keys before the softmax.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores<'a> {
    /// What they are multiplied by, if anything.
    scale: Option<f64>,
    /// What is added then; it broadcasts to `[rows, heads, queries, keys]`.
    bias: Option<&'a Tensor>,
}

impl<'a> Scores<'a> {
    /// Divided by the root of the head size, as in most models.
    pub(crate) fn scaled(head_size: usize, bias: Option<&'a Tensor>) -> Self {
        Self { scale: Some((head_size as f64).powf(-0.5)), bias }
    }

    /// As they are.
    pub(crate) fn unscaled(bias: Option<&'a Tensor>) -> Self {
        Self { scale: None, bias }
    }
}

/// [`attention`] with scores divided by the root of the head size, as PyTorch's function of this name.
pub(crate) fn scaled_dot_product(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    score_bias: Option<&Tensor>,
) -> Result<Tensor> {
    attention(query, key, value, Scores::scaled(query.dim(D::Minus1)?, score_bias))
}

/// Over contiguous tensors `[rows, heads, tokens, head size]`; keys and values have the same tokens, queries may have
/// others. The heads side by side: `[rows, queries, heads * head size]`.
pub(crate) fn attention(query: &Tensor, key: &Tensor, value: &Tensor, scores: Scores<'_>) -> Result<Tensor> {
    let (rows, heads, tokens, head_size) = query.dims4()?;
    let Scores { scale, bias } = scores;
    // Queries are scaled rather than scores, which are more numbers and can overflow f16.
    let query = scale.map_or(Ok(query.clone()), |scale| query * scale)?;
    let scores = query.matmul(&key.transpose(D::Minus2, D::Minus1)?)?;
    let scores = bias.map_or(Ok(scores.clone()), |bias| scores.broadcast_add(bias))?;
    let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(value)?;
    attended.transpose(1, 2)?.reshape((rows, tokens, heads * head_size))
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    const HEADS: usize = 2;
    const QUERIES: usize = 3;
    const KEYS: usize = 5;
    const HEAD_SIZE: usize = 4;

    /// Of one row.
    fn defined([query, key, value, bias]: [&[f64]; 4], scale: f64) -> Vec<f64> {
        let mut output = vec![0.0; QUERIES * HEADS * HEAD_SIZE];
        for (head, token) in (0..HEADS).flat_map(|head| (0..QUERIES).map(move |token| (head, token))) {
            let query = &query[(head * QUERIES + token) * HEAD_SIZE..][..HEAD_SIZE];
            let row = |values: &[f64], index: usize| values[(head * KEYS + index) * HEAD_SIZE..][..HEAD_SIZE].to_vec();
            let dot = |index| query.iter().zip(row(key, index)).map(|(query, key)| query * key).sum::<f64>();
            let weights: Vec<f64> = (0..KEYS).map(|index| (dot(index) * scale + bias[index]).exp()).collect();
            let total: f64 = weights.iter().sum();
            let output = &mut output[(token * HEADS + head) * HEAD_SIZE..][..HEAD_SIZE];
            for (index, weight) in weights.iter().enumerate() {
                output.iter_mut().zip(row(value, index)).for_each(|(sum, value)| *sum += weight / total * value);
            }
        }
        output
    }

    #[test]
    fn equals_the_definition() {
        let query = sines((1, HEADS, QUERIES, HEAD_SIZE), 0.1);
        let [key, value] = [0.4, 0.7].map(|phase| sines((1, HEADS, KEYS, HEAD_SIZE), phase));
        let bias = sines((1, 1, 1, KEYS), 0.9);
        let values = [&query, &key, &value, &bias].map(wide);
        let values = values.each_ref().map(Vec::as_slice);
        let found = attention(&query, &key, &value, Scores::unscaled(Some(&bias))).unwrap();
        assert_eq!(found.dims(), [1, QUERIES, HEADS * HEAD_SIZE]);
        assert_close(&found, &defined(values, 1.0));
        let found = scaled_dot_product(&query, &key, &value, Some(&bias)).unwrap();
        assert_close(&found, &defined(values, (HEAD_SIZE as f64).powf(-0.5)));
        let [query_values, key_values, value_values, _] = values;
        let found = scaled_dot_product(&query, &key, &value, None).unwrap();
        let expected = defined([query_values, key_values, value_values, &[0.0; KEYS]], (HEAD_SIZE as f64).powf(-0.5));
        assert_close(&found, &expected);
    }
}
