//! Settings that no other beats.

use crate::row::Row;

/// Of every row, whether it is on the Pareto front: none of the others is at least as fast and as like, and better in one of the two.
/// Speed is what was measured, or else what the blocks allow. The first row, the uncached pictures, beats whatever is not faster, and
/// is not on the front itself; nor are rows without `likeness`.
pub fn front(rows: &[Row], likeness: impl Fn(&Row) -> Option<f64>) -> Vec<bool> {
    let speed = |row: &Row| row.speedup.unwrap_or(row.speedup_bound);
    let point = |(index, row): (usize, &Row)| match index {
        0 => Some((1.0, f64::INFINITY)),
        _ => Some((speed(row), likeness(row)?)),
    };
    let points: Vec<_> = rows.iter().enumerate().map(point).collect();
    let beats = |one: (f64, f64), other: (f64, f64)| one.0 >= other.0 && one.1 >= other.1 && one != other;
    let is_beaten = |point: (f64, f64)| points.iter().flatten().any(|other| beats(*other, point));
    points.iter().enumerate().map(|(index, point)| index > 0 && point.is_some_and(|point| !is_beaten(point))).collect()
}
