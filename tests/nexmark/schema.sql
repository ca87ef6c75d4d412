-- An auction house: persons, auctions, and bids, which have no key.

CREATE TABLE person (
    id            bigint PRIMARY KEY,
    name          text NOT NULL,
    email_address text,
    city          text,
    state         text,
    date_time     timestamp NOT NULL
);

CREATE TABLE auction (
    id          bigint PRIMARY KEY,
    item_name   text NOT NULL,
    initial_bid bigint NOT NULL,
    reserve     bigint,
    date_time   timestamp NOT NULL,
    expires     timestamp NOT NULL,
    seller      bigint,
    category    int
);
CREATE INDEX ON auction (seller);

CREATE TABLE bid (
    auction   bigint NOT NULL,
    bidder    bigint,
    price     bigint NOT NULL,
    channel   text,
    url       text,
    date_time timestamp NOT NULL
);
CREATE INDEX ON bid (auction);
CREATE INDEX ON bid (bidder);

-- What the thirteenth query calls its side input.
CREATE TABLE side_input (
    key   bigint PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO side_input SELECT i, 'value ' || i % 7 FROM generate_series(0, 39) AS i;
