"""What callers pass (tensors, arrays, lists) turned into the integer arrays and weight tensors that automata
hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.errors import DtypeError, LabelError, ShapeError

Integers: TypeAlias = "torch.Tensor | NDArray[Any] | Sequence[Any]"
Floats: TypeAlias = "torch.Tensor | NDArray[Any] | Sequence[Any]"

_INT32 = np.iinfo(np.int32)


def integer_array(values: Integers, *, argument: str, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    """A fresh int64 array of the given shape (None: any size).

    Raises:
        DtypeError: the values aren't integers.
        ShapeError: the shape is another one, or nested lists are ragged.
    """
    if isinstance(values, torch.Tensor):
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise DtypeError(f"{argument} must hold integers, got dtype {values.dtype}", argument=argument)
        array = values.detach().cpu().numpy()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ShapeError(f"{argument} must be rectangular: {error}", argument=argument) from error
        if array.size == 0 and not isinstance(values, np.ndarray):
            # An empty list says nothing about its dtype or its inner sizes.
            inner = tuple(0 if size is None else size for size in shape[1:])
            array = np.zeros((len(values), *inner), dtype=np.int64)
        if array.dtype.kind not in "iu":
            raise DtypeError(f"{argument} must hold integers, got dtype {array.dtype}", argument=argument)
    fits = array.ndim == len(shape) and all(
        want is None or got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        wanted = f"({sizes},)" if len(shape) == 1 else f"({sizes})"
        raise ShapeError(
            f"{argument} must have the shape {wanted}, got {tuple(array.shape)}",
            argument=argument,
        )
    return np.array(array, dtype=np.int64, order="C")


def int32_array(values: NDArray[np.int64], *, argument: str) -> NDArray[np.int32]:
    """The values as int32.

    Raises:
        DtypeError: a value doesn't fit.
    """
    if values.size and (values.min() < _INT32.min or values.max() > _INT32.max):
        worst = values.max() if values.max() > _INT32.max else values.min()
        raise DtypeError(f"{argument} holds {worst}, which doesn't fit int32", argument=argument)
    return values.astype(np.int32)


def float32_array(values: NDArray[Any], *, argument: str) -> NDArray[np.float32]:
    """The values as float32.

    Raises:
        DtypeError: a finite value is too large, so that it would become infinite.
    """
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    lost = np.isinf(narrow) & np.isfinite(values)
    if lost.any():
        raise DtypeError(
            f"{argument} holds {values[lost][0]}, which doesn't fit float32: pass float64", argument=argument
        )
    return narrow


def weight_tensor(values: Floats, *, argument: str, size: int) -> torch.Tensor:
    """The values as a float32 or float64 tensor of shape (size,).

    A tensor of one of these dtypes is returned as it is, the same object, so that gradients reach it; half
    and bfloat16 become float32 (differentiably), as do lists and integers. A float64 array stays float64.

    Raises:
        DtypeError: complex, boolean or non-numeric values, or a number too large for float32.
        ShapeError: the shape isn't (size,).
    """
    if isinstance(values, torch.Tensor):
        tensor = values
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ShapeError(f"{argument} must be one-dimensional: {error}", argument=argument) from error
        if array.dtype.kind not in "iuf":
            raise DtypeError(f"{argument} must hold floats, got dtype {array.dtype}", argument=argument)
        keep_double = isinstance(values, np.ndarray) and array.dtype == np.float64
        tensor = torch.from_numpy(array.copy() if keep_double else float32_array(array, argument=argument))
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise DtypeError(f"{argument} must hold floats, got dtype {tensor.dtype}", argument=argument)
    if tensor.shape != (size,):
        raise ShapeError(
            f"{argument} must have the shape ({size},), got {tuple(tensor.shape)}", argument=argument
        )
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float32)


def match_dtype(tensor: torch.Tensor, like: torch.Tensor, *, argument: str) -> torch.Tensor:
    """The tensor in the dtype and on the device of `like`, differentiably.

    Raises:
        DtypeError: a finite value is too large for that dtype.
    """
    converted = tensor.to(device=like.device, dtype=like.dtype)
    if converted.dtype != tensor.dtype and bool(
        (converted.isinf() & tensor.to(like.device).isfinite()).any()
    ):
        raise DtypeError(f"{argument} holds a value that doesn't fit {like.dtype}", argument=argument)
    return converted


def target_arrays(
    targets: Integers, target_lengths: Integers, *, blank: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Checked targets (B, U) and target lengths (B,); what stands behind a length is set to 0.

    Raises:
        DtypeError: not integers.
        ShapeError: wrong shapes, or a length outside 0…U.
        LabelError: a target is negative, doesn't fit int32, or is the blank.
    """
    labels = integer_array(targets, argument="targets", shape=(None, None))
    batch, longest = labels.shape
    lengths = integer_array(target_lengths, argument="target_lengths", shape=(batch,))
    bad_lengths = np.flatnonzero((lengths < 0) | (lengths > longest))
    if bad_lengths.size:
        utterance = int(bad_lengths[0])
        raise ShapeError(
            f"target_lengths[{utterance}] = {lengths[utterance]} is outside 0…{longest}, "
            "the width of targets",
            argument="target_lengths",
        )
    inside = np.arange(longest) < lengths[:, None]
    labels = np.where(inside, labels, 0)
    wrong = (labels < 0) | (labels > _INT32.max)
    if blank is not None:
        wrong |= inside & (labels == blank)
    if wrong.any():
        utterance, position = (int(i) for i in np.argwhere(wrong)[0])
        label = int(labels[utterance, position])
        why = (
            "the blank, which may not stand in the targets"
            if label == blank
            else f"outside the labels 0…{_INT32.max}"
        )
        raise LabelError(
            f"targets: utterance {utterance}, position {position} holds {label}, {why}",
            argument="targets",
            utterance=utterance,
            position=position,
            label=label,
            num_labels=None,
        )
    return labels, lengths
