//! What a pass did: log lines, the recon file operators already read, the table, the JSON.
