//! Accept a peer; drive a Receiver on a drive of ours.
