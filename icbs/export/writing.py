"""Old import path of :func:`icbs.export.safetensors_files.write_tensors`."""

from icbs.export.safetensors_files import write_tensors as write

__all__ = ["write"]
