"""
A trained model at work: it speaks, calculates, and is examined. The only part of train that knows prep's renderer.
"""
