//! The conversation; touches no file, socket or clock.
