"""Train on finished shards: `mid` is the loop, the other modules are what one step of it needs."""
