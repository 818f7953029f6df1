"""/translate: an image of one domain in, its latent and its counterparts out."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field
from python_multipart.multipart import File, FormParser, parse_options_header

from service.api import docs
from service.api.generate import server_timing
from service.api.options import (
    TIMEOUT_PARAMETER,
    choose_format,
    deadline,
    parse_body,
    read_fields,
    read_query,
    require_no_query,
)
from service.api.schemas import MAX_DOMAINS, WHOLE, ClosedModel, GenerateResponse, PairFormat, ResponseModel
from service.errors import FieldError, InvalidRequest, MalformedBody, RequestError, UnsupportedMediaType
from service.generation.decoding import Fit
from service.generation.encoding import PAIR_FORMATS
from service.generation.generator import Generator
from service.generation.spec import LatentSpec
from service.generation.translation import MAX_REFINE, Found, Likeness, MeasuredError, TranslationSpec, Translator
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import trace_stages

PATH = "/translate"
LARGE_BODY = 2**15  # bytes, from which on parsing takes over a millisecond
IMAGE_TYPES = tuple(f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "bmp", "tiff"))
FORM, JSON = "multipart/form-data", "application/json"
FORM_LIMITS = {"MAX_FIELD_SIZE": 2**10, "MAX_MEMORY_FILE_SIZE": 2**62}  # a file stays in memory, as the body does
MAX_PARTS = 2 * MAX_DOMAINS
MAX_HEADER = 2**12  # characters of a latent in a header: longer ones are in JSON and npz alone


class TranslateFields(ClosedModel):
    """Fields beside the image: in the form, or in the query of an image."""

    model: str | None = None
    """Name of the generator; otherwise the default one."""
    source: str | None = Field(default=None, alias="from", examples=["digit"])
    """Domain of the image; otherwise the one that reconstructs it best."""
    to: list[str] | None = Field(
        default=None, min_length=1, max_length=MAX_DOMAINS, fail_fast=True, json_schema_extra={"uniqueItems": True}
    )
    """Names of the domains to generate, in this order; otherwise all, with the reconstruction of the image."""
    format: PairFormat | None = None
    """Format of the response; otherwise what `Accept` prefers, or json."""
    refine: Annotated[int, Field(ge=0, le=MAX_REFINE), WHOLE] | None = None
    """Passes of the encoder after the first; otherwise as many as were measured to help."""
    fit: Fit | None = None
    """How the image gets the model's shape: crop keeps its middle, pad adds black; otherwise as training did."""


class TranslateRequest(TranslateFields):
    """Body of POST /translate as JSON."""

    model_config = ConfigDict(strict=True)

    image: str = Field(json_schema_extra={"pattern": "^data:image/[a-z]+;base64,[A-Za-z0-9+/]+={0,2}$"})
    """Data URL of the image, in base64."""


class EncoderCard(ResponseModel):
    """The encoder that has read an image."""

    model: str
    version: str
    digest: str


class TranslateResponse(GenerateResponse):
    """Response of /translate as JSON: one pair, whose image in the domain `from` is the reconstruction."""

    source: str = Field(alias="from")
    """Domain of the image, as given or as found."""
    encoder: EncoderCard
    latent: list[float]
    """The latent found, as /generate and /interpolate take it."""
    error: float
    """Root mean squared difference of the image and its reconstruction, in levels of 0 to 255."""
    likeness: Likeness | None
    """Whether the error is as high as 0.9 or 0.99 of real test images have at most, or above; null if not measured."""
    errors: dict[str, float]
    """Error in every domain that was tried."""
    test_error: MeasuredError | None
    """Errors of real test images."""


class Upload(NamedTuple):
    """An image's bytes and the fields beside it; `place` is where these are."""

    fields: TranslateFields
    file: bytes
    place: str


class TranslateRoutes:
    """Equal images and fields have responses of equal bytes; none is cached."""

    def __init__(self, generator: Generator, translator: Translator, metrics: Metrics, deadline_s: float) -> None:
        self._generator, self._translator, self._deadline_s = generator, translator, deadline_s
        self._metrics = metrics
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # damaged forms are the client's matter

    def add_to(self, app: FastAPI) -> None:
        """Add the route to an app."""
        app.router.add_api_route(
            PATH,
            self.translate,
            methods=["POST"],
            tags=["images"],
            response_class=Response,
            responses=_responses(),
            openapi_extra=_document(),
            route_class_override=docs.PlainRoute,
        )

    async def translate(self, request: Request) -> Response:
        """Find the latent of an image, and generate its counterparts in the other domains.

        The image is a file of a form, or the body itself with the fields in the query, or a data URL in JSON.
        """
        until, content = deadline(request, self._deadline_s), (await request.receive())["body"]
        large = len(content) > LARGE_BODY
        upload = await asyncio.to_thread(read_upload, request, content) if large else read_upload(request, content)
        wanted = self._spec(request, upload)
        self._metrics.cache_misses.inc()
        body, found, seconds = await self._translator.translate(wanted, upload.file, until)
        trace_stages(seconds)
        headers = {"Vary": "Accept", "Server-Timing": server_timing(seconds), **_headers(found)}
        if (format_ := wanted.spec.format) in ("zip", "npz"):
            headers["Content-Disposition"] = f'attachment; filename="{wanted.spec.model.name}.{format_}"'
        return Response(body, headers=headers, media_type=PAIR_FORMATS[format_].media_type)

    def _spec(self, request: Request, upload: Upload) -> TranslationSpec:
        fields, place = upload.fields, upload.place
        model = self._generator.model(fields.model, place)
        encoders = self._translator.encoders(model, fields.source, place)
        try:
            spec = self._generator.spec(
                model,
                domains=fields.to,
                latents=[LatentSpec(0, values=(0.0,) * model.prior.latent_dim)],
                truncation=None,
                path=None,
                format_=choose_format(fields.format, request.headers.get("accept"), PAIR_FORMATS),
                place=place,
            )
        except RequestError as error:
            error.errors = tuple(replace(one, pointer=one.pointer.replace("/domains", "/to")) for one in error.errors)
            raise
        return TranslationSpec(spec, encoders, fields.refine, fields.fit)


def read_upload(request: Request, content: bytes) -> Upload:
    """Return the image and the fields of a request with this body.

    Raises UnsupportedMediaType, MalformedBody, and InvalidRequest or RequestValidationError for what is in it.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    media_type = kind.decode("latin-1").lower()
    if media_type.startswith("image/"):
        return Upload(read_query(request, TranslateFields, {}), content, "query")
    if media_type not in (FORM, JSON):
        raise UnsupportedMediaType(f"the body must be {FORM}, an image ({', '.join(IMAGE_TYPES)}) or {JSON}")
    require_no_query(request)
    if media_type == JSON:
        body = parse_body(TranslateRequest, content)
        return Upload(body, _decode_url(body.image), "body")
    images, fields = list[bytes](), list[tuple[str, str]]()
    for name, value in _read_form(content, options.get(b"boundary")):
        if name == "image":
            images.append(value)
        else:
            fields.append((name, value.decode(errors="replace")))
    wanted = read_fields(fields, TranslateFields, {}, "body")
    if not images:
        raise RequestValidationError([{"type": "missing", "loc": ("body", "image"), "msg": "", "input": None}])
    if images[1:]:
        raise InvalidRequest("a request has one image", [FieldError("/image", f"{len(images)} images", "once")])
    return Upload(wanted, images[0], "body")


def _read_form(content: bytes, boundary: bytes | None) -> list[tuple[str, bytes]]:
    """Return the parts of a form by name. Raises MalformedBody."""
    parts = list[tuple[str, bytes]]()

    def add(name: bytes | None, value: bytes | None) -> None:
        if len(parts) == MAX_PARTS:
            raise ValueError(f"it has over {MAX_PARTS} parts")
        parts.append(((name or b"").decode(errors="replace"), value or b""))

    try:
        parser = FormParser(
            FORM,
            lambda field: add(field.field_name, field.value),
            lambda file: add(file.field_name, _content(file)),
            boundary=boundary,
            config=FORM_LIMITS,
        )
        parser.write(content)
        parser.finalize()
    except Exception as error:  # the library's errors, and its assertions
        raise MalformedBody(f"the body is not {FORM}: {error or 'it ends early'}") from error
    return parts


def _content(file: File) -> bytes:
    file.file_object.seek(0)
    return file.file_object.read()


def _decode_url(url: str) -> bytes:
    """Return the bytes of a data URL. Raises InvalidRequest; nothing is ever fetched."""
    head, _, data = url.partition(",")
    try:
        if not (head.startswith("data:image/") and head.endswith(";base64")):
            raise ValueError("it is no data URL of an image in base64")
        return b64decode(data, validate=True)
    except ValueError as error:
        wrong = FieldError("/image", url, "data:image/png;base64,... with one of the listed formats")
        raise InvalidRequest(f"the image cannot be read: {error}", [wrong]) from error


def _headers(found: Found) -> dict[str, str]:
    """Return what was found of an image as headers, which every format has."""
    latent = b64encode(np.array(found["latent"], "<f4").tobytes()).decode()
    headers = {
        "X-Image-Domain": found["from"],
        "X-Reconstruction-Error": f"{found['error']:.3f}",
        "X-Likeness": found["likeness"] or "unknown",
    }
    return headers | ({"X-Latent": latent} if len(latent) <= MAX_HEADER else {})


def _responses() -> docs.Responses:
    described: docs.Responses = docs.image_responses(TranslateResponse, PAIR_FORMATS) | docs.BODY_RESPONSES
    about = {
        "X-Image-Domain": "Domain of the image, as given or as found.",
        "X-Reconstruction-Error": "`error` of the JSON response.",
        "X-Likeness": "`likeness` of the JSON response, or unknown.",
        "X-Latent": "The latent found, as base64 of little-endian float32, unless that is longer than a header may be.",
    }
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in about.items()}
    return described | {200: described[200] | {"headers": headers}}


def _document() -> dict[str, Any]:
    """Describe the query and the three kinds of body."""
    document = docs.json_body(TranslateRequest)
    content = document["requestBody"]["content"]
    fields = docs.json_body(TranslateFields)["requestBody"]["content"][JSON]["schema"]
    binary = {"type": "string", "format": "binary"}
    form = fields | {"properties": {"image": binary, **fields["properties"]}, "required": ["image"]}
    document["requestBody"]["content"] = {
        FORM: {"schema": form},
        **{media_type: {"schema": binary} for media_type in IMAGE_TYPES},
        **content,
    }
    return {**document, "parameters": [*docs.query_parameters(TranslateFields), TIMEOUT_PARAMETER]}
