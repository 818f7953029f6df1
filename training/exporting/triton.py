"""The configuration with which Triton Inference Server serves an exported model from the same folder."""

from __future__ import annotations

from training.exporting.graphs import Graph, Port

MAX_BATCH = 64

TEMPLATE = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {input} ]
output [
{outputs}
]
version_policy: {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{ }}
"""


def triton_config(name: str, graph: Graph) -> str:
    """Return the text of a model's config.pbtxt."""
    outputs = ",\n".join(f"  {_port(output)}" for output in graph.outputs)
    return TEMPLATE.format(name=name, max_batch=MAX_BATCH, input=_port(graph.input), outputs=outputs)


def _port(port: Port) -> str:
    sides = ", ".join(map(str, port.shape))
    return f'{{ name: "{port.name}" data_type: TYPE_{port.kind} dims: [ {sides} ] }}'
