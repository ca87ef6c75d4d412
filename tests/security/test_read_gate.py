"""Attacks on the way in for what only reads: a seal is of one role, session and transaction, and opens two actions."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

import pg_trickle
from tests.security.conftest import TOTALS, Connection, Place, denied

NAME = Jsonb({"name": "public.st"})
SEAL = "SELECT seal FROM pgtrickle.reader"
CALL = "SELECT pgtrickle.read_gate(%s, %s, %s, '{}', %s)"
RIGHT = {"missing": 0, "extra": 0}


def seal_of(conn: Connection) -> bytes:
    row = conn.execute(SEAL).fetchone()
    assert row is not None
    return bytes(row[0])


def verify(conn: Connection, caller: str | None, seal: bytes | None) -> Any:
    """What somebody is told who says that he is this caller."""
    row = conn.execute(CALL, ("verify_stream_table", NAME, caller, seal)).fetchone()
    return row and row[0]


def refused(conn: Connection, caller: str | None, seal: bytes | None) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to call as"), conn.transaction():
        verify(conn, caller, seal)


@pytest.fixture
def stranger(place: Place, author: Connection) -> Connection:
    """Another author, who owns nothing here; st is st_author's."""
    pg_trickle.create_stream_table(author, "st", TOTALS, schedule=None)
    return place.author("stranger")


def test_a07_no_seal_is_guessed(stranger: Connection) -> None:
    """What a seal is made of is known to everybody, but for the secret."""
    with stranger.transaction():
        row = stranger.execute(
            """SELECT sha256(m), sha256(sha256(m)), sha256('\\x00' || sha256(m) || '\\x00')
                 FROM (SELECT convert_to(concat_ws(' ', pg_backend_pid(), extract(epoch FROM transaction_timestamp()),
                                                   'st_author'), 'UTF8')) AS s(m)"""
        ).fetchone()
        own = seal_of(stranger)
        for forged in (*(row or ()), own, own[:-1], own + b"\0", b"", None):
            refused(stranger, "st_author", forged)
        for caller in ("", "Stranger", '"stranger"', "stranger ", "postgres", None):
            refused(stranger, caller, own)


def test_a07_a_seal_is_of_one_role(place: Place, stranger: Connection) -> None:
    """Who puts on another role leaves his seal's name behind, and gets a seal of that one's."""
    place.superuser.execute("GRANT st_author TO stranger")
    with stranger.transaction():
        own = seal_of(stranger)
        stranger.execute("SET LOCAL ROLE st_author")
        authors = seal_of(stranger)
        assert authors != own
        refused(stranger, "st_author", own)
        refused(stranger, "stranger", authors)
        assert verify(stranger, "st_author", authors) == RIGHT
        stranger.execute("RESET ROLE")
        # It doesn't say more than it did: who it is, it says.
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"), stranger.transaction():
            verify(stranger, "stranger", own)
    place.superuser.execute("REVOKE st_author FROM stranger")
    refused(stranger, "st_author", authors)


def test_a07_a_seal_is_of_one_session_and_one_transaction(
    place: Place, author: Connection, stranger: Connection
) -> None:
    namesake = place.as_("st_author")
    with author.transaction(), namesake.transaction(), stranger.transaction():
        seal = seal_of(author)
        assert verify(author, "st_author", seal) == RIGHT
        for thief in (namesake, stranger):
            refused(thief, "st_author", seal)
    refused(author, "st_author", seal)
    with author.transaction():
        first = seal_of(author)
        author.execute("COMMIT AND CHAIN")
        refused(author, "st_author", first)
        assert verify(author, "st_author", seal_of(author)) == RIGHT


def test_a07_each_thing_that_a_seal_is_made_of_counts(place: Place, author: Connection, stranger: Connection) -> None:
    """Who knew the secret could make a seal; not without it, nor one for other sessions, moments or names."""
    made = """SELECT sha256(s.secret || sha256(convert_to(concat_ws(' ', %s::int, %s::numeric, %s::text), 'UTF8'))
                            || s.secret)
                FROM (SELECT coalesce(%s::bytea, (TABLE pgtrickle_changes.gate_secret))) AS s(secret)"""
    with author.transaction():
        pid = author.info.backend_pid
        moment = author.execute("SELECT extract(epoch FROM transaction_timestamp())").fetchone()
        assert moment is not None
        assert verify(author, "st_author", place.value(made, pid, moment[0], "st_author", None)) == RIGHT
        for others in (
            (pid + 1, moment[0], "st_author", None),
            (pid, moment[0] + 1, "st_author", None),
            (pid, moment[0], "stranger", None),
            (pid, moment[0], "st_author", bytes(32)),
        ):
            refused(author, "st_author", place.value(made, *others))


def test_a07_a_savepoint_neither_opens_nor_closes(author: Connection, stranger: Connection) -> None:
    with stranger.transaction():
        for _ in range(2):
            refused(stranger, "st_author", seal_of(stranger))
    with author.transaction(force_rollback=True):
        with author.transaction(force_rollback=True):
            seal = seal_of(author)
        assert verify(author, "st_author", seal) == RIGHT
    refused(author, "st_author", seal)


def test_a07_in_a_strangers_function_he_is_the_caller(place: Place, author: Connection, stranger: Connection) -> None:
    """A SECURITY DEFINER function that the owner or a superuser calls gets its definer's seal and no other."""
    stranger.execute(
        """CREATE FUNCTION trap(whom name) RETURNS jsonb SECURITY DEFINER LANGUAGE sql
           AS $$SELECT pgtrickle.read_gate('verify_stream_table', '{"name": "public.st"}', whom, r.names, r.seal)
                  FROM pgtrickle.reader AS r$$;
           CREATE FUNCTION api() RETURNS SETOF record SECURITY DEFINER LANGUAGE sql
           AS $$SELECT * FROM pgtrickle.verify_stream_table('public.st')$$"""
    )
    for victim in (author, place.superuser):
        for whom in (victim.info.user, "st_author"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to call as"):
                victim.execute("SELECT trap(%s)", (whom,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
            victim.execute("SELECT trap('stranger')")
        with victim.transaction():
            victim.execute("SET TRANSACTION READ ONLY")
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"), victim.transaction():
                victim.execute("SELECT * FROM api() AS v(missing bigint, extra bigint, ok boolean)")


def test_a07_a_view_of_the_owners_seals_for_who_reads_it(
    place: Place, author: Connection, stranger: Connection
) -> None:
    """A view over the one that makes seals names whoever reads it, be it the owner's or a superuser's."""
    author.execute("CREATE VIEW lent AS SELECT * FROM pgtrickle.reader; GRANT SELECT ON lent TO stranger")
    place.superuser.execute("CREATE VIEW lent_too AS TABLE pgtrickle.reader; GRANT SELECT ON lent_too TO stranger")
    for view in ("lent", "lent_too"):
        with stranger.transaction():
            row = stranger.execute(sql.SQL("SELECT caller, seal FROM {}").format(sql.Identifier(view))).fetchone()
            assert row is not None
            assert row[0] == "stranger"
            assert row[1] == seal_of(stranger)
            refused(stranger, "st_author", row[1])
    # What is kept of it is worth nothing.
    author.execute("CREATE MATERIALIZED VIEW kept AS SELECT * FROM pgtrickle.reader; GRANT SELECT ON kept TO stranger")
    row = stranger.execute("SELECT caller, seal FROM kept").fetchone()
    assert row is not None
    assert row[0] == "st_author"
    refused(stranger, "st_author", row[1])


@pytest.mark.versions
def test_a07_who_reads_everything_does_not_read_the_secret(place: Place, stranger: Connection) -> None:
    """Nor what ANALYZE keeps of it, which such a role may read as well."""
    place.superuser.execute("ALTER ROLE stranger INHERIT; GRANT pg_read_all_data, pg_write_all_data TO stranger")
    place.superuser.execute("ANALYZE pgtrickle_changes.gate_secret")
    secret = place.value("SELECT encode(secret, 'hex') FROM pgtrickle_changes.gate_secret")
    assert len(secret) == 64
    assert stranger.execute("TABLE pgtrickle_changes.gate_secret").fetchall() == []
    denied(
        stranger,
        "SET row_security = off; TABLE pgtrickle_changes.gate_secret",
        "INSERT INTO pgtrickle_changes.gate_secret VALUES ('')",
        "TRUNCATE pgtrickle_changes.gate_secret",
        "SELECT pgtrickle_changes.is_sealed('st_author', '')",
        "SELECT pgtrickle_changes.act('st_author', 'verify_stream_table', '{}', '{}')",
    )
    stranger.execute("RESET row_security")
    assert stranger.execute("UPDATE pgtrickle_changes.gate_secret SET secret = '' RETURNING 1").fetchall() == []
    assert stranger.execute("DELETE FROM pgtrickle_changes.gate_secret RETURNING 1").fetchall() == []
    kept = stranger.execute(
        "SELECT s::text FROM pg_statistic AS s WHERE s.starelid = 'pgtrickle_changes.gate_secret'::regclass"
    )
    assert secret not in str(kept.fetchall())
    refused(stranger, "st_author", seal_of(stranger))


def test_a07_two_actions_pass_and_no_other(place: Place, author: Connection, stranger: Connection) -> None:
    actions = [action for (action,) in place.superuser.execute("SELECT action FROM pgtrickle_changes.gate_actions")]
    passed = []
    for action in actions:
        try:
            with author.transaction():
                author.execute(CALL, (action, NAME, "st_author", seal_of(author)))
            passed.append(action)
        except psycopg.errors.ReadOnlySqlTransaction:
            continue
    assert sorted(passed) == ["change_buffer_sizes", "verify_stream_table"]
    assert len(actions) > 20
    # Nor does EXECUTE on read_gate stand for that on the function itself.
    place.superuser.execute("REVOKE EXECUTE ON FUNCTION pgtrickle.verify_stream_table(text) FROM st_author")
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"),
        author.transaction(),
    ):
        verify(author, "st_author", seal_of(author))


@pytest.mark.parametrize(
    "names", [None, [], 7, "text", {"schemas": "x"}, {"schemas": ["'; DROP TABLE orders; --"]}, {"name": "public.st"}]
)
def test_a11_forged_names_find_nothing_that_is_not_the_callers(stranger: Connection, names: Any) -> None:
    """What names mean the caller may invent: then they mean that, to him."""
    for args in (Jsonb({"name": "st"}), Jsonb({}), Jsonb(7), None):
        with pytest.raises(psycopg.Error) as caught, stranger.transaction():
            stranger.execute(
                "SELECT pgtrickle.read_gate('verify_stream_table', %s, 'stranger', %s, %s)",
                (args, None if names is None else Jsonb(names), seal_of(stranger)),
            )
        assert caught.value.sqlstate in {"22023", "42P01", "42501", "42602", "22004"}, (args, caught.value)
