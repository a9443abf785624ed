"""Loading, checking, hashing and comparing catalogs."""

from __future__ import annotations

import difflib
import hashlib
import json
import reprlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gnncompose.catalog.folder import open_inside
from gnncompose.catalog.operator import Operator
from gnncompose.errors import CatalogError, GnncomposeError

LARGEST_DOCUMENT_BYTES = 16 << 20
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlevel = 2
Document = TypeVar("Document", bound=BaseModel)


class _CatalogFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    name: str
    operators: tuple[Operator, ...]


@dataclass(frozen=True, eq=False)
class Catalog:
    """All operators at hand; compared by identity, told apart by `sha256`.

    Attributes:
        name: What the catalog is called.
        operators: Its operators; their order breaks ties.
        directory: The folder that artifact paths are relative to.
    """

    name: str
    operators: tuple[Operator, ...]
    directory: Path = Path()

    def __post_init__(self) -> None:
        doubled = [name for name, count in Counter(o.name for o in self.operators).items() if count > 1]
        if doubled:
            raise CatalogError(f'catalog "{self.name}": operator name "{doubled[0]}" stands twice; rename one')

    @cached_property
    def by_name(self) -> dict[str, Operator]:
        """Operators by name."""
        return {operator.name: operator for operator in self.operators}

    def operator(self, name: str) -> Operator:
        """The operator of that name.

        Raises:
            CatalogError: There is none; the message offers near names.
        """
        try:
            return self.by_name[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.by_name, n=1)
            mend = f'did you mean "{near[0]}"?' if near else f"it has {', '.join(self.by_name)}"
            raise CatalogError(f'catalog "{self.name}" has no operator "{name}"; {mend}') from None

    def of_kind(self, *kinds: str) -> tuple[Operator, ...]:
        """Operators of the given kinds, in catalog order."""
        return tuple(operator for operator in self.operators if operator.kind in kinds)

    @cached_property
    def transforms(self) -> tuple[Operator, ...]:
        """Its transforms."""
        return self.of_kind("transform")

    @cached_property
    def models(self) -> tuple[Operator, ...]:
        """Its models."""
        return self.of_kind("model")

    @cached_property
    def combiners(self) -> tuple[Operator, ...]:
        """Its ensembles, cascades and routers."""
        return self.of_kind("ensemble", "cascade", "router")

    @cached_property
    def first_ensemble(self) -> Operator | None:
        """The combiner that adding a model in parallel makes."""
        return next(iter(self.of_kind("ensemble")), None)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of name and operators, profiles left out."""
        entries = [o.model_dump(mode="json", exclude={"profile"}, exclude_none=True) for o in self.operators]
        text = json.dumps({"format": 1, "name": self.name, "operators": entries}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def artifact_path(self, operator: Operator) -> Path:
        """Where the operator's artifact lies.

        Raises:
            CatalogError: The operator is builtin, or the path leaves the catalog's folder.
        """
        if operator.artifact is None:
            raise CatalogError(f'operator "{operator.name}" is builtin or a host operator, and has no artifact')
        root = self.directory.resolve()
        path = (root / operator.artifact).resolve()
        if not path.is_relative_to(root):
            raise CatalogError(
                f'catalog.yaml: operator "{operator.name}": artifact {operator.artifact!r} leaves the folder of the '
                f"catalog; put the file inside it"
            )
        return path

    def difference(self, new: Catalog) -> CatalogDifference:
        """What changed from this catalog to `new`."""
        before, after = self.by_name, new.by_name

        def entry(operator: Operator, part: str) -> dict[str, Any]:
            dumped = operator.model_dump(mode="json")
            return dumped["profile"] if part == "profile" else {k: v for k, v in dumped.items() if k != "profile"}

        both = [name for name in after if name in before]
        return CatalogDifference(
            added=tuple(name for name in after if name not in before),
            removed=tuple(name for name in before if name not in after),
            changed=tuple(n for n in both if entry(before[n], "entry") != entry(after[n], "entry")),
            reprofiled=tuple(n for n in both if entry(before[n], "profile") != entry(after[n], "profile")),
        )


@dataclass(frozen=True)
class CatalogDifference:
    """Names of operators that came, went, changed, or were only measured anew."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    reprofiled: tuple[str, ...]


def load_catalog(path: Path) -> Catalog:
    """Read and check a `catalog.yaml`.

    The artifacts themselves are not opened: `bundle.check_bundle` does that.

    Raises:
        CatalogError: The file is missing, is no YAML, or an entry breaks the format; the message names
            file, entry, field and mend.
    """
    document = read_inside(path.parent, path.name, _CatalogFile, CatalogError)
    return Catalog(document.name, document.operators, path.parent)


def read_document(path: Path, model: type[Document], error: type[GnncomposeError]) -> Document:
    """Read a YAML file into a pydantic model, turning every mistake into one line.

    Raises:
        GnncomposeError: As `error`, naming file, entry, field and mend.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}; give the path of a readable file") from None
    return _parse_document(content, path, model, error)


def read_inside(folder: Path, name: str, model: type[Document], error: type[GnncomposeError]) -> Document:
    """Read a YAML file of a bundle, as `read_document` does; a link that leads out of the folder is refused.

    Raises:
        GnncomposeError: As `error`, naming file, entry, field and mend.
    """
    with open_inside(folder, name, error) as file:
        content = file.read(LARGEST_DOCUMENT_BYTES + 1)
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise error(f"{name}: has more than {LARGEST_DOCUMENT_BYTES} bytes; shorten it")
    return _parse_document(content, folder / name, model, error)


def _parse_document(content: bytes, path: Path, model: type[Document], error: type[GnncomposeError]) -> Document:
    try:
        data: dict[object, object] | list[object] | str | None = yaml.safe_load(content.decode())
    except Exception as problem:  # besides its own errors, those of whatever it makes of dates, numbers and nesting
        where = getattr(problem, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise error(f"{path}:{line} is not YAML: {getattr(problem, 'problem', problem)}; fix the syntax") from None
    if not isinstance(data, dict):
        raise error(f"{path}: holds no mapping; start it with 'format: 1'")
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise error(f"{path.name}: {explain(problem, data)}") from None


def explain(problem: ValidationError, data: object) -> str:
    """The first mistake that pydantic found, as `operators[3] "cnn_small": field: what; mend`."""
    first = problem.errors()[0]
    where = ""
    node: Any = data
    for part in first["loc"]:
        where += f"[{part}]" if isinstance(part, int) else (f".{part}" if where else part)
        node = _item(node, part)
        name = _item(node, "name")
        if isinstance(part, int) and name is not None:
            where += f' "{name}":'
    where = where.replace(":.", ": ")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key; remove it or fix its spelling"
    elif first["type"] == "missing":
        message = "is missing; add it"
    elif ";" not in message:
        message = f"{message[0].lower()}{message[1:]}, not {_SHORT.repr(first['input'])}; fix the value"
    return f"{where.rstrip(':')}: {message}" if where else message


def _item(data: Any, key: int | str) -> Any:  # noqa: ANN401 - parsed YAML or JSON, of whatever shape it was written
    """What parsed data hold under a key; None where they have no such key, or none at all."""
    try:
        return data[key]
    except (KeyError, IndexError, TypeError):
        return None
