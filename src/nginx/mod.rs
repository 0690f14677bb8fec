//! The glue to nginx.
