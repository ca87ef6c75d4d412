SELECT auction, bidder, price, date_time, nth
  FROM (SELECT b.*, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS nth
          FROM bid AS b) AS ranked
 WHERE nth <= 10
