"""Values decoded from JSON by the handler's annotation; a value that does not fit is poison.

Run it from the repository, with a broker on port 9092 (``make kafka``)::

    PENSTOCK_BOOTSTRAP_SERVERS=localhost:9092 penstock run examples/typed.py:app
"""

from datetime import datetime

from pydantic import BaseModel, Field

from penstock import App, Record, dead_letter

app = App()
stock: dict[str, int] = {}


class Delivery(BaseModel):
    """A dataclass or a TypedDict will do as well."""

    article: str
    pieces: int = Field(gt=0)
    at: datetime


@app.subscribe("deliveries", group="stock", then=dead_letter("deliveries.dead"))
def book(delivery: Delivery, record: Record) -> None:
    """The second argument is there for those who want the key, the headers, the offset."""
    stock[delivery.article] = stock.get(delivery.article, 0) + delivery.pieces
    print(f"{record}: {delivery.pieces} of {delivery.article}, delivered {delivery.at:%d %B}")
