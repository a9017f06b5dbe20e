//! The list of blocks as the cache's driver takes it, with the skips that first blocks leave and last blocks take.
//!
//! Follows diffusers 0.42.1, hunyuan_transformer_2d.py: `HunyuanDiT2DModel.forward` (lines 369-470):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//!
//! Departs from it: a block finds the skip of its counterpart by its index, not on top of a stack. Where the cache skips
//! the blocks between, a stack holds fewer skips than are taken from it, and cache-dit's last blocks take those of other
//! blocks.
//!
//! Rows that share a forward may run other blocks, so skips are kept by row, on a shelf that all selections of rows
//! have in common.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use afterimage_cache::{BlockList, Streams};
use candle_core::{Result, Tensor};

use super::block::HunyuanBlock;
use crate::graphs::BlockGraphs;
use crate::layers::RowContext;

/// The blocks together with the conditioning of the rows of one forward.
pub(super) struct SkippingBlocks<'a> {
    blocks: &'a [HunyuanBlock],
    graphs: &'a BlockGraphs,
    context: RowContext,
    /// Indices of the rows in the whole forward.
    rows: Vec<usize>,
    shelf: Rc<RefCell<Shelf>>,
}

/// The skips of one forward that nobody has taken yet.
#[derive(Default)]
struct Shelf(Vec<Skip>);

/// The output of a block for the rows that ran it together.
struct Skip {
    block: usize,
    rows: Vec<usize>,
    hidden: Tensor,
}

impl<'a> SkippingBlocks<'a> {
    /// For so many rows.
    pub(super) fn new(blocks: &'a [HunyuanBlock], graphs: &'a BlockGraphs, context: RowContext, rows: usize) -> Self {
        Self { blocks, graphs, context, rows: (0..rows).collect(), shelf: Rc::default() }
    }
}

/// The block whose output this one takes, of a list of `blocks`.
pub(super) fn counterpart(block: usize, blocks: usize) -> Option<usize> {
    (block > blocks / 2).then(|| blocks - 1 - block)
}

/// The blocks before a range whose skips it takes, in the order in which it does.
fn taken(range: &Range<usize>, blocks: usize) -> Vec<usize> {
    let taken = range.clone().filter_map(|block| counterpart(block, blocks));
    taken.filter(|block| *block < range.start).collect()
}

/// The blocks of a range whose skips are for blocks behind it, ascending.
fn left(range: &Range<usize>, blocks: usize) -> Vec<usize> {
    let leaving = range.start..range.end.min((blocks / 2).saturating_sub(1));
    leaving.filter(|block| blocks - 1 - block >= range.end).collect()
}

impl BlockList for SkippingBlocks<'_> {
    fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        let count = self.blocks.len();
        let (taken, left) = (taken(&blocks, count), left(&blocks, count));
        let skips = taken.iter().map(|block| self.shelf.borrow_mut().take(*block, &self.rows));
        let entering = (streams.hidden, skips.collect::<Result<_>>()?);
        let (hidden, skips) =
            self.graphs.run_with_skips(blocks.clone(), entering, &self.context, |hidden, skips, context| {
                let mut hidden = hidden;
                let mut waiting: BTreeMap<usize, Tensor> = taken.iter().copied().zip(skips).collect();
                for index in blocks.clone() {
                    let skip = counterpart(index, count).and_then(|block| waiting.remove(&block));
                    hidden = self.blocks[index].forward(&hidden, skip.as_ref(), context)?;
                    if index + 1 < count / 2 {
                        waiting.insert(index, hidden.clone());
                    }
                }
                // What is left waits for blocks behind these.
                Ok((hidden, waiting.into_values().collect()))
            })?;
        let skips = left.into_iter().zip(skips).map(|(block, hidden)| Skip { block, rows: self.rows.clone(), hidden });
        self.shelf.borrow_mut().0.extend(skips);
        Ok(Streams { hidden, encoder: None })
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.blocks[0].modulated_input(&streams.hidden, &self.context)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self {
            blocks: self.blocks,
            graphs: self.graphs,
            context: self.context.select(rows)?,
            rows: rows.iter().map(|row| self.rows[*row]).collect(),
            shelf: Rc::clone(&self.shelf),
        })
    }
}

impl Shelf {
    /// What a block has left for these rows.
    fn take(&mut self, block: usize, rows: &[usize]) -> Result<Tensor> {
        let whole = |skip: &Skip| skip.block == block && skip.rows == rows;
        if let Some(place) = self.0.iter().position(whole) {
            return Ok(self.0.swap_remove(place).hidden);
        }
        let parts = rows.iter().map(|row| self.row(block, *row)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)
    }

    /// The same for one row, of rows that have parted since, or come together.
    fn row(&self, block: usize, row: usize) -> Result<Tensor> {
        let place = |skip: &Skip| skip.rows.iter().position(|other| *other == row);
        let skips = self.0.iter().filter(|skip| skip.block == block);
        match skips.filter_map(|skip| Some((skip, place(skip)?))).next() {
            Some((skip, place)) => skip.hidden.narrow(0, place, 1),
            None => candle_core::bail!("block {block} has left no skip for row {row}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_last_blocks_take_what_the_first_ones_leave() {
        let taken = |blocks: usize| (0..blocks).map(|block| counterpart(block, blocks)).collect::<Vec<_>>();
        assert_eq!(taken(6), [None, None, None, None, Some(1), Some(0)]);
        assert_eq!(taken(2), [None, None]);
        assert_eq!(taken(1), [None]);
    }

    #[test]
    fn ranges_take_and_leave_what_reaches_beyond_them() {
        let of = |range: Range<usize>| (taken(&range, 8), left(&range, 8));
        // Blocks 5, 6 and 7 take the skips of 2, 1 and 0.
        assert_eq!(of(0..8), (vec![], vec![]));
        assert_eq!((of(0..2), of(2..8)), ((vec![], vec![0, 1]), (vec![1, 0], vec![])));
        assert_eq!((of(0..1), of(1..7), of(7..8)), ((vec![], vec![0]), (vec![], vec![]), (vec![0], vec![])));
        assert_eq!((of(2..6), of(3..6), of(3..5)), ((vec![], vec![]), (vec![2], vec![]), (vec![], vec![])));
    }

    #[test]
    fn skips_follow_their_rows_wherever_they_meet() {
        let hidden = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let mut shelf = Shelf::default();
        for (block, rows, values) in [(0, vec![0, 1, 2], [1.0, 2.0, 3.0]), (1, vec![0, 1, 2], [4.0, 5.0, 6.0])] {
            shelf.0.push(Skip { block, rows, hidden: hidden(&values) });
        }
        let mut take = |block, rows: &[usize]| shelf.take(block, rows).map(|skip| skip.to_vec1::<f32>().unwrap());
        assert_eq!(take(1, &[1]).unwrap(), [5.0]);
        assert_eq!(take(1, &[0, 2]).unwrap(), [4.0, 6.0]);
        assert_eq!(take(0, &[0, 1, 2]).unwrap(), [1.0, 2.0, 3.0]);
        let error = take(0, &[1]).unwrap_err().to_string();
        assert!(error.contains("block 0 has left no skip for row 1"), "{error}");
    }
}
