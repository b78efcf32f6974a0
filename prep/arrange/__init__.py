"""
Conversations as a chat format has them: its parts in its order, before any token.
"""
