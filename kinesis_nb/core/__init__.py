"""What every room may use: records, shards, positions, the contract with the service, threads and their end."""
