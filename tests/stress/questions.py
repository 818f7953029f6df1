"""Strategies of hypothesis for requests that a model answers, of all kinds and forms."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from service.generation.encoding import FRAME_FORMATS, PAIR_FORMATS
from service.latents import MAX_SEED
from service.metadata import ModelMetadata

Question = tuple[str, str, dict[str, Any]]  # method, path, and the query of a GET or the body of a POST
SEEDS = st.integers(0, 3) | st.integers(0, MAX_SEED)  # some of them several times


def questions(model: ModelMetadata, most: int) -> st.SearchStrategy[Question]:
    """Return requests for up to `most` pairs or frames of a model."""
    values = st.floats(-3, 3, width=32)
    assert model.prior is not None
    latents = st.lists(values, min_size=model.prior.latent_dim, max_size=model.prior.latent_dim)
    return _generate(model, latents, most) | _interpolate(model, latents, most) | _infer(model, latents, most)


def _choice(model: ModelMetadata, forms: Any, **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    names = [domain.name for domain in model.domains]
    optional = {
        "domains": st.lists(st.sampled_from(names), min_size=1, unique=True),
        "format": st.sampled_from(sorted(forms)),
    }
    return st.fixed_dictionaries({"model": st.just(model.name)}, optional=optional | more)


def _asked(path: str, by_query: Any, by_body: Any) -> st.SearchStrategy[Question]:
    get, post = st.just("GET"), st.just("POST")
    return st.tuples(get, st.just(path), by_query) | st.tuples(post, st.just(path), by_query | by_body)


def _merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda dicts: {k: v for part in dicts for k, v in part.items()})


def _generate(model: ModelMetadata, latents: Any, most: int) -> st.SearchStrategy[Question]:
    choice = _choice(model, PAIR_FORMATS)
    count = st.integers(1, most)
    one = st.fixed_dictionaries({"seed": SEEDS, "count": count}, optional={"truncation": st.floats(0.5, 3)})
    several = st.fixed_dictionaries({"seeds": st.lists(SEEDS, min_size=1, max_size=most)})
    given = st.fixed_dictionaries({"latents": st.lists(latents, min_size=1, max_size=3)})
    return _asked("/generate", _merged(choice, one | several), _merged(choice, given))


def _interpolate(model: ModelMetadata, latents: Any, most: int) -> st.SearchStrategy[Question]:
    choice = _choice(model, FRAME_FORMATS, method=st.sampled_from(["slerp", "lerp"]), loop=st.booleans())
    ends = st.fixed_dictionaries({"from": SEEDS, "to": SEEDS, "steps": st.integers(2, 1 + most // 2)})
    keyframe = st.fixed_dictionaries({"seed": SEEDS, "index": st.integers(0, 9)}) | st.fixed_dictionaries(
        {"latent": latents}
    )
    frames = st.lists(keyframe, min_size=2, max_size=3)
    walk = st.fixed_dictionaries({"keyframes": frames, "steps": st.integers(2, 1 + most // 3)})
    by_query = st.tuples(st.just("GET"), st.just("/interpolate"), _merged(choice, ends))
    by_body = st.tuples(st.just("POST"), st.just("/interpolate"), _merged(choice, walk))
    return by_query | by_body


def _infer(model: ModelMetadata, latents: Any, most: int) -> st.SearchStrategy[Question]:
    def body(rows: list[list[float]], binary: bool) -> dict[str, Any]:
        shape = [len(rows), len(rows[0])]
        tensor = {"name": "latent", "datatype": "FP32", "shape": shape, "data": rows}
        return {"inputs": [tensor], "parameters": {"binary_data_output": binary}}

    bodies = st.builds(body, st.lists(latents, min_size=1, max_size=min(most, 4)), st.booleans())
    return st.tuples(st.just("POST"), st.just(f"/v2/models/{model.name}/infer"), bodies)
