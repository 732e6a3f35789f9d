//! Passes at an interval and the listener beside them, until told to stop.
