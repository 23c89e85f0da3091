"""Language models: loading them, the text that drives their pruning, and how well they do.

Needs the extra ``llm`` (``pip install 'icbs-pruning[llm]'``) where models or data sets are
loaded; :mod:`icbs.lm.zero_shot` needs ``eval``.
"""

from icbs.lm.corpora import CORPORA, read_texts, split_texts
from icbs.lm.loading import load_language_model
from icbs.lm.perplexity import Perplexity, perplexity
from icbs.lm.windows import batches_of, pack
from icbs.lm.zero_shot import zero_shot

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
