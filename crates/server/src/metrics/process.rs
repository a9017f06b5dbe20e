//! The program itself: what it was built from, and what its process takes.
//!
//! The process' metrics have the names that every Prometheus client library gives them, so that ready-made
//! dashboards and alerts find them. They exist on Linux.

use super::catalog::{Catalog, Family};
use crate::build_info;

/// What the collector of the `prometheus` crate exports.
#[cfg(target_os = "linux")]
const PROCESS: [(&str, Family); 7] = [
    family("counter", "process_cpu_seconds_total", "seconds", "CPU time of the process, user and system"),
    family("gauge", "process_open_fds", "files", "Open files and connections of the process"),
    family("gauge", "process_max_fds", "files", "Files and connections that the process may have open"),
    family("gauge", "process_virtual_memory_bytes", "bytes", "Address space of the process"),
    family("gauge", "process_resident_memory_bytes", "bytes", "Memory of the process that is in RAM"),
    family("gauge", "process_start_time_seconds", "seconds", "Start of the process, in seconds since 1970"),
    family("gauge", "process_threads", "threads", "Threads of the process"),
];

#[cfg(target_os = "linux")]
const fn family(
    kind: &'static str,
    name: &'static str,
    unit: &'static str,
    help: &'static str,
) -> (&'static str, Family) {
    (kind, Family { name, unit, labels: &[], help })
}

/// Registers them; they keep themselves up to date.
pub(super) fn register(catalog: &mut Catalog) {
    let info = catalog.gauges(Family {
        name: "afterimage_build_info",
        unit: "always 1",
        labels: &[
            ("version", "of the release"),
            ("commit", "its first digits, or unknown"),
            ("features", "cargo features with commas between them, or none"),
        ],
        help: "What the program was built from",
    });
    info.with_label_values(&[build_info::VERSION, build_info::COMMIT, build_info::FEATURES]).set(1);
    #[cfg(target_os = "linux")]
    catalog.collector(Box::new(prometheus::process_collector::ProcessCollector::for_self()), &PROCESS);
}
