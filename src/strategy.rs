//! What two replicas say of themselves in, the cheapest way to agree out.
