"""
Tokenizers: one record, whatever file it came from, and the files of other programs.
"""
