//! Attention that never writes the scores of all pairs.

mod tile;

use std::marker::PhantomData;

pub(crate) use self::tile::Tile;
#[cfg(feature = "tuning")]
pub(crate) use self::tile::TileShape;
use crate::error::KernelError;
use crate::launch::{Launch, Parameters, Span, count};
use crate::limits::Limits;
use crate::value_type::ValueType;

const OPERATOR: &str = "attention";
/// Of a grid, in its second and third dimension.
const MOST_BLOCKS: usize = 65_535;

/// `softmax(change(query . key))`-weighted sums of values, of every query and head, where scores are changed to
/// `cap * tanh(scale * score / cap) + bias`. A query whose keys are all hidden by a bias of minus infinity weighs them
/// all alike.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Of queries, keys, values and output.
    pub value_type: ValueType,
    /// Rows, which do not attend to each other.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens of `query`.
    pub queries: usize,
    /// Tokens of `key` and `value`.
    pub keys: usize,
    /// Values of a head's vector.
    pub head_size: usize,
    /// What scores are multiplied by, above 0.
    pub scale: f32,
    /// What they come close to then, but do not exceed.
    pub soft_cap: Option<f32>,
    /// `[rows, queries, heads, head size]`
    pub query: HeadVectors<'a>,
    /// `[rows, keys, heads, head size]`
    pub key: HeadVectors<'a>,
    /// `[rows, keys, heads, head size]`
    pub value: HeadVectors<'a>,
    /// Added to scores, f32.
    pub bias: Option<ScoreBias<'a>>,
    /// `[rows, queries, heads * head size]`
    pub output: Span<'a>,
}

/// Vectors of one head each, `[rows, tokens, heads, head size]` with strides of their own but for the last.
#[derive(Debug, Clone, Copy)]
pub struct HeadVectors<'a> {
    /// From the first head of the first token on.
    pub values: Span<'a>,
    /// From one row to the next, in values.
    pub row: usize,
    /// From one token to the next.
    pub token: usize,
    /// From one head to the next.
    pub head: usize,
}

/// What is added to scores, `[rows, heads, queries, keys]` with strides that are 0 where it is the same but for the last,
/// which is 1.
#[derive(Debug, Clone, Copy)]
pub struct ScoreBias<'a> {
    /// The values.
    pub values: Span<'a>,
    /// From one row to the next, in values.
    pub row: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one query to the next.
    pub query: usize,
}

/// `AttentionParameters` of `cuda/attention_shape.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AttentionParameters {
    query: u64,
    key: u64,
    value: u64,
    bias: u64,
    output: u64,
    query_strides: HeadStrides,
    key_strides: HeadStrides,
    value_strides: HeadStrides,
    bias_strides: BiasStrides,
    heads: u32,
    queries: u32,
    keys: u32,
    head_size: u32,
    scale: f32,
    soft_cap: f32,
    is_aligned: u32,
    is_output_aligned: u32,
}

// SAFETY: the fields are those of the kernels' structure.
unsafe impl Parameters for AttentionParameters {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct HeadStrides {
    row: u64,
    token: u32,
    head: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct BiasStrides {
    row: u64,
    head: u64,
    query: u64,
}

impl<'a> Attention<'a> {
    /// How it is launched on a device.
    ///
    /// # Errors
    /// If operands do not fit each other, or a size is not supported.
    pub fn launch(&self, limits: Limits) -> Result<Launch<'a, AttentionParameters>, KernelError> {
        let heads = self.rows * self.heads;
        match Tile::choose(self.value_type, self.head_size, (heads, self.queries), limits) {
            Some(tile) => self.launch_with(tile),
            None => Err(self.unsupported("a head", self.head_size, "up to 512, and as shared memory allows")),
        }
    }

    /// By one kernel, which can be another than the best.
    pub(crate) fn launch_with(&self, tile: &Tile) -> Result<Launch<'a, AttentionParameters>, KernelError> {
        let Self { rows, heads, queries, head_size, .. } = *self;
        let blocks = tile.shape.blocks(queries, head_size);
        for (quantity, found) in [("heads", heads), ("rows", rows)] {
            if found > MOST_BLOCKS {
                return Err(self.unsupported(quantity, found, "up to 65535"));
            }
        }
        Ok(Launch {
            kernel: tile.kernel,
            blocks: [count(blocks, OPERATOR, "queries")?, heads as u32, rows as u32],
            threads: tile.shape.threads,
            shared_bytes: tile.shape.shared_bytes as u32,
            parameters: self.parameters()?,
            operands: PhantomData,
        })
    }

    fn parameters(&self) -> Result<AttentionParameters, KernelError> {
        let Self { rows, heads, queries, keys, head_size, scale, soft_cap, query, key, value, bias, output, .. } =
            *self;
        if keys == 0 {
            return Err(self.unsupported("keys", keys, "at least 1"));
        }
        if !(scale > 0.0 && scale.is_finite() && soft_cap.is_none_or(|cap| cap > 0.0)) {
            return Err(KernelError::Factor { operator: OPERATOR, scale, soft_cap });
        }
        let (bias, bias_strides) = match bias {
            Some(bias) => (bias.address(self)?, bias.strides()),
            None => (0, BiasStrides::default()),
        };
        let is_whole = head_size.is_multiple_of(self.value_type.widest());
        let is_aligned = [query, key, value].iter().all(|vectors| vectors.is_aligned(self.value_type));
        Ok(AttentionParameters {
            query: query.address(self, queries, "query")?,
            key: key.address(self, keys, "key")?,
            value: value.address(self, keys, "value")?,
            bias,
            output: output.at_least(rows * queries * heads * head_size, OPERATOR, "output")?,
            query_strides: query.strides()?,
            key_strides: key.strides()?,
            value_strides: value.strides()?,
            bias_strides,
            heads: count(heads, OPERATOR, "heads")?,
            queries: count(queries, OPERATOR, "queries")?,
            keys: count(keys, OPERATOR, "keys")?,
            head_size: count(head_size, OPERATOR, "a head")?,
            scale,
            soft_cap: soft_cap.unwrap_or(0.0),
            is_aligned: (is_whole && is_aligned).into(),
            is_output_aligned: (is_whole && output.is_aligned()).into(),
        })
    }

    fn unsupported(&self, quantity: &'static str, found: usize, supported: &'static str) -> KernelError {
        KernelError::Size { operator: OPERATOR, quantity, found, supported }
    }
}

/// Values up to the last index, in dimensions of a length and a stride each.
fn extent(dimensions: &[(usize, usize)]) -> usize {
    if dimensions.iter().any(|(length, _)| *length == 0) {
        return 0;
    }
    dimensions.iter().map(|(length, stride)| (length - 1) * stride).sum::<usize>() + 1
}

impl HeadVectors<'_> {
    fn address(&self, of: &Attention<'_>, tokens: usize, operand: &'static str) -> Result<u64, KernelError> {
        let dimensions = [(of.rows, self.row), (tokens, self.token), (of.heads, self.head), (of.head_size, 1)];
        self.values.at_least(extent(&dimensions), OPERATOR, operand)
    }

    fn strides(&self) -> Result<HeadStrides, KernelError> {
        Ok(HeadStrides {
            row: self.row as u64,
            token: count(self.token, OPERATOR, "stride of tokens")?,
            head: count(self.head, OPERATOR, "stride of heads")?,
        })
    }

    fn is_aligned(&self, value_type: ValueType) -> bool {
        let widest = value_type.widest();
        self.values.is_aligned() && [self.row, self.token, self.head].iter().all(|stride| stride.is_multiple_of(widest))
    }
}

impl ScoreBias<'_> {
    fn address(&self, of: &Attention<'_>) -> Result<u64, KernelError> {
        let dimensions = [(of.rows, self.row), (of.heads, self.head), (of.queries, self.query), (of.keys, 1)];
        self.values.at_least(extent(&dimensions), OPERATOR, "bias")
    }

    fn strides(&self) -> BiasStrides {
        BiasStrides { row: self.row as u64, head: self.head as u64, query: self.query as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { shared_bytes: 99 * 1024, processors: 1 };

    /// Of `length` values that nobody reads.
    fn span(length: usize) -> Span<'static> {
        // SAFETY: nothing is launched.
        unsafe { Span::new(256, length) }
    }

    /// 2 rows of 3 queries and 5 keys, 4 heads of 8 values; keys and values are 100 apart.
    fn attention() -> Attention<'static> {
        let both = |length| HeadVectors { values: span(length), row: 500, token: 100, head: 8 };
        Attention {
            value_type: ValueType::F16,
            rows: 2,
            heads: 4,
            queries: 3,
            keys: 5,
            head_size: 8,
            scale: 1.0,
            soft_cap: None,
            query: HeadVectors { values: span(2 * 3 * 32), row: 96, token: 32, head: 8 },
            key: both(500 + 400 + 32),
            value: both(500 + 400 + 32),
            bias: Some(ScoreBias { values: span(10), row: 5, head: 0, query: 0 }),
            output: span(2 * 3 * 32),
        }
    }

    #[track_caller]
    fn assert_refused(attention: &Attention<'_>, message: &str) {
        assert_eq!(attention.launch(LIMITS).unwrap_err().to_string(), message);
    }

    #[test]
    fn operands_are_as_long_as_strides_reach() {
        assert_eq!(attention().launch(LIMITS).unwrap().blocks, [1, 4, 2]);
        let mut short = attention();
        short.value.values = span(931);
        assert_refused(&short, "attention: value has 931 values, and 932 are needed");
        let mut short = attention();
        short.bias = Some(ScoreBias { values: span(10), row: 5, head: 0, query: 1 });
        assert_refused(&short, "attention: bias has 10 values, and 12 are needed");
        assert_refused(
            &Attention { output: span(191), ..attention() },
            "attention: output has 191 values, and 192 are needed",
        );
    }

    #[test]
    fn what_kernels_cannot_do_is_refused() {
        assert_refused(
            &Attention { keys: 0, ..attention() },
            "attention: keys of 0 is not supported; it can be at least 1",
        );
        let message = "attention: scale -1 and cap None are not finite numbers above 0";
        assert_refused(&Attention { scale: -1.0, ..attention() }, message);
        assert!(Attention { head_size: 513, ..attention() }.launch(LIMITS).is_err());
    }

    #[test]
    fn vectors_at_odd_places_are_not_copied_in_pieces() {
        let is_aligned = |of: &Attention<'_>| of.launch(LIMITS).unwrap().parameters.is_aligned;
        assert_eq!(is_aligned(&attention()), 0, "100 is no multiple of 8");
        let mut even = attention();
        (even.key.token, even.value.token) = (96, 96);
        (even.key.row, even.value.row) = (480, 480);
        assert_eq!(is_aligned(&even), 1);
        even.head_size = 6;
        assert_eq!(is_aligned(&even), 0, "6 values are no whole pieces");
    }
}
