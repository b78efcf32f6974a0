"""
Text to token ids, exactly as tiktoken has them, and back.
"""
