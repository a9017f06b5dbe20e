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
use recorder::Recorder;
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
    /// but its arguments and the blocks' weights.
    pub(crate) fn run(
        &self,
        blocks: Range<usize>,
        streams: Streams,
        context: &RowContext,
        run: impl Fn(Streams, &RowContext) -> Result<Streams> + Sync,
    ) -> Result<Streams> {
        let Some(pool) = &self.pool else { return row_parts::run(streams, context, run) };
        let mut inputs = vec![Some(streams.hidden), streams.encoder];
        inputs.extend(context.parts().into_iter().map(Option::<&Tensor>::cloned));
        let work = |inputs: &[Option<Tensor>]| {
            let (streams, parts) = inputs.split_at(2);
            let [Some(hidden), encoder] = streams else { candle_core::bail!("blocks run on a hidden stream") };
            let streams = Streams { hidden: hidden.clone(), encoder: encoder.clone() };
            let after = run(streams, &RowContext::of_parts(parts)?)?;
            Ok([Some(after.hidden), after.encoder].into_iter().flatten().collect())
        };
        let mut outputs = pool.run(Key::new(blocks, &inputs), &inputs, work)?.into_iter();
        let Some(hidden) = outputs.next() else { candle_core::bail!("blocks give a hidden stream") };
        Ok(Streams { hidden, encoder: outputs.next() })
    }
}
