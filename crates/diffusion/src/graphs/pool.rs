//! Which work is recorded, and the recordings.
//!
//! Work whose key is met for the first time is done in the ordinary way: it may load modules, upload constants and choose
//! algorithms, which no recording may hold. The second time it is recorded. Recordings are bounded in number; the one
//! that was not used for longest goes first. Work that cannot be recorded is done in the ordinary way from then on.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Result, Tensor};
use lru::LruCache;

use super::recorder::Records;
use super::runs::{count_launches, count_recording, count_replay};

/// Keys that are remembered. Batches of up to 16 rows and a handful of ranges come to fewer.
const KEPT: std::num::NonZeroUsize = std::num::NonZeroUsize::new(128).expect("not zero");

/// Blocks, and the dtypes and shapes of all they are given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    blocks: Range<usize>,
    inputs: Vec<Option<(DType, Vec<usize>)>>,
}

impl Key {
    pub(super) fn new(blocks: Range<usize>, inputs: &[Option<Tensor>]) -> Self {
        let shape = |tensor: &Tensor| (tensor.dtype(), tensor.dims().to_vec());
        Self { blocks, inputs: inputs.iter().map(|input| input.as_ref().map(shape)).collect() }
    }
}

#[derive(Debug)]
pub(super) struct Pool<R: Records> {
    recorder: R,
    entries: Mutex<LruCache<Key, Entry<R::Graph>>>,
}

#[derive(Debug)]
enum Entry<G> {
    /// Done once, with outputs like these.
    Seen(Vec<(DType, Vec<usize>)>),
    Recorded(Recording<G>),
    /// It cannot be recorded.
    Plain,
}

/// A graph and the memory it works on.
#[derive(Debug)]
struct Recording<G> {
    graph: G,
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Tensor>,
}

impl<R: Records> Pool<R> {
    pub(super) fn new(recorder: R) -> Self {
        Self { recorder, entries: Mutex::new(LruCache::new(KEPT)) }
    }

    /// Gives all recordings up, and what could not be recorded another chance.
    pub(super) fn forget(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// `work` on `inputs`.
    pub(super) fn run(
        &self,
        key: Key,
        inputs: &[Option<Tensor>],
        work: impl Fn(&[Option<Tensor>]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&key) {
            None => {
                count_launches();
                let inputs = contiguous(inputs)?;
                let outputs = self.recorder.prepare(|| work(&inputs))?;
                let shapes = outputs.iter().map(|output| (output.dtype(), output.dims().to_vec())).collect();
                entries.put(key, Entry::Seen(shapes));
                Ok(outputs)
            }
            Some(Entry::Plain) => {
                count_launches();
                work(inputs)
            }
            Some(Entry::Recorded(recording)) => recording.replay(&self.recorder, inputs),
            Some(Entry::Seen(shapes)) => {
                let recorded = Recording::new(&self.recorder, inputs, shapes, &work);
                let (entry, outputs) = match recorded {
                    Ok(recording) => {
                        count_recording();
                        let outputs = recording.replay(&self.recorder, inputs)?;
                        (Entry::Recorded(recording), outputs)
                    }
                    Err(error) => {
                        tracing::warn!(blocks = ?key.blocks, %error, "blocks cannot be recorded and run kernel by kernel");
                        count_launches();
                        (Entry::Plain, work(inputs)?)
                    }
                };
                entries.put(key, entry);
                Ok(outputs)
            }
        }
    }
}

impl<G> Recording<G> {
    fn new<R: Records<Graph = G>>(
        recorder: &R,
        inputs: &[Option<Tensor>],
        shapes: &[(DType, Vec<usize>)],
        work: impl Fn(&[Option<Tensor>]) -> Result<Vec<Tensor>>,
    ) -> Result<Self> {
        let copied = |input: &Option<Tensor>| input.as_ref().map(Tensor::force_contiguous).transpose();
        let inputs = inputs.iter().map(copied).collect::<Result<Vec<_>>>()?;
        let Some(device) = inputs.iter().flatten().next().map(|input| input.device().clone()) else {
            candle_core::bail!("work without inputs is not recorded");
        };
        let zeros = shapes.iter().map(|(dtype, shape)| Tensor::zeros(shape.as_slice(), *dtype, &device));
        let outputs = zeros.collect::<Result<Vec<_>>>()?;
        let graph = recorder.record(|| {
            let made = work(&inputs)?;
            made.iter().zip(&outputs).try_for_each(|(made, output)| overwrite(output, made))
        })?;
        Ok(Self { graph, inputs, outputs })
    }

    fn replay<R: Records<Graph = G>>(&self, recorder: &R, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>> {
        for (own, input) in self.inputs.iter().flatten().zip(inputs.iter().flatten()) {
            overwrite(own, input)?;
        }
        recorder.replay(&self.graph)?;
        count_replay();
        // The next replay writes over them.
        self.outputs.iter().map(Tensor::force_contiguous).collect()
    }
}

/// Copies values into a tensor that stays where it is.
fn overwrite(own: &Tensor, values: &Tensor) -> Result<()> {
    own.flatten_all()?.slice_set(&values.contiguous()?.flatten_all()?, 0, 0)
}

fn contiguous(inputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    inputs.iter().map(|input| input.as_ref().map(Tensor::contiguous).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use candle_core::Device;

    use super::*;

    /// Counts what it is asked for. Work that refuses is not recorded.
    #[derive(Debug, Default)]
    struct Counter {
        prepared: Cell<usize>,
        recorded: Cell<usize>,
        replayed: RefCell<Vec<usize>>,
    }

    impl Records for Counter {
        /// Its number.
        type Graph = usize;

        fn prepare<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
            self.prepared.set(self.prepared.get() + 1);
            work()
        }

        fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<usize> {
            work()?;
            self.recorded.set(self.recorded.get() + 1);
            Ok(self.recorded.get())
        }

        fn replay(&self, graph: &usize) -> Result<()> {
            self.replayed.borrow_mut().push(*graph);
            Ok(())
        }
    }

    fn numbers(values: &[f32]) -> [Option<Tensor>; 2] {
        [Some(Tensor::new(values, &Device::Cpu).unwrap()), None]
    }

    /// Doubles the first input; `done` counts.
    fn doubled(inputs: &[Option<Tensor>], done: &Cell<usize>) -> Result<Vec<Tensor>> {
        done.set(done.get() + 1);
        Ok(vec![(inputs[0].as_ref().unwrap() * 2.0)?])
    }

    fn run(pool: &Pool<Counter>, blocks: Range<usize>, inputs: &[Option<Tensor>], done: &Cell<usize>) -> Vec<f32> {
        let outputs = pool.run(Key::new(blocks, inputs), inputs, |inputs| doubled(inputs, done)).unwrap();
        outputs[0].to_vec1().unwrap()
    }

    #[test]
    fn work_is_done_once_then_recorded_then_replayed() {
        let (pool, done) = (Pool::new(Counter::default()), Cell::new(0));
        for _ in 0..4 {
            // The counter replays nothing: from the second run on these are the values of the recording.
            assert_eq!(run(&pool, 0..3, &numbers(&[1.0, 2.0]), &done), [2.0, 4.0]);
        }
        assert_eq!((pool.recorder.prepared.get(), pool.recorder.recorded.get(), done.get()), (1, 1, 2));
        assert_eq!(*pool.recorder.replayed.borrow(), [1, 1, 1]);
    }

    #[test]
    fn inputs_are_copied_to_where_the_recording_reads_and_outputs_are_nobody_elses() {
        let (pool, done) = (Pool::new(Counter::default()), Cell::new(0));
        let outputs = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]].map(|values| {
            let inputs = numbers(&values);
            pool.run(Key::new(0..1, &inputs), &inputs, |inputs| doubled(inputs, &done)).unwrap()
        });
        let mut entries = pool.entries.lock().unwrap();
        let Some(Entry::Recorded(recording)) = entries.get(&Key::new(0..1, &numbers(&[0.0, 0.0]))) else {
            panic!("it was recorded")
        };
        assert_eq!(recording.inputs[0].as_ref().unwrap().to_vec1::<f32>().unwrap(), [5.0, 6.0]);
        overwrite(&recording.outputs[0], &Tensor::new(&[7f32, 8.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(outputs[2][0].to_vec1::<f32>().unwrap(), [6.0, 8.0]);
    }

    #[test]
    fn other_blocks_shapes_and_parts_are_other_work() {
        let (pool, done) = (Pool::new(Counter::default()), Cell::new(0));
        let pair = numbers(&[1.0, 2.0]);
        for (blocks, inputs) in [
            (0..3, pair.clone()),
            (1..3, pair.clone()),
            (0..3, numbers(&[1.0])),
            (0..3, [pair[0].clone(), pair[0].clone()]),
            (0..3, pair.clone().map(|part| part.map(|part| part.to_dtype(DType::BF16).unwrap()))),
        ] {
            let key = Key::new(blocks, &inputs);
            pool.run(key, &inputs, |inputs| doubled(inputs, &done)).unwrap();
        }
        assert_eq!((pool.recorder.prepared.get(), pool.recorder.recorded.get()), (5, 0));
    }

    #[test]
    fn work_that_cannot_be_recorded_is_done_as_ever() {
        let (pool, done) = (Pool::new(Counter::default()), Cell::new(0));
        let inputs = numbers(&[1.0]);
        for _ in 0..4 {
            let outputs = pool.run(Key::new(0..1, &inputs), &inputs, |inputs| {
                // Fails the second time, which is the recording.
                let outputs = doubled(inputs, &done)?;
                if done.get() == 2 { candle_core::bail!("it waits for the device") } else { Ok(outputs) }
            });
            assert_eq!(outputs.unwrap()[0].to_vec1::<f32>().unwrap(), [2.0]);
        }
        assert_eq!((pool.recorder.recorded.get(), done.get()), (0, 5));
    }

    #[test]
    fn what_was_forgotten_is_recorded_anew() {
        let (pool, done) = (Pool::new(Counter::default()), Cell::new(0));
        for _ in 0..2 {
            (0..3).for_each(|_| drop(run(&pool, 0..1, &numbers(&[1.0]), &done)));
            pool.forget();
            assert_eq!(pool.entries.lock().unwrap().len(), 0);
        }
        assert_eq!((pool.recorder.prepared.get(), pool.recorder.recorded.get(), done.get()), (2, 2, 4));
    }

    #[test]
    fn the_oldest_recordings_are_given_up() {
        let (pool, done) = (Pool::new(Counter::default()), Cell::new(0));
        for blocks in 0..2 * KEPT.get() {
            run(&pool, 0..blocks, &numbers(&[1.0]), &done);
        }
        assert_eq!(pool.entries.lock().unwrap().len(), KEPT.get());
        run(&pool, 0..0, &numbers(&[1.0]), &done);
        assert_eq!(pool.recorder.prepared.get(), 2 * KEPT.get() + 1);
    }
}
