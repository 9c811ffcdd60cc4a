//! The `streamerson` command.
fn main() {}
