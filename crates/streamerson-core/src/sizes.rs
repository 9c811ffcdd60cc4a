//! How large the next message may be, by the sizes seen of late.

/// The sizes of late: a large one is remembered for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    /// What the next message may be like, once there was one.
    expected: Option<usize>,
}

impl Sizes {
    /// Notes the size of a message, where `room` is all that messages may take.
    pub(crate) fn seen(&mut self, size: usize, room: usize) {
        // The first may be smaller than most.
        let expected = self.expected.unwrap_or(room / 16);
        self.expected = Some(size.max(expected - expected.div_ceil(8)));
    }

    /// How many messages fit into `free` bytes; `None` before the first was seen.
    pub(crate) fn fitting(&self, free: usize) -> Option<usize> {
        self.expected.map(|expected| free / expected.max(1))
    }
}
