//! What a model shows of its transformer blocks, and what flows through them.
//!
//! A model prepares a list of blocks for the rows of one forward (conditioning included) and lets the
//! driver run ranges of them. It never learns which of them were skipped.

use std::ops::Range;

use candle_core::{Result, Tensor};

/// What flows through a block list.
#[derive(Debug, Clone)]
pub struct Streams {
    /// `[rows, tokens, dim]`
    pub hidden: Tensor,
    /// `[rows, text_tokens, dim]`, for models whose blocks carry the text along.
    pub encoder: Option<Tensor>,
}

/// One list of transformer blocks, prepared for the rows of a batch.
pub trait BlockList: Sized {
    /// Number of blocks.
    fn blocks(&self) -> usize;

    /// Runs some blocks, one after the other, on all rows this list is prepared for. Nothing looks at the
    /// streams between them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams>;

    /// The first block's attention input, normalised and modulated, for streams that enter the list.
    /// TeaCache measures how much it changes from step to step.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn modulated_input(&self, streams: &Streams) -> Result<Tensor>;

    /// The same list prepared for some of its rows, given by ascending index.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn select(&self, rows: &[usize]) -> Result<Self>;
}

/// What a caching method may ask of the model about one image's rows.
pub(crate) trait Probe {
    /// See [`BlockList::modulated_input`].
    fn modulated_input(&self, streams: &Streams) -> Result<Tensor>;
}
