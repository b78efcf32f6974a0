"""
Rows of a data set, read in blocks: Parquet, Arrow, JSON lines; from the Hub, a local copy of it, or your files.
"""
