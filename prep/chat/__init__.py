"""
Chat formats: what a model sees of a conversation, and which of it is trained.
"""
