//! A frame with two axes, in SVG.

use super::text::escaped;

/// Units of the view box: at 400 pixels one of them is about a pixel, so that its text can be read there.
pub(super) const WIDTH: f64 = 360.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 34.0;

/// What an axis shows.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// From and to round numbers around these values, with about `marks` marks.
    pub(super) fn around(values: impl IntoIterator<Item = f64>, marks: f64) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (low, high) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let span = if high > low { high - low } else { high.abs().max(1.0) * 0.1 };
        let rough = span / marks;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(decade * 10.0);
        let low = (low / step + 1e-9).floor() * step;
        let high = (high / step - 1e-9).ceil() * step;
        Self { low, high: high.max(low + step), step }
    }

    fn marks(self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(move |mark| self.low + mark as f64 * self.step)
    }

    fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn label(self, value: f64) -> String {
        let digits = (-self.step.log10() + 1e-9).ceil().clamp(0.0, 6.0) as usize;
        format!("{value:.digits$}")
    }
}

/// A graph that is drawn into.
pub(super) struct Graph {
    x: Axis,
    y: Axis,
    height: f64,
    body: String,
}

impl Graph {
    /// With marks and the axes' names.
    pub(super) fn new(x: (Axis, &str), y: (Axis, &str), height: f64) -> Self {
        let ((x, x_name), (y, y_name)) = (x, y);
        let mut graph = Self { x, y, height, body: String::new() };
        let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
        for mark in y.marks() {
            let at = graph.y_of(mark);
            graph.body += &format!(
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT - 4.0,
                at + 3.5,
                y.label(mark)
            );
        }
        for mark in x.marks() {
            let at = graph.x_of(mark);
            graph.body += &format!(
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                bottom + 13.0,
                x.label(mark)
            );
        }
        let (middle, centre) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        graph.body += &format!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\n\
             <text x=\"9\" y=\"{centre:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 9 {centre:.1})\">{y_name}</text>\n",
            height - 5.0,
        );
        graph
    }

    pub(super) fn x_of(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - RIGHT - LEFT)
    }

    pub(super) fn y_of(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.share(value) * (self.height - BOTTOM - TOP)
    }

    /// A line through these points.
    pub(super) fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let places: Vec<_> = points.iter().map(|(x, y)| format!("{:.1} {:.1}", self.x_of(*x), self.y_of(*y))).collect();
        self.body += &format!("<polyline class=\"{class}\" points=\"{}\"/>\n", places.join(" "));
    }

    /// A point with a text beside it, and one for whoever points at it.
    pub(super) fn point(&mut self, (x, y): (f64, f64), class: &str, label: &str, title: &str) {
        let (x, y) = (self.x_of(x), self.y_of(y));
        self.body += &format!(
            "<g class=\"{class}\"><title>{}</title><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/><text class=\"name\" x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>\n",
            escaped(title),
            x,
            y - 7.0,
            escaped(label)
        );
    }

    /// Anything else, in the graph's units.
    pub(super) fn add(&mut self, shape: &str) {
        self.body += shape;
    }

    /// The element.
    pub(super) fn finish(self, label: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            self.height,
            escaped(label),
            self.body
        )
    }
}
