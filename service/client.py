"""Client of the service in Python: coupled images as numpy arrays. It needs httpx (extra `client`).

    with Client("http://localhost:8000") as client:
        pairs = client.generate(seed=7)
        pairs["edge"]  # uint8 [1, H, W, C]
        pairs.image("edge").save("edge.png")

Each method of `_Methods` builds a `Call`, a request and how its response is read (`client_responses`); `Client` and
`AsyncClient` send it. Axes: B pairs or frames, H height, W width, C channels (1 grey or 3 RGB), Z latent dimension.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast, overload

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageMode, ImageOps

from service import __version__
from service.client_responses import (
    MADE_WITH,
    Fields,
    Pair,
    Pairs,
    Pixels,
    Translation,
    as_picture,
    checked,
    problem_error,
    read_models,
    read_pairs,
    read_shard,
    read_translation,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Keyframe",
    "Options",
    "Pair",
    "PairOptions",
    "Pairs",
    "Picture",
    "ShardOptions",
    "Translation",
]

MAX_CACHED, MAX_CACHED_BYTES = 64, 2**20  # responses that are revalidated, and the size of one
LOCAL = "http://localhost:8000"
READ_S = 60.0  # longest wait for bytes, if no timeout is given
GRACE_S = 5.0  # for the service's 504 to arrive, before the client stops waiting itself
RETRIES, RETRY_S = 3, 0.1  # of connections that are cut or refused; the first wait, which doubles
CUT = (httpx.NetworkError, httpx.RemoteProtocolError)
KEY = re.compile(r"[!-+\--~]{16,256}")  # as the service has them
LISTS = ("domains", "to")  # of names, of which one may be given by itself
PNG_MODES = ("1", "L", "LA", "I;16", "I;16B", "P", "RGB", "RGBA")  # of PIL

Numbers = int | np.integer[Any] | Iterable[int] | Iterable[np.integer[Any]]
P = ParamSpec("P")
T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class Options(TypedDict, total=False):
    """Options of all images; otherwise of the default model, in all its domains, without bound and labels."""

    model: str
    domains: Sequence[str]
    truncation: float  # bound on every value of a latent of a seed: lower is more typical, less varied
    labels: bool  # whether classifiers label the images
    directions: Mapping[Any, float]  # spreads to move along directions of the model, by number or name


class PairOptions(Options, total=False):
    """Options of pairs. With filters, the first candidates of each seed that pass are taken, by their labels."""

    class_name: str  # class of the first requested domain that has a classifier
    min_confidence: float  # in every domain that has a classifier
    agree: bool  # whether the classes of all domains have to be equal


class ShardOptions(PairOptions, total=False):
    """Options of shards."""

    size: int  # seeds of a shard, otherwise 1000
    digest: str | None  # of the model; with another one, DigestMismatch is raised
    format: Literal["png", "webp", "npy"]  # in which images are sent, otherwise png; webp makes grey ones RGB


Picture = bytes | Image.Image | Pixels  # a file of a listed format, or pixels [H, W] or [H, W, C]
Keyframe = int | np.integer[Any] | Pair | Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request and how its response is read: GET with its fields as query, or POST with them as body."""

    read: Callable[[httpx.Response, Fields], T]
    path: str
    fields: Fields = field(default_factory=dict)
    verb: Literal["GET", "POST"] = "GET"

    def result(self, response: httpx.Response) -> T:
        """Return what a successful response holds. Raises OtherError for one that is not the service's."""
        with checked(response):
            return self.read(response, self.fields)


class _Method(Generic[P, T]):
    """A method of both clients: it builds a call, and the client sends it."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        build = self._build.__get__(client, owner)

        @functools.wraps(build)
        def method(*args: P.args, **fields: P.kwargs) -> Any:
            return client._send(build(*args, **fields))

        return method if client else build


class _Methods(Generic[Http]):
    """Methods of both clients, and the loop that sends a call."""

    _open: type[Http]

    def __init__(
        self,
        url: str = LOCAL,
        *,
        key: str | None = None,  # API key, if the service needs one
        timeout: float | None = None,  # seconds that the service may work on a request; otherwise its own limit applies
        max_wait: float = 60.0,  # seconds that a request may wait in all, if it is refused with Retry-After
    ) -> None:
        _check_url(url)
        if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
            raise ValueError(f"timeout is {timeout!r}: allowed are seconds, a number above 0")
        if not (isinstance(max_wait, int | float) and 0 <= max_wait < math.inf):
            raise ValueError(f"max_wait is {max_wait!r}: allowed are seconds, a number from 0")
        if not isinstance(key, str | None):
            raise ValueError(f"key is of type {type(key).__name__}: allowed is a str")
        key = key and key.strip()  # of a file, with the end of its line
        if key is not None and not KEY.fullmatch(key):
            raise ValueError(f"key has {len(key)} characters: allowed are 16 to 256 of visible ASCII without a comma")
        self._http: Http = self._open()
        self._url, self._max_wait = url.rstrip("/"), max_wait
        self._headers = {"User-Agent": f"cogan/{__version__}"}
        self._headers |= {} if key is None else {"Authorization": f"Bearer {key}"}
        self._headers |= {} if timeout is None else {"X-Request-Timeout": str(timeout)}
        self._timeout = httpx.Timeout(READ_S if timeout is None else timeout + GRACE_S)
        self._cached, self._lock = dict[str, httpx.Response](), threading.Lock()

    @_Method
    def generate(
        self,
        *,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        latents: ArrayLike | None = None,
        index: int | None = None,
        count: int | None = None,
        **options: Unpack[PairOptions],
    ) -> Call[Pairs]:
        """Generate `count` pairs, from `index` on, of a seed or of each of several; or pairs of latents [B, Z].

        Without any of them, the seed is random. Raises ValueError for an empty list, and for `format`.
        """
        fields = _json_fields(options, seed=seed, seeds=seeds, index=index, count=count)
        if latents is not None:
            return Call(read_pairs, "generate", fields | {"latents": _floats(latents, "B, Z")}, "POST")
        return Call(read_pairs, "generate", fields)

    @_Method
    def interpolate(
        self,
        keyframes: Sequence[Keyframe],
        *,
        steps: int | None = None,
        method: Literal["slerp", "lerp"] | None = None,
        loop: bool | None = None,
        **options: Unpack[Options],
    ) -> Call[Pairs]:
        """Generate a walk through key frames: seeds, generated pairs or latents [Z].

        It has `steps` frames from one to the next, both counted, and with `loop` returns to the first. Model,
        truncation and directions are those of the pairs. Raises ValueError if these differ, or others are given; for
        a pair without a seed; and as `generate`.
        """
        fields, keyframes = _json_fields(options, steps=steps, method=method, loop=loop), list(keyframes)
        frames = [_keyframe(one) for one in keyframes]
        fields |= _made_with([one for one in keyframes if isinstance(one, Pair)], fields)
        seeds = [one["seed"] for one in frames if one.keys() == {"seed"}]
        if len(frames) == len(seeds) == 2:
            return Call(read_pairs, "interpolate", fields | {"from": seeds[0], "to": seeds[1]})
        return Call(read_pairs, "interpolate", fields | {"keyframes": frames}, "POST")

    @_Method
    def _shard(self, number: int | np.integer[Any], **options: Unpack[ShardOptions]) -> Call[Iterator[Pair]]:
        if not isinstance(number, int | np.integer) or number < 0:
            raise ValueError(f"number of a shard is {number!r}: allowed are whole numbers from 0")
        return Call(read_shard, f"shards/{int(number):06d}.tar", _fields(options))

    @_Method
    def models(self) -> Call[dict[str, dict[str, Any]]]:
        """Return the cards of the served models by name, the default one first: domains, quality, licence, digest."""
        return Call(read_models, "models")

    @_Method
    def translate(
        self,
        image: Picture,
        *,
        source: str | None = None,
        to: Sequence[str] | None = None,
        model: str | None = None,
        refine: int | None = None,
        fit: Literal["crop", "pad"] | None = None,
        invert: bool = False,
    ) -> Call[Translation]:
        """Find the latent of an image and generate its counterparts in the domains `to`.

        Without `source`, its domain is the one that reconstructs it best; `refine` is the number of further passes;
        `invert` exchanges light and dark first.
        Raises ValueError for an array that is not of bytes or not one image, and for a PIL image of other values.
        """
        fields = _fields({"from": source}, to=to, model=model, refine=refine, fit=fit, invert=invert or None)
        return Call(read_translation, "translate", fields | {"image": _data_url(image)}, "POST")

    @_Method
    def fetch(self, path: str, query: Mapping[str, Any] | None = None) -> Call[bytes]:
        """Return the body of any GET: `client.fetch("interpolate", {"from": 1, "to": 2, "format": "gif"})`."""
        return Call(lambda response, _: response.content, path, query or {})

    async def _reply(self, request: httpx.Request, wait_s: float) -> httpx.Response:
        raise NotImplementedError

    async def _exchange(self, call: Call[T]) -> T:
        """Send a request, again if it is cut or told to wait, and return its result.

        Responses depend on what is sent alone, so any request may be sent again. Raises the RequestError of a problem,
        OtherError for a response that is not the service's, and the error of httpx if there is none.
        """
        request = self._request(call)
        cached = self._cached.get(str(request.url)) if call.verb == "GET" else None
        if cached is not None:
            request.headers["If-None-Match"] = cached.headers["ETag"]
        wait_s, waited_s, cuts = 0.0, 0.0, 0
        while True:
            try:
                response = await self._reply(request, wait_s)
            except CUT:
                if cuts == RETRIES:
                    raise
                wait_s, cuts = RETRY_S * 2**cuts, cuts + 1
                continue
            if cached is not None and response.status_code == 304:
                return call.result(cached)
            if response.is_success:
                self._store(response)
                return call.result(response)
            wait_s = _retry_after(response)
            waited_s += wait_s
            if waited_s > self._max_wait:
                raise problem_error(response)

    def _request(self, call: Call[Any]) -> httpx.Request:
        for name, value in call.fields.items():
            if isinstance(value, list | tuple) and not value:  # which httpx would leave out of a query
                raise ValueError(f"{name} is {value}: allowed is at least one; leave {name} out for the default")
        query, body = (_query(call.fields), None) if call.verb == "GET" else (None, call.fields)
        url, wait = f"{self._url}/{call.path.lstrip('/')}", {"timeout": self._timeout.as_dict()}
        address = httpx.URL(url).copy_merge_params(query) if query else url  # `fetch` takes a path that has a query
        return httpx.Request(call.verb, address, json=body, headers=self._headers, extensions=wait)

    def _store(self, response: httpx.Response) -> None:
        """Store a response that can be revalidated, and drop the oldest."""
        if "ETag" in response.headers and len(response.content) <= MAX_CACHED_BYTES:
            with self._lock:
                self._cached.pop(str(response.url), None)
                self._cached[str(response.url)] = response
                if len(self._cached) > MAX_CACHED:
                    del self._cached[next(iter(self._cached))]


class Client(_Methods[httpx.Client]):
    """A client that blocks; threads may share it.

    Its methods raise the class of `service.errors` that has the `code` of the service's problem, OtherError for a
    response that is not the service's, errors of httpx if there is none, and ValueError before anything is sent.
    """

    _open = httpx.Client

    def shards(self, numbers: Numbers, **options: Unpack[ShardOptions]) -> Iterator[Pair]:
        """Iterate over the pairs of shards: one pair of each of their seeds, or with filters at most one.

        Whole shards are downloaded, one at a time.
        """
        for number in numbers if isinstance(numbers, Iterable) else [numbers]:
            yield from self._shard(number, **options)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        try:
            self._exchange(call).send(None)  # to its end: nothing that it awaits suspends it
        except StopIteration as done:
            return cast("T", done.value)
        raise AssertionError

    async def _reply(self, request: httpx.Request, wait_s: float) -> httpx.Response:
        time.sleep(wait_s)
        return self._http.send(request)


class AsyncClient(_Methods[httpx.AsyncClient]):
    """The same client for asyncio: its methods are awaited, and `shards` is iterated over by `async for`."""

    _open = httpx.AsyncClient

    async def shards(self, numbers: Numbers, **options: Unpack[ShardOptions]) -> AsyncIterator[Pair]:
        """Iterate over the pairs of shards, as `Client.shards` does."""
        for number in numbers if isinstance(numbers, Iterable) else [numbers]:
            for pair in await self._shard(number, **options):
                yield pair

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        return await self._exchange(call)

    async def _reply(self, request: httpx.Request, wait_s: float) -> httpx.Response:
        await asyncio.sleep(wait_s)
        return await self._http.send(request)


def _check_url(url: str) -> None:
    """Raise ValueError for what is no address of a service."""
    try:
        address = httpx.URL(url)
        if address.scheme in ("http", "https") and address.host and not (address.query or address.fragment):
            return
    except (TypeError, httpx.InvalidURL):
        pass
    raise ValueError(f"url is {url!r}: allowed is an address such as {LOCAL}, without a query")


def _fields(options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the fields that are given, by the names and in the types of JSON.

    Raises ValueError for directions that are no mapping.
    """
    renamed = {"class" if name == "class_name" else name: _plain(value) for name, value in {**more, **options}.items()}
    if not isinstance(renamed.get("directions", {}), Mapping | None):
        raise ValueError(f"directions is {options['directions']!r:.80}: allowed is a mapping, such as {{1: 2, 3: -1}}")
    given = {name: value for name, value in renamed.items() if value is not None and value != {}}
    return given | {name: [given[name]] for name in LISTS if isinstance(given.get(name), str)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): float(spreads) for name, spreads in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def _json_fields(options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the fields of a request for pairs. Raises ValueError for a format other than JSON."""
    fields = _fields(options, **more)
    if fields.get("format", "json") != "json":
        allowed = "allowed is 'json', which the client reads as pairs; `fetch` returns files of other formats"
        raise ValueError(f"format is {fields['format']!r}: {allowed}")
    return fields


def _made_with(pairs: Sequence[Pair], fields: Fields) -> dict[str, Any]:
    """Return the model, truncation and directions of pairs. Raises ValueError if they or `fields` differ."""
    made = {name: [_plain(getattr(pair, name)) for pair in pairs] for name in MADE_WITH if pairs}
    for name, values in made.items():
        found = [*values, fields.get(name, values[0])]
        if any(value != found[0] for value in found):
            different = " and ".join(sorted({repr(value) for value in found}))
            raise ValueError(
                f"{name} of the pairs and the walk is {different}: allowed is one; leave {name} out of the walk, "
                "generate all pairs with the same, or give latents instead of pairs"
            )
    return _fields({name: values[0] for name, values in made.items()})


def _query(fields: Fields) -> dict[str, Any]:
    """Return fields as a query has them: directions are 1:2.0,thickness:-1.0."""
    return {
        name: ",".join(f"{key}:{one}" for key, one in value.items()) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }


def _floats(values: ArrayLike, axes: str) -> Any:
    """Return latents as JSON has them. Raises ValueError for what is no finite number, and for other axes."""
    latents = np.asarray(values, np.float64)
    if latents.ndim != len(axes.split()):
        raise ValueError(f"latents have the shape {list(latents.shape)}: allowed is [{axes}], B latents of Z numbers")
    if not np.isfinite(latents).all():
        raise ValueError("a latent holds NaN or infinity: allowed are finite numbers")
    return latents.tolist()


def _keyframe(one: Keyframe) -> dict[str, Any]:
    if isinstance(one, Pair):
        if one.seed is None:
            raise ValueError("a pair of a latent, a frame or a translation has no seed: give its latent [Z] instead")
        return {"seed": one.seed, "index": one.index}
    return {"seed": int(one)} if isinstance(one, int | np.integer) else {"latent": _floats(one, "Z")}


def _data_url(image: Picture) -> str:
    """Return an image as a data URL. Raises ValueError as `_from_array` and `_png`."""
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, bytes | bytearray | memoryview | Image.Image):
        allowed = "the bytes of a file (`Path(...).read_bytes()`), a PIL image or an array uint8 [H, W] or [H, W, C]"
        raise ValueError(f"image is {image!r:.80}: allowed are {allowed}")
    content = _png(image) if isinstance(image, Image.Image) else image
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"  # the service reads the format from the file


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    """Return an array as a PIL image. Raises ValueError if it is not uint8 [H, W] or [H, W, C]."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not 1 <= channels <= 4 or not pixels.size:
        raise ValueError(
            f"image is an array of {pixels.dtype} {list(pixels.shape)}: allowed is uint8 [H, W] or [H, W, 1 to 4]; "
            "give one image, scaled to levels of 0 to 255 and converted by `.astype(np.uint8)`"
        )
    return as_picture(pixels)


def _png(image: Image.Image) -> bytes:
    """Return an image as PNG, upright, as RGB(A) if PNG lacks its mode. Raises ValueError for values of other types."""
    image = ImageOps.exif_transpose(image)  # PNG files of PIL have no orientation
    if image.mode not in PNG_MODES:
        if ImageMode.getmode(image.mode).typestr != "|u1":
            raise ValueError(
                f"image is a PIL image of mode {image.mode}: allowed are modes of bytes, and {', '.join(PNG_MODES)}; "
                "scale it to levels of 0 to 255 and convert it to L or RGB"
            )
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.save(file := io.BytesIO(), "PNG", icc_profile=None)
    return file.getvalue()


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds after which to send a refused request again; infinite if the service gives none."""
    value = response.headers.get("Retry-After", "")
    return float(value) if response.status_code in (429, 503) and value.isdecimal() else math.inf
