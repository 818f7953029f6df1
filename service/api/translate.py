"""/translate: an image of one domain in, its latent and its counterparts out."""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from functools import partial
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field
from python_multipart.multipart import Field as TextPart
from python_multipart.multipart import File, FormParser, parse_options_header

from service.api import docs, options, schemas
from service.api.generate import image_response
from service.errors import FieldError, InvalidRequest, MalformedBody, UnsupportedMediaType
from service.generation.decoding import FORMATS, Fit
from service.generation.encoding import PAIR_FORMATS
from service.generation.generator import Generator
from service.generation.spec import LatentSpec
from service.generation.translation import MAX_REFINE, Found, Likeness, MeasuredError, TranslationSpec, Translator
from service.http.middleware import header
from service.telemetry.metrics import Metrics

IMAGE_TYPES = [f"image/{name.lower()}" for name in FORMATS]
FORM, JSON = "multipart/form-data", "application/json"
FORM_LIMITS = {"MAX_FIELD_SIZE": 2**10, "MAX_MEMORY_FILE_SIZE": 2**62}  # a file stays in memory, as the body does
MAX_PARTS = 2 * schemas.MAX_DOMAINS
MAX_HEADER = 2**12  # characters of a latent in a header: longer ones are in JSON and npz alone


class TranslateFields(schemas.ClosedModel):
    """Fields beside the image: in the form, or in the query of an image."""

    model: str | None = None
    """Name of the generator; otherwise the default one."""
    source: str | None = Field(default=None, alias="from", examples=["digit"])
    """Domain of the image; otherwise the one that reconstructs it best."""
    to: schemas.DomainNames | None = None
    """Names of the domains to generate, in this order; otherwise all, with the reconstruction of the image."""
    format: schemas.PairFormat | None = None
    """Format of the response; otherwise what `Accept` prefers, or json."""
    refine: Annotated[int, Field(ge=0, le=MAX_REFINE), schemas.WHOLE] | None = None
    """Passes of the encoder after the first; otherwise as many as were measured to help."""
    fit: Fit | None = None
    """Fit of the image to the model's shape: crop keeps its middle, pad adds black; otherwise that of training."""
    invert: bool = False
    """Exchange light and dark first, as for ink on paper where the model knows light strokes on black."""
    scale: schemas.Scale = 1
    """Side of the square that a pixel becomes, in pictures: png and webp."""


class TranslateForm(TranslateFields):
    """Fields of a form; its image is read as bytes, but its name is among the known ones."""

    image: None = None


class TranslateRequest(TranslateFields):
    """Body of POST /translate as JSON."""

    model_config = ConfigDict(strict=True)

    image: str = Field(json_schema_extra={"pattern": "^\\s*[Dd][Aa][Tt][Aa]:[^,]+,[^,]+$"})
    """Data URL of the image, in base64."""


class EncoderCard(schemas.ResponseModel):
    """The encoder that has read an image."""

    model: str
    version: str
    digest: str


class TranslateResponse(schemas.GenerateResponse):
    """Response of /translate as JSON: one pair, whose image in the domain `from` is the reconstruction."""

    source: str = Field(alias="from")
    """Domain of the image, as given or as found."""
    encoder: EncoderCard
    latent: list[float]
    """The latent found, as /generate and /interpolate take it."""
    error: float
    """Root mean squared difference of the image and its reconstruction, in levels of 0 to 255."""
    likeness: Likeness | None
    """typical or unusual up to the 0.9 or 0.99 quantile of test images' errors, else unlike; null if not measured."""
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
        docs.add_image_route(app, "POST", "/translate", self.translate, _responses(), TranslateFields, **_body())

    async def translate(self, request: Request) -> Response:
        """Find the latent of an image, and generate its counterparts in the other domains.

        The image is a file of a form, or the body itself with the fields in the query, or a data URL in JSON.
        """
        until, content = options.deadline(request, self._deadline_s), (await request.receive())["body"]
        upload = await options.parse(content, partial(read_upload, request, content))
        wanted = self._spec(request, upload)
        self._metrics.cache_misses.inc()
        body, found, seconds = await self._translator.translate(wanted, upload.file, until)
        return image_response(wanted.spec, body, {"Vary": "Accept"} | _headers(found), seconds)

    def _spec(self, request: Request, upload: Upload) -> TranslationSpec:
        fields, place = upload.fields, upload.place
        model = self._generator.model(fields.model, place)
        encoders = self._translator.encoders(model, fields.source, place)
        with options.moved(lambda pointer: pointer.replace("/domains", "/to")):
            spec = self._generator.spec(
                model,
                domains=fields.to,
                latents=[LatentSpec(0, values=(0.0,) * model.prior.latent_dim)],
                place=place,
                format_=options.choose_format(fields.format, header(request, "accept"), PAIR_FORMATS),
                scale=fields.scale,
            )
        return TranslationSpec(spec, encoders, fields.refine, fields.fit, fields.invert)


def read_upload(request: Request, content: bytes) -> Upload:
    """Return the image and the fields of a request with this body.

    Raises UnsupportedMediaType, MalformedBody, and InvalidRequest or RequestValidationError for what is in it.
    """
    kind, parameters = parse_options_header(header(request, "content-type") or "")
    media_type = kind.decode("latin-1").lower()
    if media_type.startswith("image/"):
        return Upload(options.read_query(request, TranslateFields), content, "query")
    is_json = options.JSON_TYPE.fullmatch(media_type)
    if not is_json and media_type != FORM:
        wrong = FieldError("/content-type", media_type, [FORM, JSON, *IMAGE_TYPES], "header")
        raise UnsupportedMediaType(f"the body must be {FORM}, an image ({', '.join(IMAGE_TYPES)}) or {JSON}", [wrong])
    options.require_no_query(request)
    if is_json:
        body = options.parse_body(TranslateRequest, content)
        return Upload(body, _decode_url(body.image), "body")
    parts = _read_form(content, parameters.get(b"boundary"))
    fields = [(name, value.decode(errors="replace")) for name, value in parts if name != "image"]
    wanted = options.read_fields(fields, TranslateForm, "body")
    images = [value for name, value in parts if name == "image"]
    if not images:
        raise RequestValidationError([{"type": "missing", "loc": ("body", "image"), "msg": "", "input": None}])
    if images[1:]:
        raise InvalidRequest("a request has one image", [FieldError("/image", f"{len(images)} images", "once")])
    return Upload(wanted, images[0], "body")


def _read_form(content: bytes, boundary: bytes | None) -> list[tuple[str, bytes]]:
    """Return the parts of a form by name. Raises MalformedBody."""
    parts = list[tuple[str, bytes]]()

    def add(part: TextPart | File) -> None:
        if len(parts) == MAX_PARTS:
            raise ValueError(f"it has over {MAX_PARTS} parts")
        if isinstance(part, File):
            part.file_object.seek(0)
        value = part.file_object.read() if isinstance(part, File) else part.value
        parts.append(((part.field_name or b"").decode(errors="replace"), value or b""))

    try:
        parser = FormParser(FORM, add, add, boundary=boundary, config=FORM_LIMITS)
        parser.write(content)
        parser.finalize()
        if b"--%s--" % (boundary or b"") not in content:
            raise ValueError("it ends before its last boundary")
    except Exception as error:  # the library's errors, and its assertions
        raise MalformedBody(f"the body is not {FORM}: {error or 'it ends early'}") from error
    return parts


def _decode_url(url: str) -> bytes:
    """Return the bytes of a data URL. Raises InvalidRequest; nothing is ever fetched."""
    head, _, data = url.partition(",")
    head, data = head.strip().lower(), "".join(unquote(data).split())  # as browsers read it
    try:
        if not (head.startswith("data:image/") and head.endswith(";base64")):
            raise ValueError("it is no data URL of an image in base64")
        if "-" in data or "_" in data:
            raise ValueError("it is URL-safe base64; write + for - and / for _")
        return b64decode(data, validate=True)
    except ValueError as error:
        wrong = FieldError("/image", url, "data:image/png;base64,... with one of the listed formats")
        raise InvalidRequest(f"the image cannot be read: {error}", [wrong]) from error


def _headers(found: Found) -> dict[str, str]:
    """Return the headers that every format has: what was found of the image."""
    latent = b64encode(np.array(found["latent"], "<f4").tobytes()).decode()
    headers = {
        "X-Image-Domain": found["from"],
        "X-Reconstruction-Error": f"{found['error']:.3f}",
        "X-Likeness": found["likeness"] or "unknown",
    }
    return headers | ({"X-Latent": latent} if len(latent) <= MAX_HEADER else {})


def _responses() -> docs.Responses:
    described = docs.image_responses(TranslateResponse, PAIR_FORMATS) | docs.BODY_RESPONSES
    about = {
        "X-Image-Domain": "Domain of the image, as given or as found.",
        "X-Reconstruction-Error": "`error` of the JSON response.",
        "X-Likeness": "`likeness` of the JSON response, or unknown.",
        "X-Latent": "The latent found, as base64 of little-endian float32, unless that is longer than a header may be.",
    }
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in about.items()}
    return described | {200: described[200] | {"headers": headers}}


def _body() -> dict[str, Any]:
    """Describe the three kinds of body."""
    fields, document = docs.schema_of(TranslateFields), docs.json_body(TranslateRequest)
    form = fields | {"properties": {"image": docs.BINARY["schema"], **fields["properties"]}, "required": ["image"]}
    content = {FORM: {"schema": form}, **dict.fromkeys(IMAGE_TYPES, docs.BINARY)}
    document["requestBody"]["content"] = content | document["requestBody"]["content"]
    return document
