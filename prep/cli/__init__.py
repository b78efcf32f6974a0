"""
The `midprep` command.
"""
