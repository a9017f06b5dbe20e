//! Memory that the allocator holds although nothing uses it: for the next step, or no longer.

/// Has the allocator keep what is freed for what is allocated next, until [`return_freed_memory`]. To be called before
/// there are other threads.
///
/// A step allocates what the step before it freed, and a decoder feature maps of hundreds of megabytes. The GNU C library
/// asks the system for blocks of more than 32 MiB each time, and gives the end of its heaps back whenever it is free: pages that
/// the kernel has to clear again, a tenth of the time of decoding a picture. It also has a heap for every thread, none of which
/// uses what another one has freed; blocks as large as ours do not fit in these. So there is one heap, and it keeps what it has.
/// Other allocators are left as they are.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const TRIM_THRESHOLD: std::ffi::c_int = -1;
        const MMAP_THRESHOLD: std::ffi::c_int = -3;
        const ARENA_MAX: std::ffi::c_int = -8;
        /// Larger blocks are weights.
        const LARGEST_KEPT: std::ffi::c_int = 1 << 30;
        // SAFETY: `mallopt` has this signature, and refuses what it does not know or finds too much, as older versions do more than
        // 32 MiB for the second one.
        unsafe {
            mallopt(ARENA_MAX, 1);
            if mallopt(MMAP_THRESHOLD, LARGEST_KEPT) == 0 {
                mallopt(MMAP_THRESHOLD, 32 << 20);
            }
            mallopt(TRIM_THRESHOLD, std::ffi::c_int::MAX);
        }
    }
}

/// Gives freed memory back to the system, as far as the allocator can.
///
/// The GNU C library keeps freed blocks for later allocations. Once a model has been dropped they are
/// most of its weights. Other allocators return such blocks by themselves; there this does nothing.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` (glibc 2.8 and newer) has this signature, takes any padding, locks what it touches and
    // gives up only pages that hold nothing but freed blocks.
    unsafe {
        malloc_trim(0);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn malloc_trim(padding: usize) -> std::ffi::c_int;
    fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    const BLOCK_BYTES: usize = 1 << 20;
    const BLOCKS: usize = 256;

    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn freed_blocks_leave_the_process() {
        // A large block that comes and goes makes the allocator keep blocks of up to its size.
        drop(vec![1u8; 30 << 20]);
        let blocks: Vec<_> = (0..BLOCKS).map(|_| vec![1u8; BLOCK_BYTES]).collect();
        // It lies after them, so that the heap cannot shrink from its end.
        let last = vec![1u8; BLOCK_BYTES];
        let held = resident_bytes();
        drop(blocks);
        return_freed_memory();
        let left = resident_bytes();
        assert!(left + BLOCKS * BLOCK_BYTES / 2 < held, "{left} bytes of {held}");
        assert_eq!(last[BLOCK_BYTES - 1], 1);
    }
}
