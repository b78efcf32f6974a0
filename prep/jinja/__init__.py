"""
Chat formats that are a Jinja template, as transformers has them.

    format.py     a template, and the text that it writes          spans.py    which of it the assistant says
    sandbox.py    what a template may read, how far it may run     steps.py, filters.py, charges.py    what counts its steps
"""
