"""
What a mixture file asks for, and the sources that it means.
"""

from prep.moved import moved

__getattr__ = moved(__name__, {"load_mixture": "prep:load_mixture"})
