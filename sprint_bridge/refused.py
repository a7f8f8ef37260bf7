"""A request that isn't carried out."""

from __future__ import annotations

import grpc

__all__ = ["RefusedError"]


class RefusedError(Exception):
    """The rpc ends with the status `code` and this message; the protocol says which for what."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
