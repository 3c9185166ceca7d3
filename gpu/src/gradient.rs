//! Gradients by the values of a graph during a backward pass, in buffers that are used again.
//!
//! Both parts of a sum have the sum's gradient: they share one buffer until one of them changes it.

/// The gradients at hand.
#[derive(Default)]
pub(crate) struct Gradients {
    buffers: Vec<Vec<f32>>,
    /// How many values each buffer is the gradient of.
    uses: Vec<usize>,
    /// The buffer of each value's gradient.
    of: Vec<Option<usize>>,
}

impl Gradients {
    /// Forgets all gradients of a graph of so many values.
    pub(crate) fn clear(&mut self, values: usize) {
        self.uses.fill(0);
        self.of.clear();
        self.of.resize(values, None);
    }

    /// A free buffer of this length, with any content. It is nobody's before it is given.
    pub(crate) fn lend(&mut self, len: usize) -> Vec<f32> {
        let free = (0..self.buffers.len()).filter(|at| self.uses[*at] == 0);
        let best = free.min_by_key(|at| {
            let has = self.buffers[*at].capacity();
            (has < len, has.abs_diff(len))
        });
        let mut buffer = match best {
            Some(at) => {
                self.uses.swap_remove(at);
                let last = self.uses.len();
                self.rename(last, at);
                self.buffers.swap_remove(at)
            }
            None => Vec::new(),
        };
        buffer.resize(len, 0.0);
        buffer
    }

    /// What lay in one place lies in another now.
    fn rename(&mut self, from: usize, to: usize) {
        let places = self.of.iter_mut().flatten();
        places
            .filter(|place| **place == from)
            .for_each(|place| *place = to);
    }

    /// Makes this buffer the gradient of a value.
    pub(crate) fn give(&mut self, value: usize, gradient: Vec<f32>) {
        self.of[value] = Some(self.buffers.len());
        self.buffers.push(gradient);
        self.uses.push(1);
    }

    /// Makes the gradient of one value that of two others too.
    pub(crate) fn share(&mut self, from: usize, to: usize) {
        if let Some(buffer) = self.of[from] {
            self.of[to] = Some(buffer);
            self.uses[buffer] += 1;
        }
    }

    /// The gradient of a value.
    pub(crate) fn get(&self, value: usize) -> Option<&[f32]> {
        self.of[value].map(|buffer| &self.buffers[buffer][..])
    }

    /// A value's gradient taken out to be changed, where it is nobody else's.
    pub(crate) fn take(&mut self, value: usize) -> Option<Vec<f32>> {
        let buffer = self.of[value].filter(|buffer| self.uses[*buffer] == 1)?;
        self.of[value] = None;
        self.uses.swap_remove(buffer);
        let last = self.uses.len();
        self.rename(last, buffer);
        Some(self.buffers.swap_remove(buffer))
    }

    /// Says that a value's gradient is not needed any more.
    pub(crate) fn release(&mut self, value: usize) {
        if let Some(buffer) = self.of[value].take() {
            self.uses[buffer] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_gradient_stays_until_both_are_done() {
        let mut gradients = Gradients::default();
        gradients.clear(4);
        let mut buffer = gradients.lend(3);
        buffer.fill(1.0);
        gradients.give(3, buffer);
        gradients.share(3, 1);
        assert!(gradients.take(3).is_none(), "another has it too");
        gradients.release(3);
        let mut other = gradients.lend(3);
        other.fill(2.0);
        gradients.give(2, other);
        assert_eq!(gradients.get(1), Some(&[1.0; 3][..]));
        assert_eq!(gradients.take(1), Some(vec![1.0; 3]));
        assert_eq!(gradients.get(2), Some(&[2.0; 3][..]));
        gradients.release(2);
        assert_eq!(gradients.lend(2).len(), 2);
        assert!(
            gradients.buffers.is_empty(),
            "the one that was free is lent"
        );
    }
}
