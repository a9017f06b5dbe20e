//! Progress bars for the files of a model that comes from the hub.

use std::sync::{Mutex, PoisonError};

use afterimage_runner::FetchProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar per file, one after the other; finished ones stay.
#[derive(Default)]
pub(super) struct DownloadBars {
    /// The file on its way.
    current: Mutex<Option<(String, ProgressBar)>>,
}

impl FetchProgress for DownloadBars {
    fn fetched(&self, file: &str, done_bytes: u64, total_bytes: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = match &*current {
            Some((name, bar)) if name == file => bar.clone(),
            _ => {
                let style = ProgressStyle::with_template("{bar:20} {bytes:>10}/{total_bytes:10} {eta:>4} {msg}")
                    .expect("the template is a constant that indicatif understands");
                let bar = ProgressBar::new(total_bytes).with_style(style).with_message(file.to_owned());
                // The rate, and with it the time left, is that of what is fetched now.
                bar.set_position(done_bytes);
                bar.reset_eta();
                *current = Some((file.to_owned(), bar.clone()));
                bar
            }
        };
        bar.set_position(done_bytes);
        if done_bytes == total_bytes {
            bar.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_bar_until_it_is_there() {
        let bars = DownloadBars::default();
        let current = || bars.current.lock().unwrap().as_ref().map(|(name, bar)| (name.clone(), bar.clone())).unwrap();
        bars.fetched("vae/config.json", 20, 100);
        let (_, first) = current();
        bars.fetched("vae/config.json", 100, 100);
        assert_eq!((first.position(), first.length(), first.is_finished()), (100, Some(100), true));
        bars.fetched("model_index.json", 0, 10);
        let (name, second) = current();
        assert_eq!((name.as_str(), second.position(), second.is_finished()), ("model_index.json", 0, false));
    }
}
