SELECT id, item_name, expires, seller, category, bidder, price, bid_at
  FROM (SELECT a.id, a.item_name, a.expires, a.seller, a.category, b.bidder, b.price, b.date_time AS bid_at,
               row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) AS rownum
          FROM auction AS a
          JOIN bid AS b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires) AS ranked
 WHERE rownum <= 1
