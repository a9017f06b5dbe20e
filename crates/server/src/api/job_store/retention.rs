//! What is left to do for a job that has ended.

use std::pin::pin;

use super::{JobStore, RunningJob};

impl JobStore {
    /// Keeps a job that has ended until it is forgotten, and `unanswered` until its outcome was delivered or can no longer be.
    pub(in crate::api) async fn keep_ended(&self, job: &RunningJob, unanswered: impl Send) {
        let mut retention = pin!(tokio::time::sleep(self.retention()));
        tokio::select! {
            () = &mut retention => {}
            () = job.settled() => {}
        }
        drop(unanswered);
        tokio::select! {
            () = retention => self.forget(&job.id),
            () = job.forgotten() => {}
        }
    }
}
