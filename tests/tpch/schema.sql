-- The eight tables, with their primary keys and an index for each foreign key.  Foreign keys aren't declared, so that
-- rows may lose their partners; columns on which the queries put conditions may be NULL.

CREATE TABLE region (
    r_regionkey int      PRIMARY KEY,
    r_name      char(25) NOT NULL,
    r_comment   varchar(152)
);

CREATE TABLE nation (
    n_nationkey int      PRIMARY KEY,
    n_name      char(25) NOT NULL,
    n_regionkey int,
    n_comment   varchar(152)
);

CREATE TABLE supplier (
    s_suppkey   int           PRIMARY KEY,
    s_name      char(25)      NOT NULL,
    s_address   varchar(40)   NOT NULL,
    s_nationkey int,
    s_phone     char(15)      NOT NULL,
    s_acctbal   numeric(15,2) NOT NULL,
    s_comment   varchar(101)
);

CREATE TABLE part (
    p_partkey     int           PRIMARY KEY,
    p_name        varchar(55)   NOT NULL,
    p_mfgr        char(25)      NOT NULL,
    p_brand       char(10)      NOT NULL,
    p_type        varchar(25)   NOT NULL,
    p_size        int,
    p_container   char(10),
    p_retailprice numeric(15,2) NOT NULL,
    p_comment     varchar(23)
);

CREATE TABLE partsupp (
    ps_partkey    int NOT NULL,
    ps_suppkey    int NOT NULL,
    ps_availqty   int NOT NULL,
    ps_supplycost numeric(15,2),
    ps_comment    varchar(199),
    PRIMARY KEY (ps_partkey, ps_suppkey)
);

CREATE TABLE customer (
    c_custkey    int         PRIMARY KEY,
    c_name       varchar(25) NOT NULL,
    c_address    varchar(40) NOT NULL,
    c_nationkey  int,
    c_phone      char(15),
    c_acctbal    numeric(15,2),
    c_mktsegment char(10),
    c_comment    varchar(117)
);

CREATE TABLE orders (
    o_orderkey      int           PRIMARY KEY,
    o_custkey       int,
    o_orderstatus   char(1)       NOT NULL,
    o_totalprice    numeric(15,2) NOT NULL,
    o_orderdate     date,
    o_orderpriority char(15),
    o_clerk         char(15)      NOT NULL,
    o_shippriority  int           NOT NULL,
    o_comment       varchar(79)
);

CREATE TABLE lineitem (
    l_orderkey      int           NOT NULL,
    l_partkey       int           NOT NULL,
    l_suppkey       int           NOT NULL,
    l_linenumber    int           NOT NULL,
    l_quantity      numeric(15,2) NOT NULL,
    l_extendedprice numeric(15,2) NOT NULL,
    l_discount      numeric(15,2) NOT NULL,
    l_tax           numeric(15,2) NOT NULL,
    l_returnflag    char(1)       NOT NULL,
    l_linestatus    char(1)       NOT NULL,
    l_shipdate      date          NOT NULL,
    l_commitdate    date,
    l_receiptdate   date,
    l_shipinstruct  char(25),
    l_shipmode      char(10),
    l_comment       varchar(44),
    PRIMARY KEY (l_orderkey, l_linenumber)
);
