//! Durable single-node broker for Streamerson: an append log with group commit, and a Redis-protocol port
