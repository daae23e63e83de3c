//! Real clients against the server.
