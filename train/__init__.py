"""Train on finished shards: `mid` is the loop, everything beside it is what one step of it needs."""
