SELECT auction, bidder, price, channel, url, date_time
  FROM (SELECT b.*, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, channel) AS nth
          FROM bid AS b) AS ranked
 WHERE nth <= 1
