"""
What a mixture file asks for, and the sources that it means.
"""
