"""
Chat data to training data, once and offline. Read the modules in the order of the data:

    source rows -> conversations -> rendered runs -> plan -> shards
      sources         tasks            render        plan     write

    what is wanted     mixture (own_entry), mix, options, task -> resolve (hub, own_data, own_tasks) -> build.Job
    rows               sources (formats, lines, arrow_files), tasks/, conversation
    render             encode (encode_gigatoken), render, normal; render_pass does blocks, runs keeps them (cache)
    plan               splits: order, shares, leave_out, excess, plan, packing; table and rejected count what is not in
    write              write, shard/ (the format), output (lock, staging, rename), record (build.json)
    where it runs      engines (processes, threads), engines_ray, signals, progress
    is it right        verify, mask_rules, selftest, doctor
    look at it         units, stats*, show (pick, show_text, origin), report*, plan_runs (plan_text), watch, try_rows
                       overlap* (grams, user_text)
    tokenizers         tokenizer (files, check, train), tokenizer_nanochat (safe_pickle), tokenizer_hf (tokenizer_regex)
    for training       shard/: the format, batches (rows as arrays), steps (which rows each step trains),
                       metrics (what a run says of itself), files (whole files, locks: builds use it, too)
    commands           cli (common), cli_about, cli_see, cli_overlap, cli_tokenizer, cli_try

The trainer takes `shard` and nothing else; `shard` needs numpy alone. What tells of a run beforehand takes
the trainer's own numbers: its `config` and `schedule`, which need no torch. Nothing here imports torch but the
selftest.
"""

__version__ = "0.1.0"
