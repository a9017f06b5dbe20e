//! What goes where in a device's memory, and how many rows are left room for.

use std::fmt;

use super::{BucketFootprint, Bytes, Capacity, Footprint};
use crate::error::RunnerError;

/// What the libraries of a GPU take once they are used: handles and their work space, and kernels.
const LIBRARY_BYTES: u64 = 512 << 20;

/// The settings that memory is spent by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// As asked for.
    pub(crate) max_batch_rows: Option<usize>,
    /// Where nothing was asked for.
    pub(crate) default_batch_rows: usize,
    /// Of the smallest forward that default requests need.
    pub(crate) least_rows: usize,
    pub(crate) cache_memory_bytes: u64,
    pub(crate) prompt_cache_bytes: u64,
}

/// A device with a model on it.
#[derive(Debug, Clone)]
pub(crate) struct LoadedDevice {
    /// Its name.
    pub(crate) device: String,
    /// That compute there, with a batch each.
    pub(crate) workers: usize,
    pub(crate) capacity: Capacity,
    pub(crate) footprint: Footprint,
}

/// The memory of one device, and what a server needs of it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget {
    device: String,
    workers: usize,
    capacity: Capacity,
    footprint: Footprint,
    cache_state: u64,
    prompts: u64,
    /// Of one worker.
    rows: usize,
}

/// Checks the settings against all devices. The rows of a batch, and what each device's memory is used for.
pub(crate) fn settle(devices: Vec<LoadedDevice>, limits: Limits) -> Result<(usize, Vec<MemoryBudget>), RunnerError> {
    let mut rows = limits.max_batch_rows.unwrap_or(limits.default_batch_rows);
    let mut budgets = Vec::with_capacity(devices.len());
    for LoadedDevice { device, workers, capacity, footprint } in devices {
        let mut budget = MemoryBudget {
            device,
            workers,
            capacity,
            footprint,
            cache_state: limits.cache_memory_bytes,
            prompts: limits.prompt_cache_bytes,
            rows,
        };
        let most_rows = budget.most_rows();
        if capacity.is_binding && most_rows < rows {
            if most_rows < limits.least_rows {
                budget.rows = limits.least_rows;
                return Err(budget.too_large());
            }
            if limits.max_batch_rows.is_some() {
                return Err(budget.too_many_rows(most_rows));
            }
            rows = most_rows;
        }
        budgets.push(budget);
    }
    budgets.iter_mut().for_each(|budget| budget.rows = rows);
    Ok((rows, budgets))
}

impl MemoryBudget {
    /// Says what goes where.
    pub(crate) fn log(&self) {
        let device = &self.device;
        if self.is_exceeded() {
            tracing::warn!(device, "the memory may not be enough if all of it is asked for at once: {self}");
        } else {
            tracing::info!(device, "memory {self}");
        }
    }

    /// It is not enough if everything is used at once.
    fn is_exceeded(&self) -> bool {
        self.needed() > self.capacity.bytes
    }

    /// Bytes if everything is used at once. Limits may be any number.
    fn needed(&self) -> u64 {
        self.fixed().saturating_add(self.work())
    }

    /// Bytes that do not depend on the rows of a batch.
    fn fixed(&self) -> u64 {
        let weights = self.footprint.weight_bytes() + self.widened();
        (self.taken() + weights).saturating_add(self.cache_state).saturating_add(self.prompts)
    }

    /// Bytes of the driver, its libraries and other programs.
    fn taken(&self) -> u64 {
        self.capacity.taken + if self.capacity.records { LIBRARY_BYTES } else { 0 }
    }

    /// Bytes of the matrix that each worker has widened at a time, once for its recordings and once beside them.
    fn widened(&self) -> u64 {
        self.workers as u64 * (self.footprint.widened + self.recorded(self.footprint.widened))
    }

    /// Bytes of the work of all workers at the worst moment. A worker does one thing at a time, and recorded blocks keep their
    /// memory meanwhile.
    fn work(&self) -> u64 {
        let forward = self.rows as u64 * self.row();
        self.workers as u64 * (self.recorded(forward) + forward.max(self.other_work()))
    }

    /// Bytes of the recordings of a forward that takes so many.
    fn recorded(&self, forward: u64) -> u64 {
        if self.capacity.records { forward } else { 0 }
    }

    /// Bytes of what a worker does between forwards.
    fn other_work(&self) -> u64 {
        self.decode().max(self.footprint.weights_on_demand)
    }

    /// Bytes while a picture of the largest size is decoded.
    fn decode(&self) -> u64 {
        self.footprint.buckets.iter().map(|bucket| bucket.decode).max().unwrap_or(0)
    }

    /// The bucket whose rows take most.
    fn largest(&self) -> Option<&BucketFootprint> {
        self.footprint.buckets.iter().max_by_key(|bucket| bucket.row)
    }

    /// Bytes of one of its rows in a forward.
    fn row(&self) -> u64 {
        self.largest().map_or(0, |bucket| bucket.row)
    }

    /// Rows that every worker can have of every size.
    fn most_rows(&self) -> usize {
        let left = self.capacity.bytes.saturating_sub(self.fixed()) / self.workers.max(1) as u64;
        let other = self.other_work();
        let forward = match left.checked_sub(other) {
            None => 0,
            Some(_) if !self.capacity.records => left,
            // As much as its recordings, or less than what is done between forwards.
            Some(beside) => {
                if left / 2 >= other {
                    left / 2
                } else {
                    beside
                }
            }
        };
        let rows = forward.checked_div(self.row()).unwrap_or(u64::MAX);
        usize::try_from(rows).unwrap_or(usize::MAX)
    }

    fn too_many_rows(&self, most_rows: usize) -> RunnerError {
        let message = format!(
            "{} do not fit into the memory of {}, {most_rows} do ({self}); lower it, --cache-memory-bytes or \
             --prompt-cache-bytes, or leave out large --buckets",
            self.rows_of_largest(),
            self.device
        );
        RunnerError::Memory { option: "max-batch-rows", message }
    }

    fn too_large(&self) -> RunnerError {
        let mut ways = vec!["lower --cache-memory-bytes or --prompt-cache-bytes", "leave out large --buckets"];
        if self.workers > 1 {
            ways.push("name the device once in --devices");
        }
        ways.push("take weights in fp8 or GGUF");
        if self.footprint.weights.iter().any(|(component, _)| component.starts_with("text_encoder")) {
            // Only a GPU has a device beside it.
            ways.push(match self.capacity.records {
                true => "keep text encoders elsewhere (--offload text-encoders, --text-encoder-device cpu)",
                false => "load text encoders when they are needed (--offload text-encoders)",
            });
        }
        let ways = ways.join(", or ");
        if self.capacity.is_chosen {
            let message =
                format!("the model does not fit into so much of {} ({self}); raise it, or {ways}", self.device);
            return RunnerError::Memory { option: "device-memory-bytes", message };
        }
        let reason = format!("its memory is too small for the model ({self}); {ways}");
        RunnerError::Device { device: self.device.clone(), reason }
    }

    fn rows_of_largest(&self) -> String {
        let rows = if self.rows == 1 { "row" } else { "rows" };
        match self.largest() {
            Some(bucket) => format!("{} {rows} of {}", self.rows, bucket.size),
            None => format!("{} {rows}", self.rows),
        }
    }
}

/// What goes where, in a line.
impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, footprint, .. } = self;
        write!(f, "of {}: ", Bytes(capacity.bytes))?;
        for (component, bytes) in &footprint.weights {
            write!(f, "{component} {}, ", Bytes(*bytes))?;
        }
        if footprint.widened > 0 {
            write!(f, "matrices while they are widened {}, ", Bytes(self.widened()))?;
        }
        if self.taken() > 0 {
            write!(f, "driver and other programs {}, ", Bytes(self.taken()))?;
        }
        write!(f, "cache state up to {}, prompts up to {}, ", Bytes(self.cache_state), Bytes(self.prompts))?;
        let forward = self.rows as u64 * self.row();
        let workers = if self.workers == 1 { String::new() } else { format!(" for each of {} workers", self.workers) };
        write!(f, "{} about {}", self.rows_of_largest(), Bytes(forward + self.recorded(forward)))?;
        if footprint.weights_on_demand > 0 {
            write!(f, " or offloaded text encoders {}", Bytes(footprint.weights_on_demand))?;
        }
        write!(f, " or decoding about {}{workers}; ", Bytes(self.decode()))?;
        let needed = self.needed();
        match capacity.bytes.checked_sub(needed) {
            Some(left) => write!(f, "{} left", Bytes(left)),
            None => write!(f, "{} too much", Bytes(needed - capacity.bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Size;

    const GIB: u64 = 1 << 30;

    /// FLUX.1 dev in bf16 with its encoders.
    fn flux() -> Footprint {
        let bucket = |side, row, decode| BucketFootprint { size: Size { width: side, height: side }, row, decode };
        Footprint {
            weights: [("text_encoder_2", 9), ("transformer", 22)]
                .map(|(name, gib)| (name.to_owned(), gib * GIB))
                .into(),
            weights_on_demand: 0,
            widened: 0,
            buckets: vec![bucket(512, GIB / 8, GIB / 4), bucket(1024, GIB / 2, GIB)],
        }
    }

    fn gpu(gib: u64) -> Capacity {
        Capacity { bytes: gib * GIB, taken: GIB / 2, is_binding: true, is_chosen: false, records: true }
    }

    const LIMITS: Limits = Limits {
        max_batch_rows: None,
        default_batch_rows: 32,
        least_rows: 1,
        cache_memory_bytes: 2 * GIB,
        prompt_cache_bytes: 0,
    };

    fn on(capacity: Capacity, workers: usize, footprint: Footprint) -> LoadedDevice {
        LoadedDevice { device: "cuda:0".to_owned(), workers, capacity, footprint }
    }

    fn rows(capacity: Capacity, footprint: Footprint, limits: Limits) -> Result<usize, String> {
        let settled = settle(vec![on(capacity, 1, footprint)], limits);
        settled.map(|(rows, _)| rows).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_that_nobody_asked_for_are_as_many_as_fit() {
        for (gib, expected) in [(80, 32), (66, 32), (65, 31), (40, 6), (36, 2)] {
            assert_eq!(rows(gpu(gib), flux(), LIMITS), Ok(expected), "{gib} GiB");
        }
        // The other workers of the device have as many.
        let two = settle(vec![on(gpu(80), 2, flux())], LIMITS).unwrap();
        assert_eq!(two.0, 23);
    }

    #[test]
    fn rows_that_were_asked_for_are_refused_if_they_do_not_fit() {
        let asked = |rows| Limits { max_batch_rows: Some(rows), ..LIMITS };
        assert_eq!(rows(gpu(80), flux(), asked(46)), Ok(46));
        let error = rows(gpu(80), flux(), asked(47)).unwrap_err();
        assert_eq!(
            error,
            "max-batch-rows: 47 rows of 1024x1024 do not fit into the memory of cuda:0, 46 do (of 80.0 GiB: \
             text_encoder_2 9.0 GiB, transformer 22.0 GiB, driver and other programs 1.0 GiB, cache state up to 2.0 GiB, \
             prompts up to 0 bytes, 47 rows of 1024x1024 about 47.0 GiB or decoding about 1.0 GiB; 1.0 GiB too much); lower \
             it, --cache-memory-bytes or --prompt-cache-bytes, or leave out large --buckets"
        );
    }

    #[test]
    fn a_device_that_is_too_small_for_the_model_is_refused() {
        let error = rows(gpu(24), flux(), LIMITS).unwrap_err();
        assert!(
            error.starts_with("device cuda:0: its memory is too small for the model (of 24.0 GiB: text_encoder_2"),
            "{error}"
        );
        assert!(error.contains("1 row of 1024x1024 about 1.0 GiB") && error.contains("11.5 GiB too much"), "{error}");
        assert!(error.contains("--text-encoder-device cpu") && !error.contains("--devices"), "{error}");
        // Guidance needs two rows at least.
        let guided = Limits { least_rows: 2, ..LIMITS };
        assert_eq!((rows(gpu(35), flux(), guided).is_err(), rows(gpu(36), flux(), guided)), (true, Ok(2)));
        // Decoding, or encoders that come and go, may be what does not fit.
        let mut decoding = flux();
        decoding.buckets[1].decode = 10 * GIB;
        let found = [44, 45, 50, 54, 55].map(|gib| rows(gpu(gib), decoding.clone(), LIMITS).ok());
        assert_eq!(found, [None, Some(2), Some(12), Some(20), Some(21)]);
        let offloaded = Footprint { weights_on_demand: 10 * GIB, ..flux() };
        let told = rows(gpu(43), offloaded, LIMITS).unwrap_err();
        assert!(told.contains(" or offloaded text encoders 10.0 GiB or decoding about 1.0 GiB"), "{told}");
    }

    #[test]
    fn a_limit_that_is_too_small_for_the_model_is_named() {
        let chosen = Capacity { is_chosen: true, ..gpu(24) };
        let error = rows(chosen, flux(), LIMITS).unwrap_err();
        let expected =
            "device-memory-bytes: the model does not fit into so much of cuda:0 (of 24.0 GiB: text_encoder_2";
        assert!(error.starts_with(expected) && error.contains("; raise it, or lower --cache-memory-bytes"), "{error}");
        // The processor is no device beside itself, and a model without text encoders has none to keep elsewhere.
        let machine = Capacity { records: false, ..chosen };
        let error = rows(machine, flux(), LIMITS).unwrap_err();
        assert!(error.ends_with("when they are needed (--offload text-encoders)"), "{error}");
        let mut small = flux();
        small.weights.remove(0);
        let error = settle(vec![on(machine, 2, small)], LIMITS).unwrap_err().to_string();
        assert!(error.ends_with("once in --devices, or take weights in fp8 or GGUF"), "{error}");
    }

    #[test]
    fn limits_beyond_any_memory_are_too_large() {
        for limits in [
            Limits { cache_memory_bytes: u64::MAX, ..LIMITS },
            Limits { prompt_cache_bytes: u64::MAX, cache_memory_bytes: u64::MAX, ..LIMITS },
        ] {
            let error = rows(gpu(80), flux(), limits).unwrap_err();
            assert!(error.contains("17179869104.0 GiB too much"), "{error}");
        }
    }

    #[test]
    fn matrices_that_are_widened_have_room() {
        let narrow = |widened| Footprint { widened, ..flux() };
        // Once for the recordings, once beside them.
        for (widened, expected) in [(0, 6), (GIB / 4, 5), (GIB, 4)] {
            assert_eq!(rows(gpu(40), narrow(widened), LIMITS), Ok(expected), "{widened} bytes");
        }
        let (_, budgets) = settle(vec![on(gpu(80), 2, narrow(GIB))], LIMITS).unwrap();
        assert!(budgets[0].to_string().contains("matrices while they are widened 4.0 GiB, "), "{}", budgets[0]);
    }

    #[test]
    fn a_machine_is_only_warned_of() {
        let machine = Capacity { bytes: 16 * GIB, taken: 0, is_binding: false, is_chosen: false, records: false };
        let asked = Limits { max_batch_rows: Some(64), ..LIMITS };
        let (rows, budgets) = settle(vec![on(machine, 1, flux())], asked).unwrap();
        assert!(rows == 64 && budgets[0].is_exceeded());
        // A forward takes half as much where nothing is recorded.
        assert!(budgets[0].to_string().contains("64 rows of 1024x1024 about 32.0 GiB"), "{}", budgets[0]);
        let large = Capacity { bytes: 65 * GIB, ..machine };
        assert!(!settle(vec![on(large, 1, flux())], asked).unwrap().1[0].is_exceeded());
    }

    #[test]
    fn the_smallest_device_decides_for_all() {
        let devices = [80, 40, 66].map(|gib| on(gpu(gib), 1, flux()));
        let (rows, budgets) = settle(devices.to_vec(), LIMITS).unwrap();
        assert_eq!(rows, 6);
        assert!(budgets.iter().all(|budget| budget.rows == 6 && !budget.is_exceeded()));
    }

    #[test]
    fn a_model_that_takes_nothing_has_all_rows() {
        assert_eq!(rows(gpu(4), Footprint::default(), LIMITS), Ok(32));
    }
}
