"""What happens to TPC-H's tables: single rows of each, the specification's refresh functions, and what they leave out.

Every statement depends on nothing but the number of its cycle, so a failure comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

# A row of each table, written in each way, alone: which of 22 queries it concerns is for the compiler to know.
SINGLES: dict[str, str] = {
    "a line comes": """
        INSERT INTO lineitem
        SELECT l_orderkey, l_partkey, l_suppkey, 90, l_quantity, l_extendedprice, l_discount, l_tax, l_returnflag,
               l_linestatus, date '1994-03-03', date '1994-04-04', date '1994-05-05', l_shipinstruct, 'MAIL', l_comment
          FROM lineitem WHERE l_orderkey = 1 AND l_linenumber = 1
        """,
    "a line changes": "UPDATE lineitem SET l_quantity = 5 WHERE l_orderkey = 1 AND l_linenumber = 90",
    "a line goes": "DELETE FROM lineitem WHERE l_orderkey = 1 AND l_linenumber = 90",
    "an order comes": """
        INSERT INTO orders
        SELECT 100000, o_custkey, 'F', o_totalprice, date '1993-08-08', '2-HIGH', o_clerk, 0, NULL
          FROM orders WHERE o_orderkey = 3
        """,
    "an order changes": "UPDATE orders SET o_orderdate = date '1995-03-01', o_orderstatus = 'F' WHERE o_orderkey = 7",
    "an order goes": "DELETE FROM orders WHERE o_orderkey = 3",
    "a customer comes": """
        INSERT INTO customer VALUES (100000, 'Customer#000100000', 'x', 3, '13-100-100-1000', 9000.00, 'BUILDING', NULL)
        """,
    "a customer changes": "UPDATE customer SET c_mktsegment = 'BUILDING', c_acctbal = -1 WHERE c_custkey = 370",
    "a customer goes": "DELETE FROM customer WHERE c_custkey = 781",
    "a part comes": """
        INSERT INTO part
        VALUES (100000, 'forest green', 'Manufacturer#1', 'Brand#23', 'ECONOMY BRASS', 15, 'MED BOX', 1, '')
        """,
    "a part changes": "UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX' WHERE p_partkey = 1552",
    "a part goes": "DELETE FROM part WHERE p_partkey = 674",
    "an offer comes": "INSERT INTO partsupp VALUES (100000, 4, 100, 1.00, 'new')",
    "an offer changes": "UPDATE partsupp SET ps_supplycost = 900, ps_availqty = 9999 WHERE ps_partkey = 100000",
    "an offer goes": "DELETE FROM partsupp WHERE ps_partkey = 1 AND ps_suppkey = 2",
    "a supplier comes": "INSERT INTO supplier VALUES (100000, 'Supplier#000100000', 'x', 7, '17-1', 1.00, NULL)",
    "a supplier changes": "UPDATE supplier SET s_acctbal = 9999.99, s_address = 'y' WHERE s_suppkey = 4",
    "a supplier goes": "DELETE FROM supplier WHERE s_suppkey = 93",
    "a nation comes": "INSERT INTO nation VALUES (25, 'ATLANTIS', 3, NULL)",
    "a nation changes": "UPDATE nation SET n_name = 'GERMANY' WHERE n_nationkey = 25",
    "a nation goes": "DELETE FROM nation WHERE n_nationkey = 10",
    "a region comes": "INSERT INTO region VALUES (5, 'ASIA', NULL)",
    "a region changes": "UPDATE region SET r_name = 'EUROPE' WHERE r_regionkey = 5",
    "a region goes": "DELETE FROM region WHERE r_regionkey = 1",
    "the region comes back": "INSERT INTO region VALUES (1, 'AMERICA', NULL)",
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Statements of one transaction; the parameter ``cycle`` is the number of the cycle."""

    title: str
    statements: tuple[str, ...]


NEW_ORDERS = (
    """
    INSERT INTO orders
    SELECT o_orderkey + 100000 * %(cycle)s, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority,
           o_clerk, o_shippriority, o_comment
      FROM orders WHERE o_orderkey %% 149 = %(cycle)s
    """,
    """
    INSERT INTO lineitem
    SELECT l_orderkey + 100000 * %(cycle)s, l_partkey, l_suppkey, l_linenumber, l_quantity, l_extendedprice, l_discount,
           l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate, l_shipinstruct, l_shipmode,
           l_comment
      FROM lineitem WHERE l_orderkey %% 149 = %(cycle)s
    """,
)
OLD_ORDERS = (
    "DELETE FROM lineitem WHERE l_orderkey %% 151 = %(cycle)s",
    "DELETE FROM orders WHERE o_orderkey %% 151 = %(cycle)s",
)
DATES = (
    "UPDATE orders SET o_orderdate = o_orderdate + 200 - o_orderkey %% 400 WHERE o_orderkey %% 139 = %(cycle)s",
    """
    UPDATE lineitem
       SET l_shipdate = l_shipdate + 90 - l_partkey %% 180, l_commitdate = l_receiptdate, l_receiptdate = l_commitdate
     WHERE l_orderkey %% 137 = %(cycle)s
    """,
)
KEYS = (
    """
    UPDATE lineitem SET l_orderkey = l_orderkey + 1, l_linenumber = l_linenumber + 10 * %(cycle)s
     WHERE l_orderkey %% 131 = %(cycle)s
    """,
    """
    UPDATE lineitem SET l_suppkey = 1 + l_suppkey %% 100, l_partkey = 1 + l_partkey %% 2000
     WHERE l_orderkey %% 127 = %(cycle)s
    """,
    "UPDATE orders SET o_custkey = 1 + (o_custkey * 7) %% 1500 WHERE o_orderkey %% 113 = %(cycle)s",
    "UPDATE orders SET o_orderkey = -o_orderkey WHERE o_orderkey %% 331 = %(cycle)s",
)
PLACES = (
    "UPDATE supplier SET s_nationkey = (s_nationkey + 1) %% 25 WHERE s_suppkey %% 13 = %(cycle)s %% 13",
    "UPDATE customer SET c_nationkey = (c_nationkey + 3) %% 25 WHERE c_custkey %% 31 = %(cycle)s %% 31",
    "UPDATE nation SET n_regionkey = (n_regionkey + 1) %% 5 WHERE n_nationkey %% 9 = %(cycle)s %% 9",
    """
    UPDATE nation AS n SET n_name = o.n_name FROM nation AS o
     WHERE (n.n_nationkey, o.n_nationkey) IN ((3, 20), (20, 3), (7, 6), (6, 7))
    """,
)
PARTS = (
    "UPDATE part SET p_size = 15, p_type = 'LARGE BRASS' WHERE p_partkey %% 23 = %(cycle)s %% 23",
    """
    UPDATE part SET p_brand = 'Brand#23', p_container = CASE WHEN p_partkey %% 2 = 0 THEN 'MED BOX' ELSE 'MED BAG' END
     WHERE p_partkey %% 41 = %(cycle)s %% 41
    """,
    "UPDATE part SET p_name = 'forest ' || p_name WHERE p_partkey %% 43 = %(cycle)s %% 43",
    "UPDATE part SET p_type = 'ECONOMY ANODIZED STEEL' WHERE p_partkey %% 47 = %(cycle)s %% 47",
    "DELETE FROM part WHERE p_partkey %% 397 = %(cycle)s",
    """
    INSERT INTO part
    SELECT p_partkey + 10000 * %(cycle)s, p_name, p_mfgr, p_brand, p_type, p_size, p_container, p_retailprice
      FROM part WHERE p_partkey %% 401 = %(cycle)s
    """,
)
OFFERS = (
    # The cheapest offer of a part goes, and what was the dearest becomes the cheapest.
    """
    DELETE FROM partsupp AS p WHERE ps_partkey %% 11 = %(cycle)s %% 11
       AND ps_supplycost = (SELECT min(ps_supplycost) FROM partsupp AS o WHERE o.ps_partkey = p.ps_partkey)
    """,
    "UPDATE partsupp SET ps_supplycost = 1001 - ps_supplycost WHERE ps_partkey %% 17 = %(cycle)s %% 17",
    # Over the eleventh query's threshold and below it again.
    "UPDATE partsupp SET ps_availqty = ps_availqty * 20 WHERE ps_partkey %% 19 = %(cycle)s %% 19",
    "UPDATE partsupp SET ps_availqty = ps_availqty / 20 WHERE ps_partkey %% 19 = (%(cycle)s + 18) %% 19",
    """
    UPDATE partsupp SET ps_partkey = 1 + (ps_partkey * 3) %% 2000, ps_suppkey = ps_suppkey + 100 * %(cycle)s
     WHERE ps_partkey %% 97 = %(cycle)s
    """,
)
SUPPLIERS = (
    # Who earned the most in the fifteenth query's quarter goes.
    """
    DELETE FROM supplier WHERE s_suppkey = (
        SELECT l_suppkey FROM lineitem JOIN supplier ON s_suppkey = l_suppkey
         WHERE l_shipdate >= date '1996-01-01' AND l_shipdate < date '1996-04-01'
         GROUP BY l_suppkey ORDER BY sum(l_extendedprice * (1 - l_discount)) DESC, l_suppkey LIMIT 1)
    """,
    """
    UPDATE lineitem SET l_suppkey = 1 + (l_suppkey + %(cycle)s) %% 100
     WHERE l_suppkey = (
        SELECT l_suppkey FROM lineitem WHERE l_shipdate >= date '1996-01-01' AND l_shipdate < date '1996-04-01'
         GROUP BY l_suppkey ORDER BY sum(l_extendedprice * (1 - l_discount)) DESC, l_suppkey LIMIT 1)
    """,
    "UPDATE supplier SET s_comment = 'Customer many Complaints' WHERE s_suppkey %% 19 = %(cycle)s %% 19",
    "UPDATE supplier SET s_comment = NULL WHERE s_suppkey %% 19 = (%(cycle)s + 17) %% 19",
)
QUANTITIES = (
    # Over the eighteenth query's threshold and below it again; below the seventeenth's average and above.
    "UPDATE lineitem SET l_quantity = l_quantity + 200 WHERE l_orderkey %% 251 = %(cycle)s",
    "UPDATE lineitem SET l_quantity = 1 WHERE l_orderkey %% 251 = %(cycle)s - 2",
    "UPDATE lineitem SET l_quantity = 0.5 WHERE l_partkey %% 23 = %(cycle)s %% 23 AND l_linenumber = 1",
)
LAST_ONES = (
    # The last lines of an order, the last orders of a customer.
    "DELETE FROM lineitem WHERE l_orderkey %% 163 = %(cycle)s",
    "DELETE FROM orders WHERE o_custkey %% 53 = %(cycle)s %% 53",
    """
    DELETE FROM lineitem USING orders
     WHERE o_orderkey = l_orderkey AND l_linenumber > 1 AND o_custkey %% 59 = %(cycle)s %% 59
    """,
)
LATE = (
    "UPDATE lineitem SET l_receiptdate = l_commitdate + 1 WHERE l_orderkey %% 173 = %(cycle)s",
    "UPDATE lineitem SET l_receiptdate = l_commitdate - 1 WHERE l_orderkey %% 179 = %(cycle)s AND l_linenumber > 1",
    "UPDATE lineitem SET l_suppkey = l.l_suppkey FROM lineitem AS l"
    " WHERE l.l_orderkey = lineitem.l_orderkey AND l.l_linenumber = 1 AND lineitem.l_orderkey %% 181 = %(cycle)s",
    """
    UPDATE orders SET o_orderstatus = CASE o_orderstatus WHEN 'F' THEN 'O' ELSE 'F' END
     WHERE o_orderkey %% 191 = %(cycle)s
    """,
)
CUSTOMERS = (
    "UPDATE customer SET c_phone = CASE WHEN c_custkey %% 2 = 0 THEN '13' ELSE '99' END || substr(c_phone, 3)"
    " WHERE c_custkey %% 29 = %(cycle)s %% 29",
    "UPDATE customer SET c_acctbal = -c_acctbal WHERE c_custkey %% 37 = %(cycle)s %% 37",
    "UPDATE customer SET c_mktsegment = 'BUILDING' WHERE c_custkey %% 71 = %(cycle)s %% 71",
    "DELETE FROM customer WHERE c_custkey %% 211 = %(cycle)s",
    """
    INSERT INTO customer
    SELECT c_custkey + 10000 * %(cycle)s, c_name, c_address, c_nationkey, c_phone, c_acctbal, c_mktsegment, c_comment
      FROM customer WHERE c_custkey %% 223 = %(cycle)s
    """,
)
NULLS = (
    "UPDATE customer SET c_phone = NULL, c_acctbal = NULL WHERE c_custkey %% 61 = %(cycle)s",
    "UPDATE orders SET o_custkey = NULL, o_orderpriority = NULL WHERE o_orderkey %% 193 = %(cycle)s",
    "UPDATE lineitem SET l_commitdate = NULL WHERE l_orderkey %% 197 = %(cycle)s",
    "UPDATE lineitem SET l_receiptdate = NULL, l_shipmode = NULL WHERE l_orderkey %% 199 = %(cycle)s",
    "UPDATE part SET p_size = NULL, p_container = NULL WHERE p_partkey %% 67 = %(cycle)s",
    "UPDATE partsupp SET ps_supplycost = NULL WHERE ps_partkey %% 71 = %(cycle)s",
    "UPDATE supplier SET s_nationkey = NULL WHERE s_suppkey %% 41 = %(cycle)s",
    "UPDATE nation SET n_regionkey = NULL WHERE n_nationkey = %(cycle)s",
)
NO_NULLS = (
    "UPDATE customer SET c_phone = '31-1', c_acctbal = 5000 WHERE c_phone IS NULL",
    "UPDATE orders SET o_custkey = 1 + abs(o_orderkey) %% 1500, o_orderpriority = '1-URGENT' WHERE o_custkey IS NULL",
    "UPDATE lineitem SET l_commitdate = l_shipdate + 10 WHERE l_commitdate IS NULL",
    "UPDATE lineitem SET l_receiptdate = l_shipdate + 30, l_shipmode = 'SHIP' WHERE l_receiptdate IS NULL",
    "UPDATE part SET p_size = 49, p_container = 'MED BOX' WHERE p_size IS NULL",
    "UPDATE partsupp SET ps_supplycost = 1 WHERE ps_supplycost IS NULL",
    "UPDATE supplier SET s_nationkey = 20 WHERE s_nationkey IS NULL",
    "UPDATE nation SET n_regionkey = 2 WHERE n_regionkey IS NULL",
)

BATCHES = (
    Batch("orders come with their lines", NEW_ORDERS),
    Batch("orders go with their lines", OLD_ORDERS),
    Batch("dates cross the filters' boundaries", DATES),
    Batch("keys move", KEYS),
    Batch("suppliers, customers and nations move", PLACES),
    Batch("parts change, come and go", PARTS),
    Batch("offers change, come and go", OFFERS),
    Batch("the best supplier goes, others are complained about", SUPPLIERS),
    Batch("quantities cross the thresholds", QUANTITIES),
    Batch("the last line of an order goes, the last order of a customer", LAST_ONES),
    Batch("lines come late, or no longer", LATE),
    Batch("customers change, come and go", CUSTOMERS),
    Batch("values become unknown", NULLS),
    Batch("values become known", NO_NULLS),
    Batch("half of it at once", (*DATES, *PLACES, *OFFERS, *LATE, *CUSTOMERS)),
    Batch("the other half at once", (*NEW_ORDERS, *OLD_ORDERS, *KEYS, *PARTS, *SUPPLIERS, *QUANTITIES)),
    Batch(
        "all of it at once", (*NULLS, *NEW_ORDERS, *KEYS, *PLACES, *PARTS, *OFFERS, *LAST_ONES, *CUSTOMERS, *NO_NULLS)
    ),
)
