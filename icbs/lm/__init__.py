"""Language models: loading, texts for pruning, perplexity and zero-shot accuracy.

Loading models or data sets needs the extra ``llm`` (``pip install 'icbs-pruning[llm]'``);
:mod:`icbs.lm.zero_shot` needs ``eval``.
"""

from icbs.lm.corpora import CORPORA, read_texts, split_texts
from icbs.lm.loading import load_language_model
from icbs.lm.perplexity import Perplexity, perplexity
from icbs.lm.windows import batches_of, pack_windows
from icbs.lm.zero_shot import zero_shot

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

pack = pack_windows  # name in version 0.1
