"""Random kills of whole runs: nothing lost beyond a shard, nothing wrong."""
