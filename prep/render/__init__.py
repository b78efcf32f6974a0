"""
Conversations to tokens and loss mask, block by block, each kept in the cache.
"""
