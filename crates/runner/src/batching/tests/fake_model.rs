//! A model whose images are counters, with faults on order.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterimage_cache::ImageReport;

use super::super::batch_key::BatchKey;
use super::super::clock::Clock;
use super::super::step_model::StepModel;
use crate::error::RunnerError;
use crate::request::{ImageSpec, RequestWarning, RgbImage, Size};

/// Virtual time of one row in one step, of decoding, and of encoding a text.
pub(super) const ROW_STEP_MILLIS: u64 = 10;
pub(super) const DECODE_MILLIS: u64 = 5;
pub(super) const ENCODE_MILLIS: u64 = 700;

/// Images with this prompt reuse every other step.
pub(super) const REUSING_PROMPT: &str = "reuse";
/// Images with this prompt are in another phase from the middle of their steps on.
pub(super) const TWO_PHASES_PROMPT: &str = "two phases";
/// Prompts that begin like this are encoded, once each.
pub(super) const TEXT: &str = "text";

/// Time that moves only when the fake model works or a test says so.
#[derive(Default)]
pub(super) struct VirtualClock {
    millis: AtomicU64,
}

impl VirtualClock {
    pub(super) fn advance(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

/// What goes wrong with an image, by its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Begin,
    /// An error in the forward that makes this step, counted from 1.
    Error(usize),
    /// A panic there, after all images of the batch were changed.
    Panic(usize),
    /// Not finite after this step.
    NotFinite(usize),
    Decode,
    /// A panic where the loop has no guard.
    Loop,
    /// The forward fails whenever the image is not alone.
    Shared,
}

/// Memory of a device, in rows. Begun images take none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) rows: usize,
    /// Kept by the device until it is told to give them back.
    pub(super) unused: usize,
    /// Taken while a picture is decoded.
    pub(super) decoding: usize,
}

/// A forward as it was asked for: bucket and phase, and seed and step of every image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) size: Size,
    pub(super) phase: usize,
    pub(super) rows: usize,
    pub(super) images: Vec<(u64, usize)>,
    pub(super) is_sample: bool,
}

pub(super) struct FakeModel {
    clock: Arc<VirtualClock>,
    faults: Mutex<HashMap<u64, Fault>>,
    forwards: Mutex<Vec<Forward>>,
    encoded: Mutex<HashSet<String>>,
    decodings: AtomicUsize,
    living: Arc<AtomicUsize>,
    /// `None`: a device that never runs out.
    memory: Mutex<Option<Memory>>,
    frees: AtomicUsize,
}

/// An image on its way. Every change of `state` depends on what it was, so a step made twice shows.
pub(super) struct FakeImage {
    is_sample: bool,
    spec: Arc<ImageSpec>,
    seed: u64,
    step: usize,
    state: u64,
    living: Arc<AtomicUsize>,
}

impl Clone for FakeImage {
    fn clone(&self) -> Self {
        self.living.fetch_add(1, Ordering::SeqCst);
        Self {
            is_sample: self.is_sample,
            spec: Arc::clone(&self.spec),
            seed: self.seed,
            step: self.step,
            state: self.state,
            living: Arc::clone(&self.living),
        }
    }
}

impl Drop for FakeImage {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeModel {
    pub(super) fn new(clock: Arc<VirtualClock>) -> Self {
        Self {
            clock,
            faults: Mutex::default(),
            forwards: Mutex::default(),
            encoded: Mutex::default(),
            decodings: AtomicUsize::new(0),
            living: Arc::default(),
            memory: Mutex::default(),
            frees: AtomicUsize::new(0),
        }
    }

    pub(super) fn set_memory(&self, memory: Memory) {
        *self.memory.lock().unwrap() = Some(memory);
    }

    /// How often the device was told to give back what nobody uses.
    pub(super) fn frees(&self) -> usize {
        self.frees.load(Ordering::SeqCst)
    }

    /// Fails as a driver does that has no memory for so many rows.
    fn allocate(&self, rows: usize) -> Result<(), RunnerError> {
        match *self.memory.lock().unwrap() {
            Some(memory) if rows + memory.unused > memory.rows => {
                Err(failure(r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn break_image(&self, seed: u64, fault: Fault) {
        self.faults.lock().unwrap().insert(seed, fault);
    }

    pub(super) fn mend(&self) {
        self.faults.lock().unwrap().clear();
    }

    pub(super) fn forwards(&self) -> Vec<Forward> {
        self.forwards.lock().unwrap().clone()
    }

    /// Texts encoded, and pictures and previews decoded.
    pub(super) fn texts_and_decodings(&self) -> (usize, usize) {
        (self.encoded.lock().unwrap().len(), self.decodings.load(Ordering::SeqCst))
    }

    /// Images and snapshots that exist.
    pub(super) fn living_images(&self) -> usize {
        self.living.load(Ordering::SeqCst)
    }

    fn fault(&self, image: &FakeImage) -> Option<Fault> {
        self.faults.lock().unwrap().get(&image.seed).copied()
    }
}

impl StepModel for FakeModel {
    type Image = FakeImage;

    fn must_encode(&self, spec: &ImageSpec) -> bool {
        spec.prompt.starts_with(TEXT) && !self.encoded.lock().unwrap().contains(&spec.prompt)
    }

    fn begin(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<FakeImage, RunnerError> {
        self.allocate(1)?;
        if self.must_encode(spec) {
            self.clock.advance(ENCODE_MILLIS);
            self.encoded.lock().unwrap().insert(spec.prompt.clone());
        }
        if self.faults.lock().unwrap().get(&seed) == Some(&Fault::Begin) {
            return Err(failure("cannot begin"));
        }
        self.living.fetch_add(1, Ordering::SeqCst);
        let living = Arc::clone(&self.living);
        Ok(FakeImage { is_sample: false, spec: Arc::clone(spec), seed, step: 0, state: seed, living })
    }

    fn begin_sample(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<FakeImage, RunnerError> {
        if self.faults.lock().unwrap().get(&seed) == Some(&Fault::Begin) {
            return Err(failure("cannot begin"));
        }
        self.living.fetch_add(1, Ordering::SeqCst);
        let living = Arc::clone(&self.living);
        Ok(FakeImage { is_sample: true, spec: Arc::clone(spec), seed, step: 0, state: seed, living })
    }

    fn batch_key(&self, image: &FakeImage) -> BatchKey {
        let is_late = image.spec.prompt == TWO_PHASES_PROMPT && 2 * image.step >= image.spec.steps;
        BatchKey { canvas: image.spec.size.canvas(), phase: usize::from(is_late) }
    }

    #[allow(clippy::panic, reason = "the fault that is tested")]
    fn step(&self, images: &mut [&mut FakeImage]) -> Result<Vec<bool>, RunnerError> {
        let key = self.batch_key(images[0]);
        let rows = images.iter().map(|image| image.spec.guidance.rows()).sum();
        assert!(images.iter().all(|image| self.batch_key(image) == key), "a batch has one key");
        let members = images.iter().map(|image| (image.seed, image.step + 1)).collect();
        let (size, phase) = (images[0].spec.size, key.phase);
        self.forwards.lock().unwrap().push(Forward {
            size,
            phase,
            rows,
            images: members,
            is_sample: images[0].is_sample,
        });
        self.clock.advance(rows as u64 * ROW_STEP_MILLIS);
        let were_finite = images.iter().map(|image| self.is_finite(image)).collect::<Result<_, _>>()?;
        for image in images.iter_mut() {
            image.step += 1;
            image.state = image.state.wrapping_mul(31).wrapping_add(image.step as u64);
        }
        self.allocate(rows)?;
        for image in images.iter() {
            match self.fault(image) {
                Some(Fault::Error(step)) if step == image.step => {
                    return Err(failure(format!("seed {} is broken", image.seed)));
                }
                Some(Fault::Shared) if images.len() > 1 => {
                    return Err(failure("not together"));
                }
                Some(Fault::Panic(step)) if step == image.step => panic!("seed {} panics", image.seed),
                _ => {}
            }
        }
        Ok(were_finite)
    }

    fn is_finite(&self, image: &FakeImage) -> Result<bool, RunnerError> {
        Ok(self.fault(image) != Some(Fault::NotFinite(image.step)))
    }

    fn decode(&self, image: &FakeImage) -> Result<RgbImage, RunnerError> {
        if self.fault(image) == Some(Fault::Decode) {
            return Err(failure("cannot decode"));
        }
        let decoding = self.memory.lock().unwrap().map_or(0, |memory| memory.decoding);
        self.allocate(decoding)?;
        self.clock.advance(DECODE_MILLIS);
        self.decodings.fetch_add(1, Ordering::SeqCst);
        let mut data = vec![image.seed as u8, image.step as u8];
        data.extend(image.state.to_le_bytes());
        Ok(RgbImage { size: image.spec.size, data })
    }

    fn preview(&self, image: &FakeImage) -> Result<Option<RgbImage>, RunnerError> {
        self.decode(image).map(Some)
    }

    fn warnings(&self, _image: &FakeImage) -> Vec<RequestWarning> {
        Vec::new()
    }

    #[allow(clippy::panic, reason = "the fault that is tested")]
    fn cached_forwards(&self, image: &FakeImage) -> usize {
        if self.fault(image) == Some(Fault::Loop) {
            panic!("a fault of the loop itself");
        }
        if image.spec.prompt == REUSING_PROMPT { image.step / 2 } else { 0 }
    }

    fn can_run_out(&self) -> bool {
        self.memory.lock().unwrap().is_some()
    }

    fn free_unused_memory(&self) -> Result<(), RunnerError> {
        self.frees.fetch_add(1, Ordering::SeqCst);
        if let Some(memory) = &mut *self.memory.lock().unwrap() {
            memory.unused = 0;
        }
        Ok(())
    }

    fn report(&self, _image: &FakeImage) -> ImageReport {
        ImageReport::default()
    }
}

/// Something that goes wrong below the model.
fn failure(message: impl Into<String>) -> RunnerError {
    candle_core::Error::Msg(message.into()).into()
}
