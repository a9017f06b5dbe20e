//! Freed memory is used again without asking the system for it, and goes back when it is told to. A program of its own: what the
//! allocator does is decided before there are threads.

fn main() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    kept_memory::is_used_again_and_goes_back();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod kept_memory {
    use std::fs::read_to_string;

    use afterimage_kernels::{keep_freed_memory, return_freed_memory};

    const BLOCK_BYTES: usize = 24 << 20;
    const BLOCKS: usize = 4;
    const PAGE_BYTES: usize = 4096;

    /// Pages that the system has given to this process.
    fn page_faults() -> usize {
        let status = read_to_string("/proc/self/stat").expect("Linux has it");
        // Behind the name in brackets, the eighth.
        let behind_name = status.rsplit(')').next().expect("there is a name");
        behind_name.split_whitespace().nth(7).and_then(|count| count.parse().ok()).expect("a number")
    }

    fn resident_bytes() -> usize {
        let sizes = read_to_string("/proc/self/statm").expect("Linux has it");
        let pages: usize = sizes.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number");
        pages * PAGE_BYTES
    }

    fn work() {
        let blocks: Vec<_> = (0..BLOCKS).map(|_| vec![1u8; BLOCK_BYTES]).collect();
        std::hint::black_box(&blocks);
    }

    pub(super) fn is_used_again_and_goes_back() {
        keep_freed_memory();
        // As a server's: steps are not made by the first thread.
        std::thread::spawn(work).join().expect("it ends");
        let before = page_faults();
        (0..3).for_each(|_| std::thread::spawn(work).join().expect("it ends"));
        let faults = page_faults() - before;
        assert!(faults * PAGE_BYTES < BLOCK_BYTES, "{faults} pages for blocks that were there");

        let held = resident_bytes();
        return_freed_memory();
        let left = resident_bytes();
        assert!(left + BLOCKS * BLOCK_BYTES / 2 < held, "{left} bytes of {held}");
    }
}
