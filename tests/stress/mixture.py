"""Requests of every kind that the service answers, for the model `tiny`; `%d` stands for a seed."""

from __future__ import annotations

from tests.stress.load import Template

_LATENT = "[%de-9,0.5,-0.5,1,-1,0,2,-2]"
_TENSOR = f'{{"name":"latent","datatype":"FP32","shape":[1,8],"data":{_LATENT}}}'

GOOD: list[Template] = [
    ("GET", "/generate?seed=%d", ""),
    ("GET", "/generate?seed=%d&count=3&format=png&domains=edge", ""),
    ("GET", "/generate?seed=%d&truncation=0.7&count=2&format=zip", ""),
    ("POST", "/generate", '{"seed":%d,"count":16,"format":"npz"}'),
    ("POST", "/generate", '{"seeds":[%d,1,2],"count":2,"format":"webp"}'),
    ("POST", "/generate", f'{{"latents":[{_LATENT}]}}'),
    ("GET", "/interpolate?from=%d&to=2&steps=6&format=gif", ""),
    ("POST", "/interpolate", '{"keyframes":[{"seed":%d},{"seed":1,"index":3}],"steps":4,"loop":true}'),
    ("POST", "/v2/models/tiny/infer", f'{{"inputs":[{_TENSOR}]}}'),
    ("POST", "/v2/models/tiny/infer", f'{{"inputs":[{_TENSOR}],"parameters":{{"binary_data_output":true}}}}'),
]
WRONG: list[Template] = [
    ("GET", "/generate?seed=%d&format=bmp", ""),
    ("GET", "/models/nobody-%d", ""),
    ("GET", "/nothing/%d", ""),
    ("POST", "/generate", '{"seed":%d'),
]
