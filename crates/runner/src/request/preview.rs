//! Pictures of an image on its way, decoded from what the last step took for the clean latents.

use crate::request::RgbImage;

/// How many previews of every image a request wants: 0 to 3, as in OpenAI's `partial_images`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PreviewCount(usize);

/// One preview.
#[derive(Debug)]
pub struct Preview {
    /// Index of the image in its request.
    pub image: usize,
    /// Which of the image's previews, from 0.
    pub number: usize,
    /// Steps the image has made.
    pub step: usize,
    /// Pixels.
    pub pixels: RgbImage,
}

impl PreviewCount {
    /// The most previews of an image.
    pub const MAX: usize = 3;

    /// `None` above [`Self::MAX`].
    pub fn new(count: usize) -> Option<Self> {
        (count <= Self::MAX).then_some(Self(count))
    }

    /// The count.
    pub fn get(self) -> usize {
        self.0
    }

    /// The number of the preview that is due after `step` of `steps`, if one is: previews divide the
    /// run evenly, and none comes before the first step or with the finished picture. Where there are
    /// fewer steps than that takes, there are fewer previews.
    pub(crate) fn due(self, step: usize, steps: usize) -> Option<usize> {
        self.due_steps(steps).iter().position(|due| *due == step)
    }

    /// How many previews an image of `steps` steps has.
    pub(crate) fn of_run(self, steps: usize) -> usize {
        self.due_steps(steps).len()
    }

    fn due_steps(self, steps: usize) -> Vec<usize> {
        let due_steps = (1..=self.0).map(|part| steps * part / (self.0 + 1));
        let mut distinct: Vec<_> = due_steps.filter(|due| *due > 0).collect();
        distinct.dedup();
        distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_steps(count: usize, steps: usize) -> Vec<usize> {
        let count = PreviewCount::new(count).unwrap();
        assert_eq!(count.of_run(steps), (0..=steps).filter(|step| count.due(*step, steps).is_some()).count());
        (0..=steps).filter(|step| count.due(*step, steps).is_some()).collect()
    }

    #[test]
    fn previews_divide_the_run_evenly() {
        assert_eq!(due_steps(0, 8), Vec::<usize>::new());
        assert_eq!(due_steps(1, 8), [4]);
        assert_eq!(due_steps(3, 8), [2, 4, 6]);
        assert_eq!(due_steps(3, 50), [12, 25, 37]);
        assert_eq!(PreviewCount::new(3).unwrap().due(6, 8), Some(2));
        assert_eq!(PreviewCount::new(4), None);
    }

    #[test]
    fn short_runs_have_fewer() {
        assert_eq!(due_steps(3, 1), Vec::<usize>::new());
        assert_eq!(due_steps(3, 2), [1]);
        assert_eq!(due_steps(3, 3), [1, 2]);
        assert_eq!(PreviewCount::new(3).unwrap().due(1, 2), Some(0));
    }
}
