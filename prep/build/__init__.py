"""
The three passes: render, plan, write.
"""

from prep.moved import moved

__getattr__ = moved(__name__, {"build": "prep.build.job:build", "make_job": "prep.build.job:make_job"})
