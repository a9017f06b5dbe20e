//! The emulation finds planted faults, and does what a device does.

use std::ffi::c_void;
use std::marker::PhantomData;

use half::{bf16, f16};

use super::*;
use crate::kernel::Kernel;
use crate::launch::Parameters;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Planted {
    x: u64,
    output: u64,
    count: u32,
    is_faulty: u32,
}

// SAFETY: as in planted.cu.
unsafe impl Parameters for Planted {}

unsafe extern "C" {
    fn planted_unwritten_shared(parameters: *const c_void, bytes: usize);
    fn planted_missing_barrier(parameters: *const c_void, bytes: usize);
    fn planted_early_overwrite(parameters: *const c_void, bytes: usize);
    fn planted_shuffle_is_no_barrier(parameters: *const c_void, bytes: usize);
    fn planted_blocks_race(parameters: *const c_void, bytes: usize);
    fn planted_out_of_bounds(parameters: *const c_void, bytes: usize);
    fn planted_shared_out_of_bounds(parameters: *const c_void, bytes: usize);
    fn planted_misaligned(parameters: *const c_void, bytes: usize);
    fn planted_diverged_barrier(parameters: *const c_void, bytes: usize);
    fn planted_unfinished_copy(parameters: *const c_void, bytes: usize);
    fn planted_unwritten_output(parameters: *const c_void, bytes: usize);
    fn planted_convert(parameters: *const c_void, bytes: usize);
    fn planted_warp_operations(parameters: *const c_void, bytes: usize);
    fn planted_count_threads(parameters: *const c_void, bytes: usize);
}

fn launch<P>(blocks: u32, threads: u32, parameters: P) -> Launch<'static, P> {
    // The kernel is named by who runs it.
    Launch {
        kernel: Kernel::ALL[0],
        blocks: [blocks, 1, 1],
        threads,
        shared_bytes: 0,
        parameters,
        operands: PhantomData,
    }
}

fn bytes<T: Copy, const N: usize>(values: &[T], to_bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to_bytes(*value)).collect()
}

/// Runs a planted kernel over 64 values a block.
fn run(kernel: EmulatedKernel, blocks: u32, is_faulty: bool) -> Result<Vec<u8>, KernelError> {
    let machine = Emulation::default();
    let count = 64 * blocks;
    let values: Vec<_> = (0..count).map(|index| index as f32).collect();
    let x = machine.upload(&bytes(&values, f32::to_le_bytes))?;
    let output = machine.allocate(4 * count as usize)?;
    let parameters = Planted { x: x.address(), output: output.address(), count, is_faulty: is_faulty.into() };
    machine.run("planted", kernel, &launch(blocks, 64, parameters))?;
    machine.download(&output)
}

/// The fault is found where it is, and only there.
#[track_caller]
fn is_found(kernel: EmulatedKernel, blocks: u32, what: &str) {
    run(kernel, blocks, false).unwrap();
    let error = run(kernel, blocks, true).unwrap_err().to_string();
    assert!(error.contains(what), "{error}");
}

#[test]
fn reads_of_what_nobody_has_written_are_found() {
    is_found(planted_unwritten_shared, 1, "shared memory: byte 28 is read and was never written (thread 56,0,0");
}

#[test]
fn missing_barriers_are_found() {
    is_found(planted_missing_barrier, 1, "race");
    is_found(planted_early_overwrite, 1, "race");
    is_found(planted_shuffle_is_no_barrier, 1, "race");
    is_found(planted_blocks_race, 2, "global memory: a race: thread 0 of the grid wrote byte 0");
}

#[test]
fn accesses_outside_of_memory_are_found() {
    is_found(planted_out_of_bounds, 3, "global memory: an access of 4 bytes is outside of every buffer");
    is_found(planted_shared_out_of_bounds, 1, "shared memory: an access of 4 bytes is outside of every array");
    is_found(planted_misaligned, 1, "global memory: an access of 16 bytes at byte 4 is not aligned");
}

#[test]
fn barriers_that_some_threads_never_reach_are_found() {
    is_found(planted_diverged_barrier, 1, "threads wait for ever: 16 of 64 have ended, 48 are at a barrier");
}

#[test]
fn copies_that_are_not_waited_for_are_found() {
    is_found(planted_unfinished_copy, 1, "is read and was never written");
}

#[test]
fn outputs_that_are_not_written_are_found() {
    is_found(planted_unwritten_output, 1, "4 bytes were never written");
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Conversion {
    wide: u64,
    halves: u64,
    to_half: u64,
    to_bf16: u64,
    from_half: u64,
    count: u32,
    halves_count: u32,
}

// SAFETY: as in planted.cu.
unsafe impl Parameters for Conversion {}

#[test]
fn narrow_numbers_are_those_of_the_crate_half() {
    let machine = Emulation::default();
    // All numbers of f16, the middles between them, and their neighbours.
    let halves: Vec<_> = (0..=u16::MAX).map(f16::from_bits).collect();
    let neighbours = (0..=u16::MAX).flat_map(|bits| {
        let wide = f16::from_bits(bits).to_f32();
        let middle = f32::midpoint(wide, f16::from_bits(bits.wrapping_add(1)).to_f32());
        [
            wide,
            middle,
            middle.next_up(),
            middle.next_down(),
            wide * 1.000_976_6,
            f32::from_bits(u32::from(bits) << 16 | 0x8000),
        ]
    });
    let wide: Vec<_> = neighbours.collect();
    let wide_memory = machine.upload(&bytes(&wide, f32::to_le_bytes)).unwrap();
    let halves_memory = machine.upload(&bytes(&halves, f16::to_le_bytes)).unwrap();
    let [to_half, to_bf16] = [2 * wide.len(); 2].map(|bytes| machine.allocate(bytes).unwrap());
    let from_half = machine.allocate(4 * halves.len()).unwrap();
    let parameters = Conversion {
        wide: wide_memory.address(),
        halves: halves_memory.address(),
        to_half: to_half.address(),
        to_bf16: to_bf16.address(),
        from_half: from_half.address(),
        count: wide.len() as u32,
        halves_count: halves.len() as u32,
    };
    machine.run("convert", planted_convert, &launch((wide.len() as u32).div_ceil(64), 64, parameters)).unwrap();
    let pairs = |memory| -> Vec<_> {
        machine.download(memory).unwrap().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    };
    for (wide, found) in wide.iter().zip(pairs(&to_half)) {
        let (found, expected) = (f16::from_bits(found), f16::from_f32(*wide));
        assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{wide}: {found}");
    }
    for (wide, found) in wide.iter().zip(pairs(&to_bf16)) {
        let (found, expected) = (bf16::from_bits(found), bf16::from_f32(*wide));
        assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{wide}: {found}");
    }
    let found = machine.download(&from_half).unwrap();
    for (half, found) in halves.iter().zip(found.chunks_exact(4)) {
        let found = f32::from_le_bytes([found[0], found[1], found[2], found[3]]);
        assert!(found == half.to_f32() || (found.is_nan() && half.is_nan()), "{half}: {found}");
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct WarpOperations {
    a: u64,
    b: u64,
    product: u64,
    results: u64,
}

// SAFETY: as in planted.cu.
unsafe impl Parameters for WarpOperations {}

#[test]
fn warps_multiply_vote_and_shuffle() {
    let machine = Emulation::default();
    let values = |count: usize, seed: usize| -> Vec<_> {
        (0..count).map(|index| bf16::from_f32(((index * 37 + seed) % 17) as f32 - 8.0)).collect()
    };
    let (a, b) = (values(256, 1), values(128, 5));
    let [a_memory, b_memory] = [&a, &b].map(|values| machine.upload(&bytes(values, bf16::to_le_bytes)).unwrap());
    let (product, results) = (machine.allocate(4 * 128).unwrap(), machine.allocate(4 * 32 * 6).unwrap());
    let parameters = WarpOperations {
        a: a_memory.address(),
        b: b_memory.address(),
        product: product.address(),
        results: results.address(),
    };
    machine.run("warp operations", planted_warp_operations, &launch(1, 32, parameters)).unwrap();
    let words = |memory| -> Vec<_> {
        let words = machine.download(memory).unwrap();
        words.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
    };
    for (index, found) in words(&product).into_iter().enumerate() {
        let (row, column) = (index / 8, index % 8);
        let expected: f32 = (0..16).map(|k| a[row * 16 + k].to_f32() * b[k * 8 + column].to_f32()).sum();
        assert_eq!(f32::from_bits(found), expected, "{row}, {column}");
    }
    for (lane, found) in words(&results).chunks_exact(6).enumerate() {
        let lane = lane as u32;
        let votes = (0..32).filter(|lane| lane % 3 == 0).fold(0, |votes, lane| votes | 1 << lane);
        let down = if lane + 4 < 32 { lane + 4 } else { lane };
        let up = if lane % 8 >= 2 { lane - 2 } else { lane };
        assert_eq!(found, [votes, 5, lane ^ 3, down, up, 1], "{lane}");
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Counting {
    count: u64,
}

// SAFETY: as in planted.cu.
unsafe impl Parameters for Counting {}

#[test]
fn atomics_may_meet() {
    let machine = Emulation::default();
    let count = machine.upload(&0u32.to_le_bytes()).unwrap();
    machine.run("count", planted_count_threads, &launch(5, 64, Counting { count: count.address() })).unwrap();
    assert_eq!(machine.download(&count).unwrap(), 320u32.to_le_bytes());
}

#[test]
fn parameters_of_another_size_are_refused() {
    let machine = Emulation::default();
    let error = machine.run("count", planted_convert, &launch(1, 64, Counting { count: 0 })).unwrap_err();
    assert!(error.to_string().contains("takes 48 bytes, not 8"), "{error}");
}
