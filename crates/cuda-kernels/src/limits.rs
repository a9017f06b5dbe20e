//! What devices differ in.

/// What a device has, as far as the choice of a kernel goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of shared memory that a block may have.
    pub shared_bytes: usize,
    /// Multiprocessors.
    pub processors: usize,
}
