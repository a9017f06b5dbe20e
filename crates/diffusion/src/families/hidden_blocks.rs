//! A list of blocks that pass on the hidden stream alone, as the cache's driver takes it.

use std::ops::Range;

use afterimage_cache::{BlockList, Streams};
use candle_core::{Result, Tensor};

use crate::graphs::BlockGraphs;
use crate::layers::RowContext;

/// A block of such a list.
pub(super) trait HiddenBlock: Sync {
    /// `hidden` is `[rows, tokens, hidden]`.
    fn forward(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor>;

    /// The normed and modulated input of the block's attention.
    fn modulated_input(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor>;
}

/// The blocks together with the conditioning of the rows of one forward.
pub(super) struct HiddenBlocks<'a, B> {
    pub(super) blocks: &'a [B],
    pub(super) graphs: &'a BlockGraphs,
    pub(super) context: RowContext,
}

impl<B: HiddenBlock> BlockList for HiddenBlocks<'_, B> {
    fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        self.graphs.run(blocks.clone(), streams, &self.context, |streams, context| {
            let mut hidden = streams.hidden;
            for block in &self.blocks[blocks.clone()] {
                hidden = block.forward(&hidden, context)?;
            }
            Ok(Streams { hidden, encoder: None })
        })
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.blocks[0].modulated_input(&streams.hidden, &self.context)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self { context: self.context.select(rows)?, ..*self })
    }
}
