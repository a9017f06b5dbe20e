//! Times attention on a GPU, `cuda:0` or the number given, in tiles of many shapes: a line each.

use afterimage_cuda_kernels::{KernelError, tuning};

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn main() -> Result<(), KernelError> {
    let number = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    tuning::time_attention(number, |timing| println!("{timing}"))
}
