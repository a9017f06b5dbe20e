//! Attention proper: weighted sums of values. On the CPU and on GPUs kernels of this project, which never write the scores
//! of all pairs; on other devices, and on the CPU where scores are capped, candle's operators, with all of them in memory.

#[cfg(feature = "cuda")]
use afterimage_cuda_kernels as gpu;
use afterimage_kernels::{self as kernels, HeadVectors, ScoreBias};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};
use half::bf16;

use super::cpu::{KernelValue, answer, computed_dtype, lock, values};
#[cfg(feature = "cuda")]
use super::cuda;
use super::cuda::has_kernels;

/// The largest head that kernels for GPUs have tiles for on every device.
const LARGEST_HEAD: usize = 512;

/// What becomes of products of queries and keys before the softmax.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores<'a> {
    /// What they are multiplied by, if anything.
    pub(crate) scale: Option<f64>,
    /// What they come close to but do not exceed then: `cap * tanh(score / cap)`.
    pub(crate) soft_cap: Option<f64>,
    /// What is added then; it broadcasts to `[rows, heads, queries, keys]`.
    pub(crate) bias: Option<&'a Tensor>,
}

impl<'a> Scores<'a> {
    /// Divided by the root of the head size, as in most models.
    pub(crate) fn scaled(head_size: usize, bias: Option<&'a Tensor>) -> Self {
        Self { scale: Some((head_size as f64).powf(-0.5)), soft_cap: None, bias }
    }

    /// As they are.
    pub(crate) fn unscaled(bias: Option<&'a Tensor>) -> Self {
        Self { scale: None, soft_cap: None, bias }
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

/// Over tensors `[rows, tokens, heads, head size]` of any strides; keys and values have the same tokens, queries may have
/// others. The heads side by side: `[rows, queries, heads * head size]`.
pub(crate) fn attention(query: &Tensor, key: &Tensor, value: &Tensor, scores: Scores<'_>) -> Result<Tensor> {
    if has_kernel(query, key, value, scores) {
        return in_one_pass(query, key, value, scores);
    }
    if query.device().is_cpu() {
        // candle's products of narrow numbers are slow there.
        let wide = |vectors: &Tensor| vectors.to_dtype(DType::F32);
        return all_scores(&wide(query)?, &wide(key)?, &wide(value)?, scores)?.to_dtype(query.dtype());
    }
    all_scores(query, key, value, scores)
}

fn has_kernel(query: &Tensor, key: &Tensor, value: &Tensor, scores: Scores<'_>) -> bool {
    if query.device().is_cpu() {
        return scores.soft_cap.is_none();
    }
    let is_of_one_dtype = key.dtype() == query.dtype() && value.dtype() == query.dtype();
    let is_scaled_up = scores.scale.is_none_or(|scale| scale > 0.0);
    has_kernels(query) && is_of_one_dtype && is_scaled_up && query.dims()[3] <= LARGEST_HEAD && key.dims()[1] > 0
}

/// With the scores of all pairs in memory.
fn all_scores(query: &Tensor, key: &Tensor, value: &Tensor, scores: Scores<'_>) -> Result<Tensor> {
    let (rows, tokens, heads, head_size) = query.dims4()?;
    let heads_first = |vectors: &Tensor| vectors.transpose(1, 2)?.contiguous();
    let (query, key, value) = (heads_first(query)?, heads_first(key)?, heads_first(value)?);
    let Scores { scale, soft_cap, bias } = scores;
    // Queries are scaled rather than scores, which are more numbers and can overflow f16.
    let query = scale.map_or(Ok(query.clone()), |scale| query * scale)?;
    let scores = query.matmul(&key.transpose(D::Minus2, D::Minus1)?)?;
    let scores = soft_cap.map_or(Ok(scores.clone()), |cap| (scores / cap)?.tanh()? * cap)?;
    let scores = bias.map_or(Ok(scores.clone()), |bias| scores.broadcast_add(&bias.to_dtype(scores.dtype())?))?;
    let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&value)?;
    attended.transpose(1, 2)?.reshape((rows, tokens, heads * head_size))
}

fn in_one_pass(query: &Tensor, key: &Tensor, value: &Tensor, scores: Scores<'_>) -> Result<Tensor> {
    let dtype = query.dtype();
    let computed = if has_kernels(query) { dtype } else { computed_dtype(dtype) };
    let ready = |heads: &Tensor| match heads.stride()[3] {
        1 => heads.to_dtype(computed),
        _ => heads.to_dtype(computed)?.contiguous(),
    };
    let ((rows, queries, heads, _), keys) = (query.dims4()?, key.dim(1)?);
    let scores = ScoreChange {
        scale: scores.scale.unwrap_or(1.0) as f32,
        soft_cap: scores.soft_cap.map(|cap| cap as f32),
        bias: scores.bias.map(|bias| spread(bias, (rows, heads, queries, keys))).transpose()?,
    };
    ready(query)?.apply_op3_no_bwd(&ready(key)?, &ready(value)?, &scores)?.to_dtype(dtype)
}

/// A bias in f32, a query's keys side by side, and strides of 0 where else it is the same.
fn spread(bias: &Tensor, (rows, heads, queries, keys): (usize, usize, usize, usize)) -> Result<Tensor> {
    let mut shape = bias.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = keys;
    }
    let bias = bias.to_dtype(DType::F32)?.broadcast_as(shape)?.contiguous()?;
    bias.broadcast_as((rows, heads, queries, keys))
}

struct ScoreChange {
    scale: f32,
    /// On GPUs only.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the CPU's kernel has no cap"))]
    soft_cap: Option<f32>,
    /// `[rows, heads, queries, keys]`, as [`spread`].
    bias: Option<Tensor>,
}

impl CustomOp3 for ScoreChange {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let vectors = [(query, query_layout), (key, key_layout), (value, value_layout)];
        match query {
            CpuStorage::BF16(_) => self.run::<bf16>(vectors),
            _ => self.run::<f32>(vectors),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        query: &CudaStorage,
        query_layout: &Layout,
        key: &CudaStorage,
        key_layout: &Layout,
        value: &CudaStorage,
        value_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.run_on_gpu([(query, query_layout), (key, key_layout), (value, value_layout)])
    }
}

impl ScoreChange {
    fn run<T: KernelValue>(&self, [query, key, value]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        let (rows, queries, heads, head_size) = query.1.shape().dims4()?;
        let bias = self.bias.as_ref().map(lock);
        let bias = bias.as_ref().map(|bias| -> Result<_> {
            let stride = bias.layout.stride();
            Ok(ScoreBias { values: bias.values()?, row: stride[0], head: stride[1], query: stride[2] })
        });
        let attention = kernels::Attention {
            rows,
            heads,
            queries,
            keys: key.1.dims()[1],
            head_size,
            scale: self.scale,
            query: vectors::<T>(query)?,
            key: vectors::<T>(key)?,
            value: vectors::<T>(value)?,
            bias: bias.transpose()?,
        };
        let mut output = vec![T::zero(); rows * queries * heads * head_size];
        kernels::attend(&attention, &mut output);
        Ok(answer(output, (rows, queries, heads * head_size)))
    }

    #[cfg(feature = "cuda")]
    fn run_on_gpu(&self, [query, key, value]: [(&CudaStorage, &Layout); 3]) -> Result<(CudaStorage, Shape)> {
        let (rows, queries, heads, head_size) = query.1.shape().dims4()?;
        let (device, value_type) = (query.0.device.clone(), cuda::value_type(query.0.dtype())?);
        let stream = device.cuda_stream();
        let bias = self.bias.as_ref().map(Tensor::storage_and_layout);
        let mut result = cuda::allocate(&device, value_type, rows * queries * heads * head_size)?;
        let mut operands = cuda::Operands::new(&stream, value_type);
        let mut vectors = |(storage, layout): (_, &Layout)| -> Result<_> {
            let [row, token, head, _] = *layout.stride() else { candle_core::bail!("heads have four dimensions") };
            Ok(gpu::HeadVectors { values: operands.read(storage, layout)?, row, token, head })
        };
        let [query, key_vectors, value] = [vectors(query)?, vectors(key)?, vectors(value)?];
        let bias = match &bias {
            Some((storage, layout)) => {
                let [row, head, query, _] = *layout.stride() else { candle_core::bail!("biases have four dimensions") };
                Some(gpu::ScoreBias { values: operands.read_f32(cuda::storage(storage)?, layout)?, row, head, query })
            }
            None => None,
        };
        let attention = gpu::Attention {
            value_type,
            rows,
            heads,
            queries,
            keys: key.1.dims()[1],
            head_size,
            scale: self.scale,
            soft_cap: self.soft_cap,
            query,
            key: key_vectors,
            value,
            bias,
            output: operands.written(&mut result, 0)?,
        };
        operands.launch(attention.launch(cuda::limits(&stream)?))?;
        Ok((result, (rows, queries, heads * head_size).into()))
    }
}

fn vectors<'a, T: KernelValue>((storage, layout): (&'a CpuStorage, &Layout)) -> Result<HeadVectors<'a, T>> {
    let [row, token, head, _] = layout.stride() else { candle_core::bail!("heads have four dimensions") };
    Ok(HeadVectors { values: values::<T>(storage, layout)?, row: *row, token: *token, head: *head })
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
            let query = &query[(token * HEADS + head) * HEAD_SIZE..][..HEAD_SIZE];
            let row = |values: &[f64], index: usize| values[(index * HEADS + head) * HEAD_SIZE..][..HEAD_SIZE].to_vec();
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
        let query = sines((1, QUERIES, HEADS, HEAD_SIZE), 0.1);
        let [key, value] = [0.4, 0.7].map(|phase| sines((1, KEYS, HEADS, HEAD_SIZE), phase));
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

    #[test]
    fn a_bias_of_all_keys_is_one_of_each() {
        let query = sines((1, QUERIES, HEADS, HEAD_SIZE), 0.1);
        let [key, value] = [0.4, 0.7].map(|phase| sines((1, KEYS, HEADS, HEAD_SIZE), phase));
        let of = |bias: &Tensor| scaled_dot_product(&query, &key, &value, Some(bias)).unwrap();
        let common = sines((1, HEADS, QUERIES, 1), 0.9);
        let each = common.broadcast_as((1, HEADS, QUERIES, KEYS)).unwrap().contiguous().unwrap();
        assert_close(&of(&common), &wide(&of(&each)));
    }

    #[test]
    fn capped_scores_come_close_to_the_cap() {
        let query = sines((1, QUERIES, HEADS, HEAD_SIZE), 0.1);
        let [key, value] = [0.4, 0.7].map(|phase| sines((1, KEYS, HEADS, HEAD_SIZE), phase));
        let of = |cap| attention(&query, &key, &value, Scores { soft_cap: cap, ..Scores::unscaled(None) }).unwrap();
        let plain = wide(&of(None));
        assert_close(&of(Some(1e4)), &plain);
        // All scores are as good as 0, so all keys count alike.
        let mean = value.mean(1).unwrap().reshape((1, 1, HEADS * HEAD_SIZE)).unwrap();
        let mean = wide(&mean.broadcast_as((1, QUERIES, HEADS * HEAD_SIZE)).unwrap().contiguous().unwrap());
        assert_close(&of(Some(1e-9)), &mean);
    }
}
