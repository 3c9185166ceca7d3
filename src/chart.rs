//! A curve in Braille dots: each character is two dots wide and four high.

/// A value at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// How far along, from 0.
    pub step: u64,
    /// What it was there.
    pub value: f32,
}

const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const BLANK: u32 = 0x2800;

/// The curve over `total` steps as `height` lines of `width` characters, with the scale to the left.
/// Points without a finite value are left out.
pub fn draw(points: &[Point], total: u64, width: usize, height: usize) -> Vec<String> {
    let good = points.iter().filter(|point| point.value.is_finite());
    let values = good.clone().map(|point| point.value);
    let top = values.clone().fold(f32::MIN, f32::max);
    let bottom = values.fold(f32::MAX, f32::min);
    let mut grid = Grid::new(width, height);
    if top >= bottom {
        let place = |point: &Point| grid.place(point, total, top, bottom);
        let places: Vec<(usize, usize)> = good.map(place).collect();
        grid.line(&places);
    }
    grid.lines(top, bottom)
}

struct Grid {
    width: usize,
    height: usize,
    cells: Vec<u32>,
}

impl Grid {
    fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            cells: vec![0; width * height],
        }
    }

    fn place(&self, point: &Point, total: u64, top: f32, bottom: f32) -> (usize, usize) {
        let share = |value: f32, max: usize| {
            (value.clamp(0.0, 1.0) * (max.saturating_sub(1)) as f32).round() as usize
        };
        let across = point.step as f32 / total.max(1) as f32;
        let range = (top - bottom).max(f32::MIN_POSITIVE);
        let down = (top - point.value) / range;
        (share(across, self.width * 2), share(down, self.height * 4))
    }

    /// Sets the dots and those between them.
    fn line(&mut self, places: &[(usize, usize)]) {
        for pair in places.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let steps = x1.abs_diff(x0).max(y1.abs_diff(y0)).max(1);
            let between = |a: usize, b: usize, step: usize| {
                (a as f32 + (b as f32 - a as f32) * step as f32 / steps as f32).round() as usize
            };
            for step in 0..=steps {
                self.set(between(x0, x1, step), between(y0, y1, step));
            }
        }
        if let [(x, y)] = places {
            self.set(*x, *y);
        }
    }

    fn set(&mut self, x: usize, y: usize) {
        let at = (y / 4) * self.width + x / 2;
        if let Some(cell) = self.cells.get_mut(at).filter(|_| x / 2 < self.width) {
            *cell |= DOTS[x % 2][y % 4];
        }
    }

    fn lines(&self, top: f32, bottom: f32) -> Vec<String> {
        let label = |row: usize| match row {
            0 if top >= bottom => format!("{top:7.3}"),
            row if row + 1 == self.height && top >= bottom => format!("{bottom:7.3}"),
            _ => " ".repeat(7),
        };
        let dots = |row: usize| -> String {
            let cells = &self.cells[row * self.width..(row + 1) * self.width];
            let glyph = |cell: &u32| char::from_u32(BLANK + cell).unwrap_or(' ');
            cells.iter().map(glyph).collect()
        };
        (0..self.height)
            .map(|row| format!("{} ┤{}", label(row), dots(row)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, value: f32) -> Point {
        Point { step, value }
    }

    #[test]
    fn a_falling_loss_falls_from_the_upper_left_to_the_lower_right() {
        let points: Vec<Point> = (0..=10).map(|n| point(n, 10.0 - n as f32)).collect();
        let lines = draw(&points, 10, 10, 3);
        assert!(lines[0].starts_with(" 10.000 ┤") && lines[2].starts_with("  0.000 ┤"));
        let dots = |line: &str| -> Vec<bool> {
            let after = line.chars().skip(9);
            after.map(|c| c as u32 != BLANK).collect()
        };
        assert!(dots(&lines[0])[0] && !dots(&lines[0])[9], "{lines:?}");
        assert!(!dots(&lines[2])[0] && dots(&lines[2])[9], "{lines:?}");
    }

    #[test]
    fn odd_points_do_no_harm() {
        for points in [
            vec![],
            vec![point(5, 1.0)],
            vec![point(0, f32::NAN), point(900, f32::INFINITY)],
            vec![point(900, 1.0), point(0, 1.0)],
        ] {
            assert_eq!(draw(&points, 10, 8, 2).len(), 2);
        }
    }
}
