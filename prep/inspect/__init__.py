"""
Look into a build: counts, rows, conversations, where they come from.
"""
