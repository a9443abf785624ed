"""The admin address of a server, as seen by who watches it; `deployment/admin.py` answers there."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from gnncompose.composition.files import composition_to_json
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError

ANSWER_S = 60.0


class WatchError(GnncomposeError):
    """The server cannot be reached, or refuses."""


class Admin:
    """The admin address of a server.

    Attributes:
        url: Of the address.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        """Read the token.

        Raises:
            WatchError: There is none.
        """
        try:
            self._token = token_file.read_text(encoding="utf-8").strip()
        except OSError as problem:
            raise WatchError(f"{token_file}: {problem.strerror}; give the admin-token of the server's state") from None
        self.url = url.rstrip("/")

    def status(self) -> dict[str, Any]:
        """What is live and what is tried."""
        return self._document("/status")

    def rows(self, since: int, label: int) -> dict[str, np.ndarray]:
        """What came since a row and a label; see `Rows.since`."""
        with np.load(io.BytesIO(self._asked(f"/rows?since={since}&label={label}")), allow_pickle=False) as arrays:
            return dict(arrays)

    def deploy(self, composition: Composition, reason: str, how: str = "swap", share: float | None = None) -> int:
        """Deploy, or try on a share of the requests; the version."""
        fields = {"composition": composition_to_json(composition), "reason": reason, "how": how}
        fields |= {} if share is None else {"share": share}
        return self._document("/deploy", fields)["version"]

    def change(self, what: str, **fields: object) -> dict[str, Any]:
        """Promote, abort, reload, tell of drift."""
        return self._document(f"/{what}", fields)

    def _document(self, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        return json.loads(self._asked(path, None if fields is None else json.dumps(fields).encode()))

    def _asked(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
                return response.read()
        except urllib.error.HTTPError as problem:
            said = problem.read().decode(errors="replace")
            raise WatchError(f"{self.url}{path}: {problem.code}: {said[:500]}") from None
        except (OSError, ValueError) as problem:
            raise WatchError(f"{self.url}{path}: {problem}; see that the server runs there") from None
