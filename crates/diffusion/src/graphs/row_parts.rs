//! Small rows, side by side on the CPU's threads.
//!
//! Rows do not depend on each other. Where each is little work, threads that share out every product of a block wait for each
//! other hundreds of times in a step; so each runs all blocks for rows of its own, as few at a time as stay in its second
//! cache. What large rows need most of the time, weights, would be read by every thread for itself, so these run
//! together.

use afterimage_cache::Streams;
use afterimage_kernels::{side_by_side, threads};
use candle_core::{Result, Tensor};

use crate::layers::RowContext;

/// Bytes of a row's streams up to which it is small.
const SMALL_ROW_BYTES: usize = 256 * 1024;
/// Bytes of the streams of rows that run together: what blocks make of them, several times as much, stays in the second cache.
const PART_BYTES: usize = 96 * 1024;

/// `run` for all rows of the streams, in parts if they are small.
pub(super) fn run(
    streams: Streams,
    context: &RowContext,
    run: impl Fn(Streams, &RowContext) -> Result<Streams> + Sync,
) -> Result<Streams> {
    let rows = streams.hidden.dim(0)?;
    let part = rows_together(rows, &streams);
    if part >= rows {
        return run(streams, context);
    }
    let parts = side_by_side(rows.div_ceil(part), |index| {
        let (first, count) = (index * part, part.min(rows - index * part));
        let of_part = |stream: &Tensor| stream.narrow(0, first, count);
        let streams =
            Streams { hidden: of_part(&streams.hidden)?, encoder: streams.encoder.as_ref().map(of_part).transpose()? };
        run(streams, &context.range(first, count)?)
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    let hidden = Tensor::cat(&parts.iter().map(|part| &part.hidden).collect::<Vec<_>>(), 0)?;
    let encoders: Option<Vec<_>> = parts.iter().map(|part| part.encoder.as_ref()).collect();
    Ok(Streams { hidden, encoder: encoders.map(|encoders| Tensor::cat(&encoders, 0)).transpose()? })
}

/// How many rows a thread takes at a time; all, where they are large or there is no other thread.
fn rows_together(rows: usize, streams: &Streams) -> usize {
    let bytes = |stream: &Tensor| stream.elem_count() * stream.dtype().size_in_bytes();
    let row_bytes = (bytes(&streams.hidden) + streams.encoder.as_ref().map_or(0, bytes)) / rows.max(1);
    if threads() == 1 || row_bytes > SMALL_ROW_BYTES {
        return rows;
    }
    (PART_BYTES / row_bytes.max(1)).clamp(1, rows.div_ceil(threads()).max(1))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn numbers(rows: usize, tokens: usize) -> Tensor {
        let count = (rows * tokens * 4) as f32;
        Tensor::arange(0.0, count, &Device::Cpu).unwrap().reshape((rows, tokens, 4)).unwrap()
    }

    #[test]
    fn parts_are_put_together_in_order() {
        for (rows, tokens) in [(1, 3), (2, 3), (5, 700), (7, 3000), (3, 20_000)] {
            let streams = Streams { hidden: numbers(rows, tokens), encoder: Some(numbers(rows, 2)) };
            let context = RowContext::new(numbers(rows, 1));
            // Every row is told its own modulation.
            let add = |streams: Streams, context: &RowContext| {
                let hidden = streams.hidden.broadcast_add(&context.modulation)?;
                Ok(Streams { hidden, encoder: streams.encoder.map(|encoder| encoder.affine(2.0, 0.0)).transpose()? })
            };
            let together = add(streams.clone(), &context).unwrap();
            let found = run(streams, &context, add).unwrap();
            for (found, expected) in
                [(found.hidden, together.hidden), (found.encoder.unwrap(), together.encoder.unwrap())]
            {
                assert_eq!(found.dims(), expected.dims());
                let apart = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
                assert_eq!(apart.to_scalar::<f32>().unwrap(), 0.0, "{rows} rows of {tokens}");
            }
        }
    }

    #[test]
    fn large_rows_run_together() {
        let streams = |rows: usize, tokens: usize| {
            let hidden = Tensor::zeros((rows, tokens, 192), DType::F32, &Device::Cpu).unwrap();
            rows_together(rows, &Streams { hidden, encoder: None })
        };
        assert_eq!(streams(8, 342), 8);
        if threads() > 1 {
            assert_eq!((streams(2, 64), streams(32, 64)), (1, 2));
        }
    }

    #[test]
    fn an_error_of_one_part_is_that_of_all() {
        let streams = Streams { hidden: numbers(4, 3), encoder: None };
        let failed = run(streams, &RowContext::new(numbers(4, 1)), |streams, _| {
            if streams.hidden.get(0)?.get(0)?.get(0)?.to_scalar::<f32>()? > 0.0 {
                candle_core::bail!("not the first rows")
            }
            Ok(streams)
        });
        assert!(threads() == 1 || failed.unwrap_err().to_string().contains("not the first rows"));
    }
}
