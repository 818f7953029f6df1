"""Networks as tables of layers, by name: what each is made of, and nothing of how it is built.

A generator's first layers may be shared by its domains (the trunk) and its last are a domain's own (the
heads); a discriminator's first layers are a domain's own (the stems) and its last are shared (Liu & Tuzel
2016, figure 1), or its very last are own again. Where the borders run is the experiment's, not the table's.
"""

from __future__ import annotations

from training.zoo import cogan, dcgan, soft_cogan
from training.zoo.rows import Layer, Table

__all__ = ["CLASSIFIERS", "DISCRIMINATORS", "ENCODERS", "FEATURES", "GENERATORS", "Layer", "Table", "misfit"]

FAMILIES = (cogan, dcgan, soft_cogan)
GENERATORS: dict[str, Table] = {name: table for one in FAMILIES for name, table in one.GENERATORS.items()}
DISCRIMINATORS: dict[str, Table] = {name: table for one in FAMILIES for name, table in one.DISCRIMINATORS.items()}
ENCODERS = soft_cogan.ENCODERS
CLASSIFIERS = soft_cogan.CLASSIFIERS
FEATURES = soft_cogan.FEATURES


def size_mismatch(tables: dict[str, Table], name: str, size: tuple[int, int]) -> str:
    """Say why a table is not for images of that height and width, and which are; nothing where it is."""
    if tables[name].size == size:
        return ""
    fitting = [other for other, table in tables.items() if table.size == size]
    return f"it is for {tables[name].size} pixels and {size} are drawn: take {', '.join(fitting) or 'no table'}"
