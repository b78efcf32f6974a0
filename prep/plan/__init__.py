"""
Which conversation goes to which row of which shard, decided from lengths alone.
"""
