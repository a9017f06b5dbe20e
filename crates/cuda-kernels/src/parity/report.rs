//! What came of the cases of a kernel.

use std::fmt;

use crate::error::KernelError;

/// Of one kernel.
#[derive(Debug)]
pub struct Report {
    kernel: &'static str,
    cases: usize,
    worst: f64,
    failure: Option<String>,
}

impl Report {
    pub(crate) fn new(kernel: &'static str) -> Self {
        Self { kernel, cases: 0, worst: 0.0, failure: None }
    }

    /// Counts a case: its largest difference, as a part of what rounding explains, or why there is none. The first failure
    /// is kept.
    pub(crate) fn add(&mut self, case: &dyn fmt::Debug, outcome: Result<f64, KernelError>) {
        self.cases += 1;
        let failure = match outcome {
            Ok(difference) => {
                self.worst = if difference.is_nan() { f64::INFINITY } else { self.worst.max(difference) };
                (difference.is_nan() || difference > 1.0).then(|| format!("{difference:.2} of what rounding explains"))
            }
            Err(error) => Some(chain(&error)),
        };
        if let Some(failure) = failure {
            self.failure.get_or_insert_with(|| format!("{failure}; case: {case:?}"));
        }
    }

    /// What went wrong first, if anything.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cases, worst, failure } = self;
        write!(f, "{kernel:<24} {cases:>4} cases  worst {worst:>5.2} of the tolerance  ")?;
        match failure {
            Some(failure) => write!(f, "FAILED: {failure}"),
            None => write!(f, "ok"),
        }
    }
}
