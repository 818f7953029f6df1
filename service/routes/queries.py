"""What a query may hold beyond what its schema says: no parameter twice but of lists, none beside a body."""

from __future__ import annotations

from collections import Counter

from fastapi import Request

from service.errors import FieldError, InvalidRequest


def refuse_repeats(request: Request, *lists: str) -> None:
    """Raise InvalidRequest where a parameter is repeated that is none of `lists`; FastAPI takes the last."""
    query = request.query_params
    if len(given := query.multi_items()) == len(query):
        return
    wrong = [
        FieldError(f"/{name}", query.getlist(name), "once", "query")
        for name, times in Counter(name for name, _ in given).items()
        if times > 1 and name not in lists
    ]
    if wrong:
        names = ", ".join(repr(error.pointer[1:]) for error in wrong)
        raise InvalidRequest(f"{names} is given several times; allowed is once", wrong)


def refuse_query(request: Request) -> None:
    """Raise InvalidRequest where a request by a body has a query, too, which nothing would read."""
    if not request.scope["query_string"]:
        return
    wrong = [
        FieldError(f"/{name}", value, "none: it belongs into the body", "query")
        for name, value in request.query_params.items()
    ]
    if wrong:
        raise InvalidRequest("what a query asks beside a body belongs into the body", wrong[:20])
