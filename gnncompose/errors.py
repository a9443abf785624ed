"""Errors that a person caused and can mend: their message is one line that says what, where and how to mend."""

from __future__ import annotations


class GnncomposeError(Exception):
    """Base of every error that is the user's to mend; commands print its message without a traceback."""


class CatalogError(GnncomposeError):
    """A catalog, or an artifact that it names, is not usable."""


class ArtifactError(CatalogError):
    """What an artifact holds breaks a rule, or does not load; the file is the one that its entry names."""


class CompositionError(GnncomposeError):
    """A composition is ill-typed, outside its limits, or its file is not readable."""


class TaskError(GnncomposeError):
    """A task bundle breaks a rule of the format."""


class EvaluationError(GnncomposeError):
    """A composition could not be evaluated; the run may go on without it."""


class StoreError(GnncomposeError):
    """The evaluation store cannot be opened, read or written; a run that was to use it cannot go on."""
