"""
Tokenizers: one record, whatever file it came from, and the files of other programs.
"""

from prep.moved import moved

__getattr__ = moved(__name__, {"load_tokenizer": "prep:load_tokenizer", "Tokenizer": "prep:Tokenizer"})
