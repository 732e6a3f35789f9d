//! Which of two versions of one fact wins: rows, metadata, shard ranges, storage policies. Pure rules.
