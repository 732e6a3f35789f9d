//! Call a peer; drive a Sender with a database of ours.
