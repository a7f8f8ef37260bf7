"""`seqtrain doctor`: what is installed, what this machine has, and whether the kernels compute what they should."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import seqtrain
from seqtrain import reference
from seqtrain.ops.kernels import LEVEL

__all__ = ["Diagnosis", "add_parser", "diagnose", "run"]

# Distribution → (module, extra of seqtrain that brings it, what it's for)
_OPTIONAL = {
    "grpcio": ("grpc", "bridge", "aligner service and its client"),
    "protobuf": ("google.protobuf", "bridge", "aligner service and its client"),
    "safetensors": ("safetensors", "recipes", "priors and checkpoints"),
    "soundfile": ("soundfile", "recipes", "reading audio"),
    "kaldi-native-fbank": ("kaldi_native_fbank", "recipes", "features"),
    "kaldialign": ("kaldialign", "recipes", "error rates"),
    "pocketsphinx": ("pocketsphinx", "recipes", "word boundaries to compare with"),
    "espeakng-loader": ("espeakng_loader", "recipes", "synthetic speech"),
}
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Diagnosis:
    """What `seqtrain doctor` prints.

    Attributes:
        kernel_error: largest difference of a CTC gradient from the float64 reference; `healthy`: it's small.
    """

    versions: dict[str, str]
    cpu_level: str
    threads: int
    cores: int
    gpu: str | None
    optional: dict[str, str | None]
    kernel_error: float

    @property
    def healthy(self) -> bool:
        return self.kernel_error < _TOLERANCE


def diagnose() -> Diagnosis:
    """Looks at this machine and runs one small case through the kernels."""
    return Diagnosis(
        versions={
            "seqtrain": seqtrain.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        cpu_level=LEVEL,
        threads=torch.get_num_threads(),
        cores=os.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        optional={name: _version(name, module) for name, (module, _, _) in _OPTIONAL.items()},
        kernel_error=_kernel_error(),
    )


def _version(distribution: str, module: str) -> str | None:
    if importlib.util.find_spec(module.split(".", 1)[0]) is None:
        return None
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kernel_error() -> float:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 40, 12, generator=generator).requires_grad_()
    targets = torch.tensor([[3, 3, 5, 1, 7]])
    loss = seqtrain.ctc_loss(logits, targets, torch.tensor([40]), torch.tensor([5]), normalize=True)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    exact = reference.ctc_loss(
        logits[0].detach().double().numpy(), targets[0].numpy(), normalize=True
    ).gradient
    return float(np.abs(gradient[0].numpy() - exact).max())


def add_parser(subparsers: Any) -> None:
    """Adds the command to the subparsers of `seqtrain`."""
    parser = subparsers.add_parser(
        "doctor", help="versions, processor, GPU, optional parts, and a check of the kernels"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the diagnosis; returns 0, or 1 where the kernels compute something wrong."""
    found = diagnose()
    if args.json:
        print(json.dumps({**asdict(found), "healthy": found.healthy}, indent=2))
        return 0 if found.healthy else 1
    for name, version in found.versions.items():
        print(f"{name:<22}{version}")
    print(f"{'kernels':<22}{found.cpu_level}")
    print(f"{'threads':<22}{found.threads} of {found.cores} cores")
    print(f"{'GPU':<22}{found.gpu or 'none'}")
    print("optional parts")
    for name, installed in found.optional.items():
        _, extra, purpose = _OPTIONAL[name]
        print(f"  {name:<20}{installed or f'not installed (extra {extra}): {purpose}'}")
    verdict = "right" if found.healthy else "WRONG"
    print(f"{'check of kernels':<22}{verdict}: gradient differs from float64 by {found.kernel_error:.1e}")
    return 0 if found.healthy else 1
