//! Runs the cases of every kernel on a GPU, `cuda:0` or the number given, and prints a line a kernel.

use std::process::ExitCode;

use afterimage_cuda_kernels::device::DeviceMachine;
use afterimage_cuda_kernels::{KernelError, parity};

#[allow(clippy::print_stdout, reason = "the table is what it is for")]
fn main() -> Result<ExitCode, KernelError> {
    let number = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    let machine = DeviceMachine::new(number)?;
    println!("kernels on cuda:{number}, {}", machine.name()?);
    let mut failures = 0;
    parity::run(&machine, |report| {
        println!("{report}");
        failures += u32::from(report.failure().is_some());
    });
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
