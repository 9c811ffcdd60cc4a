//! Redis and Valkey Streams broker for Streamerson
