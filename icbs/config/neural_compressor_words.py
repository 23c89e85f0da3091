"""The words of Neural Compressor: those with a meaning here, and those without."""

from __future__ import annotations

MAX_STEPS = 100
"""Largest number of pruning steps that are accepted: each is a run of its own here."""
DECAYS = {"exp": "exponential", "cos": "late-cosine", "cube": "late-cubic", "linear": "linear"}
"""Its decay types → ours, with the same formulas (``schedulers.py``)."""
CRITERIA = {
    "magnitude": {"initial": "magnitude"},
    "snip": {"initial": "gradient"},
    "snip_momentum": {"initial": "gradient"},
}
"""Its pruning types → scores of our initial masks."""
METHODS = {"sparse_gpt": "sparsegpt", "wanda": "wanda"}
"""Its pruning types → our methods other than iCBS."""
REFUSED = {
    "gradient": "it ranks by |g| alone; snip is |w·g|",
    "pattern_lock": "it trains under fixed masks; use icbs.hold_masks in your training",
    "retrain_free": "use icbs prune with groups, and --recover for new values",
    "block_mask": "use icbs prune with groups",
    "dsnot": "use method exchange, which exchanges weights by the error of the output",
    "mha_pruning": "use icbs prune with groups of heads",
}
"""Pruning types without a meaning here → the remedy."""
WITHOUT_MEANING = {
    "reg_type": "pruning here does not train; regularise in your own training",
    "reduce_type": "scores of a group are not reduced in this way",
    "parameters": "they are for regularisation in training",
    "resume_from_pruned_checkpoint": "use icbs resume",
    "low_memory_usage": "use max_memory",
    "backend": "devices are those of the model",
    "sub_type": "use a pruning_type",
    "dynamic": "use icbs search for the density",
    "hpo": "use icbs search for the density",
}
"""Words without a meaning here → the remedy."""
LISTS = ("pruning_configs", "weight_compression")
WORDS = (
    *("pattern", "pruning_scope", "sparsity_decay_type", "target_sparsity", "pruning_type"),
    *("start_step", "end_step", "pruning_frequency", "pruning_frequence"),
    *("op_names", "excluded_op_names", "pruning_op_types"),
    *("min_sparsity_ratio_per_op", "max_sparsity_ratio_per_op"),
)
"""Words with a meaning here."""
OWN = (
    *("task", "task_options", "run", "evaluate_every", "enumerate_masks", "pruner", "recovery"),
    *("method", "steps", "decay", "start_density"),
)
"""Words of our own files of settings, which may stand next to these."""
