from __future__ import annotations

from pg_trickle.worker.dag import Dag, StreamTable

ORDERS, CUSTOMERS, PARTS = 100, 101, 102


def chain(*depends_on: tuple[int, ...]) -> Dag:
    """Stream tables 1, 2, … that read the given ones."""
    return Dag.of(
        StreamTable(table, f"t{table}", depends_on=frozenset(upstream)) for table, upstream in enumerate(depends_on, 1)
    )


def test_each_table_comes_after_those_it_reads():
    dag = chain((3,), (1,), (), (1, 2))
    assert dag.order([1, 2, 3, 4]) == (3, 1, 2, 4)


def test_order_holds_through_tables_that_are_left_out():
    dag = chain((2,), (3,), ())
    assert dag.order([1, 3]) == (3, 1)


def test_a_chain_longer_than_the_stack_is_ordered():
    size = 5000
    dag = Dag.of(
        StreamTable(n, str(n), depends_on=frozenset({n + 1}) if n < size else frozenset()) for n in range(1, size + 1)
    )
    assert dag.order([1, size]) == (size, 1)
    assert len(dag.closure([1])) == size


def test_a_cycle_ends_the_walk_and_loses_nobody():
    dag = chain((2,), (1,))
    assert sorted(dag.order([1, 2])) == [1, 2]
    assert dag.closure([1]) == {1, 2}


def test_closure_takes_in_what_is_above_but_not_past_a_suspended_table():
    tables = [
        StreamTable(1, "top"),
        StreamTable(2, "suspended", depends_on=frozenset({1}), status="SUSPENDED"),
        StreamTable(3, "bottom", depends_on=frozenset({2})),
        StreamTable(4, "other", depends_on=frozenset({1})),
    ]
    dag = Dag.of(tables)
    assert dag.closure([3]) == {3}
    assert dag.closure([4]) == {1, 4}


def test_frozen_and_immediate_tables_are_not_for_the_scheduler():
    assert not StreamTable(1, "t", tier="frozen").refreshable
    assert not StreamTable(1, "t", refresh_mode="IMMEDIATE").refreshable
    assert not StreamTable(1, "t", status="ERROR").refreshable
    assert StreamTable(1, "t", status="INITIALIZING").refreshable


def test_tables_that_share_a_source_are_one_group():
    dag = Dag.of(
        [
            StreamTable(1, "a", sources=frozenset({ORDERS})),
            StreamTable(2, "b", sources=frozenset({ORDERS, CUSTOMERS})),
            StreamTable(3, "c", sources=frozenset({CUSTOMERS})),
            StreamTable(4, "d", sources=frozenset({PARTS})),
        ]
    )
    assert dag.groups([1, 2, 3, 4]) == ((1, 2, 3), (4,))
    assert dag.groups([1, 3, 4]) == ((1,), (3,), (4,))


def test_a_table_and_what_it_reads_are_one_group():
    assert chain((), (1,), (), (3,)).groups([1, 2, 3, 4]) == ((1, 2), (3, 4))


def test_an_unknown_upstream_is_ignored():
    dag = chain((99,))
    assert dag.order([1]) == (1,)
    assert dag.groups([1]) == ((1,),)
