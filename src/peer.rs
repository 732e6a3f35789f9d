//! The agent at the other end: a stream, its deadlines, messages in and out.
