"""Language models: loading them, the text that drives their pruning, and how well they do.

Needs the extra ``llm`` (``pip install 'icbs-pruning[llm]'``) where models or data sets are
loaded; :mod:`icbs.text.zero_shot` needs ``eval``.
"""

from icbs.text.corpora import CORPORA, read_texts, split_texts
from icbs.text.loading import load_language_model
from icbs.text.perplexity import Perplexity, perplexity
from icbs.text.windows import batches_of, pack
from icbs.text.zero_shot import zero_shot

__all__ = [
    "CORPORA",
    "Perplexity",
    "batches_of",
    "load_language_model",
    "pack",
    "perplexity",
    "read_texts",
    "split_texts",
    "zero_shot",
]
