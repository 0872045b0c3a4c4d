"""kafka-python's network client, with a broker's "no" to the credentials put back (trap 15).

Two things hide it. A broker answers "no" and closes; the client throws away what it reads
together with the end of the stream, so it sees an ordinary disconnect. And it means to
remember such failures, but looks for them where they never arrive. So wrong credentials
look like an absent broker: the constructor tries until its timeout, a consumer for ever.
"""

from __future__ import annotations

from typing import Any, Final

from kafka import KafkaConsumer
from kafka import errors as k
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

#: A broker's final word; everything else that ends a connection may pass.
_REFUSED: Final = (
    k.SaslAuthenticationFailedError,
    k.UnsupportedSaslMechanismError,
    k.IllegalSaslStateError,
)


class NetClient(KafkaNetClient):  # type: ignore[misc] # kafka-python has no types
    """What ``KafkaConsumer`` makes its connections with."""

    def __init__(self, **options: Any) -> None:
        net = NetworkSelector(**options)
        super().__init__(net, _Manager(net, **options), **options)
        # Trap 17: the option never gets here, so a topic that is only asked for is created.
        self.cluster.config["allow_auto_create_topics"] = False

    @property
    def refused(self) -> Exception | None:
        """A broker's refusal of the credentials, if there was one."""
        return next(iter(self._manager._auth_failures.values()), None)  # noqa: SLF001 (trap 15)

    @property
    def last_error(self) -> Exception | None:
        """Why the last connection that failed did so: what "no broker answered" leaves out."""
        error: Exception | None = self._manager.last_error
        return error


class _Manager(KafkaConnectionManager):  # type: ignore[misc] # kafka-python has no types
    """Notes every connection that failed. All of it runs on the client's I/O thread."""

    last_error: Exception | None = None

    async def _build_transport(self, *args: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*args, **options)
        receive = transport._sock_recv  # noqa: SLF001 (trap 15)

        def last_words_first() -> tuple[bytes, Exception | None]:
            data, error = receive()
            return data, None if data else error  # the end of the stream is there to be read again

        transport._sock_recv = last_words_first  # noqa: SLF001 (trap 15)
        return transport

    async def _connect(self, node: Any, conn: Any, *args: Any, **options: Any) -> None:
        await super()._connect(node, conn, *args, **options)
        conn.init_future.add_errback(lambda error: self._note(node.node_id, error))

    def _note(self, node: object, error: Exception) -> None:
        self.last_error = error
        if isinstance(error, _REFUSED):
            # The next use of the connection raises it: the constructor ends at once.
            self._auth_failures[node] = error


class NotOpened(Exception):
    """A consumer could not be made. ``why`` is the last thing that a connection met, if any."""

    def __init__(self, error: Exception, refused: Exception | None, why: Exception | None) -> None:
        super().__init__(str(error))
        self.error = refused or error
        self.why = why
        self.nobody_answered = refused is None and isinstance(error, k.KafkaTimeoutError)


def open_consumer(options: dict[str, Any]) -> tuple[Any, NetClient]:
    """Make a consumer; one that cannot be made leaves no thread and no socket behind.

    Raises:
        NotOpened: nobody answered, or somebody refused.
    """
    clients: list[NetClient] = []

    def client(**more: Any) -> NetClient:
        clients.append(NetClient(**more))
        return clients[-1]

    try:
        return KafkaConsumer(**options, kafka_client=client), clients[-1]
    except (k.KafkaError, OSError, ValueError, TypeError, AssertionError) as error:
        refused = next((c.refused for c in clients if c.refused is not None), None)
        why = next((c.last_error for c in clients if c.last_error is not None), None)
        for each in clients:
            each.close()
        raise NotOpened(error, refused, why) from error
