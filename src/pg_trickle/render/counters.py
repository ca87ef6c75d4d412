"""The values of a state's columns: over the rows of a group or of a delta, of a single row, and after a change."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.render.parts import WEIGHT, every, row_hash
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role, StateColumn, place_of


def key_values(stage: Stage) -> list[sql.Composable]:
    """The key of a row's group, in the order of the state's keys; of the one group of all rows it is 1."""
    return [sql.SQL("1") if below is None else sql.Identifier(below.name) for _, below in stage.keys]


def fresh_value(stage: Stage, one: StateColumn) -> sql.Composable:
    """A column's value from the rows of a group."""
    if one.role is Role.HASH:
        return row_hash(stage.aggregate.keys)
    if one.role is Role.KEY:
        place = [key for key, _ in stage.keys].index(one)
        return key_values(stage)[place]
    if one.value is not None:
        return one.value.sql()
    return counted(one, sql.SQL("1"))


def counted(one: StateColumn, weight: sql.Composable) -> sql.Composable:
    """Σ w, Σ w·x or Σ w·x², over the rows that count."""
    if one.role is Role.XOR:
        return _turned_bits(one, weight)
    tests = _conditions(one)
    where = sql.SQL(" FILTER (WHERE {tests})").format(tests=every(tests)) if tests else sql.SQL("")
    return sql.SQL("coalesce(sum({term}){where}, 0)::{type}").format(
        term=_term(one, weight), where=where, type=_number(one)
    )


def counted_of(one: StateColumn, side: int) -> sql.Composable:
    """The same, of what is added, of rows that all came (1), each once, or all went (-1): none needs to be weighed."""
    assert one.is_added
    tests = _conditions(one)
    total: sql.Composable = sql.SQL("count(*)")
    if one.argument and one.role in _SUMS:
        total = sql.SQL("sum({term})").format(term=_SUMS[one.role].format(x=sql.Identifier(one.argument)))
    elif one.argument and one.role is Role.SCALES:
        total = sql.SQL("sum({place})").format(place=place_of(one, sql.Identifier(one.argument)))
    elif one.argument and one.role is Role.COUNT:
        # It counts composites as IS DISTINCT FROM does.
        total, tests = sql.SQL("count({x})").format(x=sql.Identifier(one.argument)), tests[:-1]
    where = sql.SQL(" FILTER (WHERE {tests})").format(tests=every(tests)) if tests else sql.SQL("")
    return sql.SQL("{sign}coalesce({total}{where}, 0)::{type}").format(
        sign=sql.SQL("-") if side < 0 else sql.SQL(""), total=total, where=where, type=_number(one)
    )


def added_by(one: StateColumn, weight: sql.Composable) -> sql.Composable:
    """The same for a single row."""
    term, tests = _term(one, weight), _conditions(one)
    if tests:
        term = sql.SQL("CASE WHEN {tests} THEN {term} END").format(tests=every(tests), term=term)
    return sql.SQL("coalesce({term}, 0)::{type}").format(term=term, type=_number(one))


def extreme_of(one: StateColumn) -> sql.Composable:
    """What a single row has that may be an extreme, NULL if nothing."""
    assert one.argument is not None
    if one.condition is None:
        return sql.Identifier(one.argument)
    return sql.SQL("CASE WHEN {condition} THEN {x} END").format(
        condition=sql.Identifier(one.condition), x=sql.Identifier(one.argument)
    )


def _number(one: StateColumn) -> sql.SQL:
    return sql.SQL("numeric") if one.type.name == "numeric" else sql.SQL("bigint")


def _conditions(one: StateColumn) -> list[sql.Composable]:
    """What a row has to satisfy to count."""
    tests: list[sql.Composable] = [sql.Identifier(one.condition)] if one.condition else []
    if one.argument:
        hole = {"x": sql.Identifier(one.argument), "scale": sql.Literal(one.scale)}
        tests += [test.format(**hole) for test in _tests(one)]
    return tests


def _term(one: StateColumn, weight: sql.Composable) -> sql.Composable:
    """What a row that counts adds: w, w·x, w·x² or, at the place of its decimals, w."""
    argument = sql.Identifier(one.argument) if one.argument else None
    term = weight
    # In the type of the sum: several times a bigint need not be one, nor minus the least.
    if argument is not None and one.role in {Role.SUM, Role.FINITE_SUM}:
        term = sql.SQL("{w}::bigint * {x}::{type}").format(w=weight, x=argument, type=_number(one))
    elif argument is not None and one.role in {Role.SQUARES, Role.FINITE_SQUARES}:
        term = sql.SQL("{w}::bigint * {x}::numeric * {x}::numeric").format(w=weight, x=argument)
    elif argument is not None and one.role is Role.SCALES:
        term = sql.SQL("{w}::bigint * {place}").format(w=weight, place=place_of(one, argument))
    return term


def _turned_bits(one: StateColumn, weight: sql.Composable) -> sql.Composable:
    """What rows that come or go an odd number of times turn."""
    assert one.argument is not None
    condition = sql.SQL(" AND {c}").format(c=sql.Identifier(one.condition)) if one.condition else sql.SQL("")
    return sql.SQL("coalesce(bit_xor({x}) FILTER (WHERE {w} % 2 <> 0{condition}), 0)::{type}").format(
        x=sql.Identifier(one.argument), w=weight, condition=condition, type=_type_of(one)
    )


def _type_of(one: StateColumn) -> sql.Identifier:
    assert one.type.name is not None
    return sql.Identifier("pg_catalog", one.type.name)


def _tests(one: StateColumn) -> list[sql.SQL]:
    match one.role:
        case Role.COUNT:
            # IS NOT NULL would ask for the fields of a composite.
            return [sql.SQL("{x} IS DISTINCT FROM NULL")]
        case Role.COUNT_TRUE:
            return [sql.SQL("{x}")]
        case Role.COUNT_FALSE:
            return [sql.SQL("NOT {x}")]
        case Role.COUNT_NAN:
            return [sql.SQL("{x} = 'NaN'")]
        case Role.COUNT_POSITIVE_INFINITY:
            return [sql.SQL("{x} = 'Infinity'")]
        case Role.COUNT_NEGATIVE_INFINITY:
            return [sql.SQL("{x} = '-Infinity'")]
        case Role.COUNT_SCALE:
            return [sql.SQL("scale({x}) = {scale}")]
        case Role.FINITE_SUM | Role.FINITE_SQUARES if one.type.decimals:
            # A number of so many decimals isn't infinite; each comparison copies it out of its row.
            return [sql.SQL("{x} <> 'NaN'")]
        case Role.COUNT_ENDLESS:
            return [sql.SQL("{x} IN ('NaN', 'Infinity', '-Infinity')")]
        case Role.FINITE_SUM | Role.FINITE_SQUARES | Role.SCALES:
            return [sql.SQL("{x} NOT IN ('NaN', 'Infinity', '-Infinity')")]
        case _:
            return []


_SUMS = {
    Role.SUM: sql.SQL("{x}"),
    Role.FINITE_SUM: sql.SQL("{x}::numeric"),
    Role.SQUARES: sql.SQL("{x}::numeric * {x}::numeric"),
    Role.FINITE_SQUARES: sql.SQL("{x}::numeric * {x}::numeric"),
}
_EXTREMES = {
    Role.MIN: sql.SQL("min"),
    Role.MAX: sql.SQL("max"),
    Role.BIT_AND: sql.SQL("bit_and"),
    Role.BIT_OR: sql.SQL("bit_or"),
}


def extremes(one: StateColumn) -> list[sql.Composable]:
    """The extreme value, or the bits, of what left, and of what came."""
    assert one.argument is not None
    condition = sql.SQL(" AND {c}").format(c=sql.Identifier(one.condition)) if one.condition else sql.SQL("")
    hole = {"x": sql.Identifier(one.argument), "w": WEIGHT, "condition": condition}
    extreme = _EXTREMES[one.role]
    return [
        sql.SQL("{f}({x}) FILTER (WHERE {w} < 0{condition}) AS {name}").format(
            f=extreme, name=sql.Identifier(f"gone_{one.name}"), **hole
        ),
        sql.SQL("{f}({x}) FILTER (WHERE {w} > 0{condition}) AS {name}").format(
            f=extreme, name=sql.Identifier(f"came_{one.name}"), **hole
        ),
    ]


def new_value(one: StateColumn) -> sql.Composable:
    """A column's value after a change: of the stored row and what came (``j``), or of the group read again (``r``)."""
    hole = {
        "old": sql.Identifier("j", f"o_{one.name}"),
        "delta": sql.Identifier("j", f"d_{one.name}"),
        "came": sql.Identifier("j", f"came_{one.name}"),
        "again": sql.Identifier("r", f"r_{one.name}"),
    }
    match one.role:
        case Role.VALUE:
            return sql.SQL("{again}").format(**hole)
        case Role.MIN:
            return sql.SQL("CASE WHEN j.hit THEN {again} ELSE LEAST({old}, {came}) END").format(**hole)
        case Role.MAX:
            return sql.SQL("CASE WHEN j.hit THEN {again} ELSE GREATEST({old}, {came}) END").format(**hole)
        case Role.BIT_AND:
            return sql.SQL("CASE WHEN j.hit THEN {again} ELSE coalesce({old} & {came}, {old}, {came}) END").format(
                **hole
            )
        case Role.BIT_OR:
            return sql.SQL("CASE WHEN j.hit THEN {again} ELSE coalesce({old} | {came}, {old}, {came}) END").format(
                **hole
            )
        case Role.XOR:
            return sql.SQL("(coalesce({old}, 0) # {delta})::{type}").format(**hole, type=_type_of(one))
        case _:
            return sql.SQL("coalesce({old}, 0) + {delta}").format(**hole)
