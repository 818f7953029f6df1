"""The configuration with which Triton Inference Server serves an exported model from the same folder."""

from __future__ import annotations

from service.metadata import LATENT_INPUT, ModelMetadata

MAX_BATCH = 64

TEMPLATE = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {{ name: "{latent}" data_type: TYPE_FP32 dims: [ {latent_dim} ] }} ]
output [
{outputs}
]
version_policy: {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{ }}
"""

OUTPUT = '  {{ name: "{0.name}" data_type: TYPE_UINT8 dims: [ {0.height}, {0.width}, {0.channels} ] }}'


def triton_config(metadata: ModelMetadata) -> str:
    """Return the text of a model's config.pbtxt."""
    return TEMPLATE.format(
        name=metadata.name,
        max_batch=MAX_BATCH,
        latent=LATENT_INPUT,
        latent_dim=metadata.prior.latent_dim,
        outputs=",\n".join(OUTPUT.format(domain) for domain in metadata.domains),
    )
