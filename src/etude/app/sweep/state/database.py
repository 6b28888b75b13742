"""The two databases behind one small face: a transaction at a time, whoever else is at work."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from etude.base.errors import ConfigError, StorageError
from etude.base.files import make_folder

if TYPE_CHECKING:
    import psycopg

Value = str | int | float | None
Row = Sequence[Any]
WAIT_SECONDS = 60.0
"""How long a transaction waits for another process's."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS etude_sweep (
        sweep TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (sweep, name))""",
    """CREATE TABLE IF NOT EXISTS etude_trial (
        sweep TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, combination TEXT NOT NULL,
        state TEXT NOT NULL, owner TEXT, beat INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0,
        value DOUBLE PRECISION, step INTEGER, seconds DOUBLE PRECISION NOT NULL DEFAULT 0, code INTEGER, error TEXT,
        remarks TEXT, PRIMARY KEY (sweep, name), UNIQUE (sweep, number))""",
    """CREATE TABLE IF NOT EXISTS etude_value (
        sweep TEXT NOT NULL, trial TEXT NOT NULL, number INTEGER NOT NULL, step INTEGER NOT NULL,
        value DOUBLE PRECISION, PRIMARY KEY (sweep, trial, number))""",
)


class LostError(StorageError):
    """The database was lost in a transaction, which has taken effect or not; it may be there again."""


class Transaction(Protocol):
    """Statements that take effect together, or not at all."""

    def run(self, statement: str, *values: Value) -> int:
        """Do a statement, `?` standing for each value; how many rows it changed."""

    def rows(self, statement: str, *values: Value) -> list[Row]:
        """What a query finds."""


class Database(Protocol):
    """Holds transactions, one after the other among all processes."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Give a transaction that no other one overlaps. Raises StorageError, LostError where it may be tried again."""

    def close(self) -> None:
        """Let it go."""


@final
class Sqlite:
    """A file. A process that dies in a transaction leaves it undone."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._path = path
        with self._telling():
            self._connection = sqlite3.connect(
                path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        with self.transaction() as made:
            for table in TABLES:
                made.run(table)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Give a transaction; it writes from its begin, so that two never wait for each other in turn."""
        with self._telling():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield _OfSqlite(self._connection)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"The state of the sweep cannot be used: {error} ({self._path}).") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@final
class _OfSqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, *values: Value) -> int:
        return self._connection.execute(statement, values).rowcount

    def rows(self, statement: str, *values: Value) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()


class Postgres:
    """A PostgreSQL database at a URL, which many machines can share; one that was away is connected to anew."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigError("sweep.state is a PostgreSQL URL: run pip install 'etude[postgres]'.") from None
        self._connect, self._errors, self._url = psycopg.connect, psycopg.Error, url
        with self._telling(StorageError):
            self._connection = self._connected()
            self._make_tables()

    def _connected(self) -> "psycopg.Connection[Any]":
        return self._connect(self._url, connect_timeout=int(WAIT_SECONDS), autocommit=True)

    def _make_tables(self) -> None:
        """Make what is missing; several processes may begin at once, and PostgreSQL lets only one make a table."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            for table in TABLES:
                cursor.execute(table)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Give a transaction, which holds a lock of the database until it ends."""
        if self._connection.closed:
            with self._telling(LostError):
                self._connection = self._connected()
        with self._telling(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            yield _OfPostgres(cursor)

    @contextmanager
    def _telling(self, kind: type[StorageError] | None = None) -> Iterator[None]:
        """Raise psycopg's errors as those of a kind; unless one is given, as LostError where the connection is lost."""
        try:
            yield
        except self._errors as error:
            said = " ".join(str(error).split()).rstrip(".?")
            kind = kind or (LostError if self._is_lost(error) else StorageError)
            raise kind(f"The state of the sweep at {self._url} cannot be used: {said}.") from error

    def _is_lost(self, error: Any) -> bool:
        """Whether an error is the end of the connection, which is closed then.

        A server that goes down says so (SQLSTATE classes 57 and 08) a moment before the connection is seen to end.
        """
        ends = str(error.sqlstate or "").startswith(("57", "08"))
        if ends:
            self._connection.close()
        return ends or bool(self._connection.closed)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


_LOCK = 0x457475646553776
"""The number of the advisory lock of sweeps."""


@final
class _OfPostgres:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def run(self, statement: str, *values: Value) -> int:
        self._execute(statement, values)
        return int(self._cursor.rowcount)

    def rows(self, statement: str, *values: Value) -> list[Row]:
        self._execute(statement, values)
        return list(self._cursor.fetchall())

    def _execute(self, statement: str, values: Sequence[Value]) -> None:
        plain = [str(value) if isinstance(value, str) else value for value in values]  # a word of an enum is text
        self._cursor.execute(statement.replace("?", "%s"), plain)
