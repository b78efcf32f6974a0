"""
Chat data to training data, once and offline. Read the modules in the order of the data:

    source rows -> conversations -> rendered runs -> plan -> shards
      sources         tasks            render         plan    write

`prep.shard` is the format on disk and all that the trainer imports from here; nothing here imports torch.
"""

__version__ = "0.1.0"
