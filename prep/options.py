"""
Where BuildOptions was; see prep.moved.
"""

from prep.moved import moved

__getattr__ = moved(__name__, {"Options": "prep:BuildOptions"})
