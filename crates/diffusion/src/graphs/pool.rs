//! Which work is recorded, and the recordings.
//!
//! Work whose key is met for the first time is done in the ordinary way: it may load modules, upload constants and choose
//! algorithms, which no recording may hold. The second time it is recorded. Recordings are bounded in number; the one
//! that was not used for longest goes first. Work that cannot be recorded is done in the ordinary way from then on.
//!
//! Nothing is locked while work is done. Recordings have the memory of their inputs and outputs in common ([`Desk`]), so that
//! one at a time is given to the device, which takes as long as a launch.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Result, Tensor};
use lru::LruCache;

use super::desk::{Desk, InputPlace, overwrite};
use super::gate::Gate;
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
    gate: Arc<Gate>,
    entries: Mutex<LruCache<Key, Entry<R::Graph>>>,
    desk: Mutex<Desk>,
}

#[derive(Debug)]
enum Entry<G> {
    /// Done once, with outputs like these.
    Seen(Arc<[(DType, Vec<usize>)]>),
    Recorded(Arc<Recording<G>>),
    /// It cannot be recorded.
    Plain,
}

/// A graph and the places on the desk that it works on.
#[derive(Debug)]
struct Recording<G> {
    graph: G,
    inputs: Vec<Option<InputPlace>>,
    outputs: Vec<Tensor>,
}

impl<G> Clone for Entry<G> {
    fn clone(&self) -> Self {
        match self {
            Self::Seen(shapes) => Self::Seen(Arc::clone(shapes)),
            Self::Recorded(recording) => Self::Recorded(Arc::clone(recording)),
            Self::Plain => Self::Plain,
        }
    }
}

impl<R: Records> Pool<R> {
    pub(super) fn new(recorder: R, gate: Arc<Gate>) -> Self {
        Self { recorder, gate, entries: Mutex::new(LruCache::new(KEPT)), desk: Mutex::default() }
    }

    /// Gives all recordings up, and what could not be recorded another chance.
    pub(super) fn forget(&self) {
        locked(&self.entries).clear();
        *locked(&self.desk) = Desk::default();
    }

    /// `work` on `inputs`.
    pub(super) fn run(
        &self,
        key: Key,
        inputs: &[Option<Tensor>],
        work: impl Fn(&[Option<Tensor>]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let known = locked(&self.entries).get(&key).cloned();
        let (entry, outputs) = match known {
            None => {
                count_launches();
                let inputs = contiguous(inputs)?;
                let outputs = self.recorder.prepare(|| work(&inputs))?;
                let shapes = outputs.iter().map(|output| (output.dtype(), output.dims().to_vec())).collect();
                (Entry::Seen(shapes), outputs)
            }
            Some(Entry::Plain) => {
                count_launches();
                return work(inputs);
            }
            Some(Entry::Recorded(recording)) => return self.replay(&recording, inputs),
            Some(Entry::Seen(shapes)) => match self.record(inputs, &shapes, &work) {
                Ok(recording) => {
                    count_recording();
                    let outputs = self.replay(&recording, inputs)?;
                    (Entry::Recorded(Arc::new(recording)), outputs)
                }
                Err(error) => {
                    tracing::warn!(blocks = ?key.blocks, %error, "blocks cannot be recorded and run kernel by kernel");
                    count_launches();
                    (Entry::Plain, work(inputs)?)
                }
            },
        };
        locked(&self.entries).put(key, entry);
        Ok(outputs)
    }

    fn record(
        &self,
        inputs: &[Option<Tensor>],
        shapes: &[(DType, Vec<usize>)],
        work: impl Fn(&[Option<Tensor>]) -> Result<Vec<Tensor>>,
    ) -> Result<Recording<R::Graph>> {
        let Some(device) = inputs.iter().flatten().next().map(|input| input.device().clone()) else {
            candle_core::bail!("work without inputs is not recorded");
        };
        let (inputs, outputs) = {
            let mut desk = locked(&self.desk);
            (desk.inputs(inputs)?, desk.outputs(shapes, &device)?)
        };
        let read: Vec<_> = inputs.iter().map(|place| place.as_ref().map(|place| place.values().clone())).collect();
        let recorded = self.gate.alone(|| {
            self.recorder.record(|| {
                let made = work(&read)?;
                made.iter().zip(&outputs).try_for_each(|(made, output)| overwrite(output, made))
            })
        });
        Ok(Recording { graph: recorded?, inputs, outputs })
    }

    fn replay(&self, recording: &Recording<R::Graph>, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>> {
        // The desk is this recording's until its outputs are taken away. Copies and graph only join the stream here.
        let _desk = locked(&self.desk);
        for (place, input) in recording.inputs.iter().flatten().zip(inputs.iter().flatten()) {
            place.put(input)?;
        }
        self.recorder.replay(&recording.graph)?;
        count_replay();
        recording.outputs.iter().map(Tensor::force_contiguous).collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn contiguous(inputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    inputs.iter().map(|input| input.as_ref().map(Tensor::contiguous).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::Device;

    use super::super::recorder::counter::Counter;
    use super::*;

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
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        for _ in 0..4 {
            // The counter replays nothing: from the second run on these are the values of the recording.
            assert_eq!(run(&pool, 0..3, &numbers(&[1.0, 2.0]), &done), [2.0, 4.0]);
        }
        assert_eq!((pool.recorder.prepared.get(), pool.recorder.recorded.get(), done.get()), (1, 1, 2));
        assert_eq!(*pool.recorder.replayed.borrow(), [1, 1, 1]);
    }

    #[test]
    fn inputs_are_copied_to_where_the_recording_reads_and_outputs_are_nobody_elses() {
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        let outputs = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]].map(|values| {
            let inputs = numbers(&values);
            pool.run(Key::new(0..1, &inputs), &inputs, |inputs| doubled(inputs, &done)).unwrap()
        });
        let entry = pool.entries.lock().unwrap().get(&Key::new(0..1, &numbers(&[0.0, 0.0]))).cloned();
        let Some(Entry::Recorded(recording)) = entry else { panic!("it was recorded") };
        assert_eq!(recording.inputs[0].as_ref().unwrap().values().to_vec1::<f32>().unwrap(), [5.0, 6.0]);
        overwrite(&recording.outputs[0], &Tensor::new(&[7f32, 8.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(outputs[2][0].to_vec1::<f32>().unwrap(), [6.0, 8.0]);
    }

    #[test]
    fn nothing_is_locked_while_work_is_done() {
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        let inputs = numbers(&[1.0]);
        for _ in 0..3 {
            let outputs = pool.run(Key::new(0..1, &inputs), &inputs, |inputs| {
                // In the ordinary way, as nobody records while another one does.
                if pool.recorder.prepared.get() < 2 {
                    run(&pool, 1..2, &numbers(&[5.0]), &done);
                }
                doubled(inputs, &done)
            });
            assert_eq!(outputs.unwrap()[0].to_vec1::<f32>().unwrap(), [2.0]);
        }
        assert_eq!((pool.recorder.prepared.get(), pool.recorder.recorded.get()), (2, 1));
    }

    #[test]
    fn recordings_share_the_memory_that_they_are_given_inputs_in() {
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        for (blocks, values) in [(0..1, &[1.0, 2.0][..]), (1..2, &[3.0]), (2..3, &[4.0, 5.0])] {
            (0..2).for_each(|_| drop(run(&pool, blocks.clone(), &numbers(values), &done)));
        }
        let entries = pool.entries.lock().unwrap();
        let places = entries.iter().map(|(_, entry)| {
            let Entry::Recorded(recording) = entry else { panic!("it was recorded") };
            recording.inputs[0].as_ref().unwrap().values().to_vec1::<f32>().unwrap()
        });
        // What was written last, and as much of it as each has.
        assert_eq!(places.collect::<Vec<_>>(), [vec![4.0, 5.0], vec![4.0], vec![4.0, 5.0]]);
    }

    /// Places are shared, and become too small.
    #[test]
    fn whatever_was_given_before_recordings_read_what_they_are_given() {
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        let of_length = |length: usize| [0.0, 1.0, 2.0].map(|value| numbers(&vec![value + length as f32; length]));
        let given = [3, 1, 2, 9].map(of_length);
        let mut random = 1_u32;
        let mut below = |bound: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((random >> 16) % bound) as usize
        };
        for turn in 0..400 {
            // Large ones come later.
            let (length, value, blocks) = (below(if turn < 100 { 3 } else { 4 }), below(3), below(2));
            let inputs = &given[length][value];
            let key = Key::new(0..blocks, inputs);
            pool.run(key.clone(), inputs, |inputs| doubled(inputs, &done)).unwrap();
            if let Some(Entry::Recorded(recording)) = pool.entries.lock().unwrap().get(&key) {
                let read = recording.inputs[0].as_ref().unwrap().values().to_vec1::<f32>().unwrap();
                assert_eq!(read, inputs[0].as_ref().unwrap().to_vec1::<f32>().unwrap(), "turn {turn}");
            }
        }
        assert_eq!(pool.recorder.recorded.get(), 8);
    }

    #[test]
    fn other_blocks_shapes_and_parts_are_other_work() {
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
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
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
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
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        for _ in 0..2 {
            (0..3).for_each(|_| drop(run(&pool, 0..1, &numbers(&[1.0]), &done)));
            pool.forget();
            assert_eq!(pool.entries.lock().unwrap().len(), 0);
        }
        assert_eq!((pool.recorder.prepared.get(), pool.recorder.recorded.get(), done.get()), (2, 2, 4));
    }

    #[test]
    fn the_oldest_recordings_are_given_up() {
        let (pool, done) = (Pool::new(Counter::default(), Arc::default()), Cell::new(0));
        for blocks in 0..2 * KEPT.get() {
            run(&pool, 0..blocks, &numbers(&[1.0]), &done);
        }
        assert_eq!(pool.entries.lock().unwrap().len(), KEPT.get());
        run(&pool, 0..0, &numbers(&[1.0]), &done);
        assert_eq!(pool.recorder.prepared.get(), 2 * KEPT.get() + 1);
    }
}
