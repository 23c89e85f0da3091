"""Language models: loading, texts for pruning, perplexity and zero-shot accuracy.

Loading models or data sets needs the extra ``llm`` (``pip install 'icbs-pruning[llm]'``);
:mod:`icbs.lm.zero_shot` needs ``eval``.
"""

from icbs.lm.corpora import CORPORA, read_texts, split_texts
from icbs.lm.loading import load_language_model
from icbs.lm.perplexity import Perplexity, perplexity
from icbs.lm.windows import batches_of, pack_windows
from icbs.lm.zero_shot import zero_shot
from problems.lazy import attach

__all__ = [
    "CORPORA",
    "Perplexity",
    "batches_of",
    "load_language_model",
    "pack_windows",
    "perplexity",
    "read_texts",
    "split_texts",
    "zero_shot",
]

#: Names in version 0.1.
_RENAMED = {"pack": "icbs.lm.windows.pack_windows"}
__getattr__, __dir__ = attach(globals(), {}, _RENAMED)
