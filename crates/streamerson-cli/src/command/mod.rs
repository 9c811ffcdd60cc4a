//! The commands, one file each: its arguments, and `run`.

pub(crate) mod chaos;
pub(crate) mod chaos_child;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod dlq;
pub(crate) mod gateway;
pub(crate) mod group;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod send;
pub(crate) mod tail;
pub(crate) mod topic;
