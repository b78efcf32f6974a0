"""
The three passes: render, plan, write.
"""
