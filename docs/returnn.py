"""Writes `docs/returnn.md`, the table of RETURNN's losses: `python -m docs.returnn`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seqtrain.compat.returnn.fast_bw_layer import FAST_BW_LAYER_KEYS
from seqtrain.compat.returnn.loss_layer import LOSS_LAYER_KEYS
from seqtrain.compat.returnn.options import COMMON, REQUIRED, Option
from seqtrain.compat.returnn.registry import ALIASES, CLASSES

__all__ = ["page"]

PAGE = Path(__file__).with_name("returnn.md")

_INTRODUCTION = """\
# RETURNN's losses

<!-- Written by `python -m docs.returnn` from what seqtrain.compat.returnn says of its classes and options. -->

`seqtrain.compat.returnn.build_loss` takes a layer dict of a RETURNN config and computes what RETURNN computes: value,
error, norm factor, objective, gradient.

```python
import torch
from seqtrain.compat.returnn import build_loss

options = {"label_smoothing": 0.1, "use_normalized_loss": True}
loss = build_loss({"class": "softmax", "loss": "ce", "loss_opts": options})
logits = torch.randn(2, 9, 30, requires_grad=True)  # what goes into the layer's activation
lengths, labels = torch.tensor([9, 5]), torch.randint(0, 30, (2, 9))
result = loss(logits, lengths, labels)
result.objective.backward()
print(result.value, result.error, result.norm_factor)
```

Quirks are kept, and stand below beside the native criterion that does without them. Where RETURNN fails as released,
the intended formula is here. Names of options that don't exist raise a `ConfigError` that lists those that do.

| key of the layer | here |
|---|---|
| `loss`, `loss_opts`, `loss_scale`, `activation`, `only_on_eval` | `build_loss(layer)` |
| `target` | `targets` and `target_lengths` of the call |
| layers that options name | `layers={name: LayerOutput(…)}` of the call |
| `sprint_opts` | `build_loss(…, aligner=AlignerClient(…))` and `tags` of the call |
| `tf_native_ctc_zero_infinity`, `behavior_version` of the config | `build_loss(…, config={…})` |
| `reduce_func` = identity | `reduce=False` of the call |
| the layer `fast_bw` | `fast_bw_layer`, natively `FastBaumWelchLoss` |
| the layer `loss` (`loss_`, `loss_opts_`, `use_error`) | `loss_layer`, natively `LossLayer` |

`seqtrain returnn-parity DIR` runs recorded cases of RETURNN and compares all numbers. Of the 197 in
`tests/goldens/returnn`, one is skipped for its search inside a recurrent layer and one for random samples that weren't
recorded; the others agree.
"""


def _rows(options: Iterable[Option]) -> list[str]:
    lines = ["| option | default | native | differences |", "|---|---|---|---|"]
    for option in options:
        default = "required" if option.default is REQUIRED else f"`{option.default!r}`"
        note = option.note.replace("|", "\\|")
        lines.append(f"| `{option.name}` | {default} | {option.native} | {note} |")
    return lines


def page() -> str:
    """The page's text."""
    lines = [_INTRODUCTION, "## Options that all have", "", *_rows(COMMON)]
    for name, kind in sorted(CLASSES.items()):
        aliases = [alias for alias, of in ALIASES.items() if of == name]
        also = f", alias `{'`, `'.join(aliases)}`" if aliases else ""
        about = (kind.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
        lines += ["", f"## `{name}`{also}", "", f"{about} Native: {kind.native}."]
        if kind.options:
            lines += ["", *_rows(kind.options)]
        if kind.notes:
            lines += ["", *(f"* {note}" for note in kind.notes)]
    lines += [
        "",
        '## The layer of class `"loss"`',
        "",
        "Values or errors of each frame as a layer's output, unmasked, of a loss with one number a frame (`ce`, `mse`, "
        "`mean_l1`, `as_is`). Native: `LossLayer`, whose padding is 0.",
        "",
        *_rows(LOSS_LAYER_KEYS),
        "",
        '## The layer of class `"fast_bw"`',
        "",
        "Posteriors of a full sum, which `via_layer` trains against. Native: `FastBaumWelchLoss`, one call.",
        "",
        *_rows(FAST_BW_LAYER_KEYS),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
