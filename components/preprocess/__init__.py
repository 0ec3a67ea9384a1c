"""Records become shards, on Ray Data; every row is used, repaired or rejected by name."""
