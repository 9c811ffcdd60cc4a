//! Broker conformance suite, fault injection and private test servers for Streamerson
