//! A partition's primaries, then its handoffs in Swift's order.
