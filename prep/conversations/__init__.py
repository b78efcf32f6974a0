"""
The record of a conversation, as columns, and what turns rows of other programs into it.
"""
