"""Factories of the built-in curvature sources, called with the settings of a run."""

from __future__ import annotations

from icbs.config import CurvatureSettings
from icbs.config.constants import GRAM_WEIGHT
from icbs.curvature.fisher import Fisher
from icbs.curvature.hessian import Hessian
from icbs.curvature.layer_error import LayerError
from icbs.curvature.source import CurvatureSource
from icbs.curvature.sum import Sum
from icbs.plugins import CURVATURES


def monte_carlo(settings: CurvatureSettings) -> Fisher:
    """Fisher information, with targets drawn from the model."""
    return Fisher(settings.curvature_samples, tokens=settings.sample == "token")


def empirical(settings: CurvatureSettings) -> Fisher:
    """Empirical Fisher, with the targets of the data."""
    return Fisher(settings.curvature_samples, drawn=False, tokens=settings.sample == "token")


def exact(settings: CurvatureSettings) -> Hessian:
    """Hessian of the loss."""
    return Hessian(settings.curvature_samples)


def gram(settings: CurvatureSettings) -> LayerError:
    """Error of the layer's own output."""
    return LayerError()


def fisher_and_gram(settings: CurvatureSettings) -> Sum:
    """Fisher information plus the error of the layer's own output."""
    return Sum(monte_carlo(settings), LayerError(GRAM_WEIGHT))


def make_source(settings: CurvatureSettings) -> CurvatureSource:
    """Create the curvature source of a run.

    Raises
    ------
    ConfigError
        If the source can't be imported.
    """
    source: CurvatureSource = CURVATURES.get(settings.curvature)(settings)
    return source
