"""Architectures by name, as lists of layers.

A generator's first layers may be shared by its domains (the trunk) and its last are a domain's own (the
heads); a discriminator's first layers are a domain's own (the stems) and its last are shared (Liu & Tuzel
2016, figure 1), or its very last are own again. The recipe sets how many layers are shared.
"""

from __future__ import annotations

from collections.abc import Mapping

from training.networks.layers import Architecture
from training.zoo import cogan, modern, soft_cogan

__all__ = ["CLASSIFIERS", "DISCRIMINATORS", "ENCODERS", "FEATURES", "GENERATORS", "size_mismatch"]

FAMILIES = (cogan, soft_cogan, modern)
GENERATORS: dict[str, Architecture] = {k: v for one in FAMILIES for k, v in one.GENERATORS.items()}
DISCRIMINATORS: dict[str, Architecture] = {k: v for one in FAMILIES for k, v in one.DISCRIMINATORS.items()}
ENCODERS = soft_cogan.ENCODERS
CLASSIFIERS = soft_cogan.CLASSIFIERS
FEATURES = soft_cogan.FEATURES


def size_mismatch(architectures: Mapping[str, Architecture], name: str, size: tuple[int, int]) -> str:
    """Return why an architecture does not fit images of that height and width, and which do; empty if it fits."""
    if architectures[name].size == size:
        return ""
    fitting = [other for other, one in architectures.items() if one.size == size]
    remedy = f"take {', '.join(fitting)}" if fitting else "none is for this size, without which pairs are measured, too"
    return f"it is for {architectures[name].size} pixels and images have {size}: {remedy}"
