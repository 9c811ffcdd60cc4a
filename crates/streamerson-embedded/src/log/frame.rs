//! A frame: the records of one commit under one checksum. It is there as a whole, or not at all.
//!
//! ```text
//! length u32 | body crc u32 | mark u32 | body
//! ```
//!
//! Little-endian. The mark is the crc of the segment's salt, the frame's offset, the length and the body crc. It binds
//! a frame to its place: neither stale bytes nor a payload that quotes a log can pass for a frame. A length of zero is
//! the end.

use std::ops::Range;

/// Bytes before the body.
pub(crate) const HEADER: usize = 12;

/// The head of a frame, as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the body.
    pub(crate) length: u32,
    crc: u32,
}

impl Header {
    /// The header in `bytes`, if the mark says that there is a frame at `offset` of the segment with `salt`.
    pub(crate) fn read(bytes: &[u8], salt: u64, offset: u64) -> Option<Header> {
        let word = |range: Range<usize>| {
            let bytes: [u8; 4] = bytes.get(range)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let (length, crc) = (word(0..4)?, word(4..8)?);
        let whole = length > 0 && word(8..12)? == mark(salt, offset, length, crc);
        whole.then_some(Header { length, crc })
    }

    /// Whether `body` is what was written.
    pub(crate) fn verify(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32c::crc32c(body) == self.crc
    }

    /// Bytes of the whole frame.
    pub(crate) fn total(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }
}

/// Writes the header in front of the body in `frame`, whose first [`HEADER`] bytes are left free for it.
pub(crate) fn seal(frame: &mut [u8], salt: u64, offset: u64) {
    let (head, body) = frame.split_at_mut(HEADER);
    let (length, crc) = (body.len() as u32, crc32c::crc32c(body));
    head[0..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    head[8..12].copy_from_slice(&mark(salt, offset, length, crc).to_le_bytes());
}

/// The frame at `offset` that has this `body`.
pub(crate) fn again(body: &[u8], salt: u64, offset: u64) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend_from_slice(body);
    seal(&mut frame, salt, offset);
    frame
}

fn mark(salt: u64, offset: u64, length: u32, crc: u32) -> u32 {
    let mut bytes = [0; 24];
    bytes[0..8].copy_from_slice(&salt.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..20].copy_from_slice(&length.to_le_bytes());
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    crc32c::crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_only_valid_where_it_was_written() {
        let frame = again(b"body", 7, 64);
        let header = Header::read(&frame, 7, 64).unwrap();
        assert!(header.verify(&frame[HEADER..]));
        assert_eq!(Header::read(&frame, 7, 65), None);
        assert_eq!(Header::read(&frame, 8, 64), None);
    }

    #[test]
    fn every_single_bit_flip_is_noticed() {
        let frame = again(b"some body", 7, 64);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let whole = Header::read(&damaged, 7, 64)
                .is_some_and(|header| header.verify(&damaged[HEADER..]));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(Header::read(&[0; 64], 7, 64), None);
    }
}
