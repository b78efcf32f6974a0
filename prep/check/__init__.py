"""
Is a build what it says, is an installation exact?
"""
