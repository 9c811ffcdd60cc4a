//! Handlers, extractors, workers and clients over durable streams
