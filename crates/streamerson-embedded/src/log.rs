//! The append log: checksummed frames in segment files of one directory, written by one committer.
//!
//! * [`record`]: what is written, in stable numbers, by [`encode`] and [`decode`]; [`frame`]: its checksummed envelope,
//!   one per commit.
//! * [`segment`]: one file of frames; [`directory`]: all of them, and the lock; [`open`]: those that are open;
//!   [`files`]: the system calls.
//! * [`scan`]: reading a segment back, and telling a torn tail from damage.
//! * [`writer`]: the active segment; [`prepare`]: the next one, made ready in the background.

pub(crate) mod decode;
pub(crate) mod directory;
pub(crate) mod encode;
pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod open;
pub(crate) mod prepare;
pub(crate) mod record;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod writer;
