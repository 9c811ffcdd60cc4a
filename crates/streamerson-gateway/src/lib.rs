//! HTTP gateway for Streamerson: a library that mounts into an axum or tower app
