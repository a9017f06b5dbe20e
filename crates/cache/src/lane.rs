//! The rows of one image in one forward.

use candle_core::Tensor;

use crate::image_cache::ImageCache;

/// The rows of one image in a forward's batch, and its cache state.
#[derive(Debug)]
pub struct Lane<'a> {
    /// Lanes follow each other in the batch.
    pub(crate) rows: usize,
    pub(crate) cache: &'a mut ImageCache,
    pub(crate) watch: Watch,
    /// `None`: all.
    pub(crate) tokens: Option<usize>,
}

/// A tensor of the image that is looked at for NaN and infinity as part of the forward.
#[derive(Debug)]
pub(crate) enum Watch {
    Nothing,
    /// Not looked at yet.
    Due(Tensor),
    Known {
        is_finite: bool,
    },
}

impl<'a> Lane<'a> {
    /// `rows` rows, at least one, of the image with this state.
    pub fn new(rows: usize, cache: &'a mut ImageCache) -> Self {
        Self { rows, cache, watch: Watch::Nothing, tokens: None }
    }

    /// Number of its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Only the first tokens of the hidden stream are this image's. Those behind them fill its rows up to the length of
    /// other images: its cache never sees them, and what becomes of them is nobody's business.
    pub fn limit_tokens(&mut self, tokens: usize) {
        self.tokens = Some(tokens);
    }

    /// The forward also finds out whether this tensor, on the device of the streams, is finite. That costs
    /// no copy of its own.
    #[must_use]
    pub fn watching(self, tensor: Tensor) -> Self {
        Self { watch: Watch::Due(tensor), ..self }
    }

    /// After the forward: whether the watched tensor was free of NaN and infinity. True without one.
    pub fn is_finite(&self) -> bool {
        !matches!(self.watch, Watch::Known { is_finite: false })
    }
}
