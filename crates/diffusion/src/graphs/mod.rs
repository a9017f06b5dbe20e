//! Ranges of blocks as recorded graphs.
//!
//! A range of blocks is hundreds of small kernels, and giving them to a GPU one by one takes longer than they do. So the
//! sequence is recorded once for every range and every set of shapes, and given to the device in one call from then on. A
//! recording reads and writes memory that stays where it is: inputs are copied there before, and outputs from there
//! after. [`pool`] keeps the recordings, on one [`desk`] that they share, and while one is made nobody else gives the device
//! work ([`gate`]). On the CPU, which is given nothing to wait for, small rows run side by side
//! ([`row_parts`]).

mod desk;
mod gate;
mod pool;
mod recorder;
mod row_parts;
mod runs;

use std::ops::Range;

use afterimage_cache::Streams;
use candle_core::{Device, Result, Tensor};

use crate::layers::RowContext;
use gate::Gate;
pub use gate::{Inside, enter};
use pool::{Key, Pool};
use recorder::{Recorder, Records};
pub use runs::{BlockRuns, block_runs};

/// The recordings of one transformer's blocks on one device.
#[derive(Debug)]
pub(crate) struct BlockGraphs {
    /// `None` on the CPU.
    pool: Option<Pool<Recorder>>,
}

impl BlockGraphs {
    pub(crate) fn new(device: &Device) -> Self {
        Self { pool: Recorder::new(device).map(|recorder| Pool::new(recorder, Gate::of(device))) }
    }

    /// Gives all recordings up.
    pub(crate) fn forget(&self) {
        if let Some(pool) = &self.pool {
            pool.forget();
        }
    }

    /// `run` for these blocks, streams and rows, from a recording where there is one. What it computes depends on nothing
    /// but its arguments and the blocks' weights. Nobody writes into tensors that were given once: a tensor that was the last in
    /// its place is not copied there again.
    pub(crate) fn run(
        &self,
        blocks: Range<usize>,
        streams: Streams,
        context: &RowContext,
        run: impl Fn(Streams, &RowContext) -> Result<Streams> + Sync,
    ) -> Result<Streams> {
        let Some(pool) = &self.pool else { return row_parts::run(streams, context, run) };
        let inputs = vec![Some(streams.hidden), streams.encoder];
        let work = |inputs: &[Option<Tensor>], context: &RowContext| {
            let [Some(hidden), encoder] = inputs else { candle_core::bail!("blocks run on a hidden stream") };
            let after = run(Streams { hidden: hidden.clone(), encoder: encoder.clone() }, context)?;
            Ok([Some(after.hidden), after.encoder].into_iter().flatten().collect())
        };
        let mut outputs = in_pool(pool, blocks, inputs, context, work)?.into_iter();
        let Some(hidden) = outputs.next() else { candle_core::bail!("blocks give a hidden stream") };
        Ok(Streams { hidden, encoder: outputs.next() })
    }

    /// The same for blocks of a hidden stream that others have left skips for, `[rows, tokens, hidden]` each, and that leave
    /// some: `run` takes the stream and the skips in an order of its own, and so gives them. Small rows run together.
    pub(crate) fn run_with_skips(
        &self,
        blocks: Range<usize>,
        (hidden, skips): (Tensor, Vec<Tensor>),
        context: &RowContext,
        run: impl Fn(Tensor, Vec<Tensor>, &RowContext) -> Result<(Tensor, Vec<Tensor>)>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        match &self.pool {
            Some(pool) => with_skips_in_pool(pool, blocks, (hidden, skips), context, run),
            None => run(hidden, skips, context),
        }
    }
}

fn with_skips_in_pool(
    pool: &Pool<impl Records>,
    blocks: Range<usize>,
    (hidden, skips): (Tensor, Vec<Tensor>),
    context: &RowContext,
    run: impl Fn(Tensor, Vec<Tensor>, &RowContext) -> Result<(Tensor, Vec<Tensor>)>,
) -> Result<(Tensor, Vec<Tensor>)> {
    let inputs = std::iter::once(hidden).chain(skips).map(Some).collect();
    let work = |inputs: &[Option<Tensor>], context: &RowContext| {
        let mut inputs = inputs.iter().flatten().cloned();
        let Some(hidden) = inputs.next() else { candle_core::bail!("blocks run on a hidden stream") };
        let (hidden, skips) = run(hidden, inputs.collect(), context)?;
        Ok(std::iter::once(hidden).chain(skips).collect())
    };
    let mut outputs = in_pool(pool, blocks, inputs, context, work)?.into_iter();
    let Some(hidden) = outputs.next() else { candle_core::bail!("blocks give a hidden stream") };
    Ok((hidden, outputs.collect()))
}

/// `work` on inputs and a context, whose parts are inputs as well.
fn in_pool(
    pool: &Pool<impl Records>,
    blocks: Range<usize>,
    mut inputs: Vec<Option<Tensor>>,
    context: &RowContext,
    work: impl Fn(&[Option<Tensor>], &RowContext) -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let own = inputs.len();
    inputs.extend(context.parts().into_iter().map(Option::<&Tensor>::cloned));
    pool.run(Key::new(blocks, &inputs), &inputs, |inputs| {
        let (own, parts) = inputs.split_at(own);
        work(own, &RowContext::of_parts(parts)?)
    })
}

#[cfg(test)]
mod tests {
    use super::recorder::counter::Counter;
    use super::*;

    #[test]
    fn skips_enter_and_leave_recordings_in_order() {
        let pool = Pool::new(Counter::default(), Gate::of(&Device::Cpu));
        let number = |value: f32| Tensor::new(&[[[value]]], &Device::Cpu).unwrap();
        let context = RowContext::new(number(10.0));
        for _ in 0..3 {
            let entering = (number(1.0), vec![number(2.0), number(3.0)]);
            let (hidden, skips) = with_skips_in_pool(&pool, 4..6, entering, &context, |hidden, skips, context| {
                let [first, second] = &skips[..] else { panic!("two skips") };
                Ok(((&hidden + &context.modulation)?, vec![(first * 2.0)?, (second * 3.0)?, hidden]))
            })
            .unwrap();
            let value = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
            assert_eq!((value(hidden), skips.into_iter().map(value).collect::<Vec<_>>()), (11.0, vec![4.0, 9.0, 1.0]));
        }
    }
}
