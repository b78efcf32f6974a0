"""
The record of a conversation, as columns, and how rows in the layouts of other programs become it.
"""
