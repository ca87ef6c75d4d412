SELECT b.auction, b.price, b.bidder, b.date_time
  FROM bid AS b
  JOIN (SELECT max(price) AS maxprice, date_bin('10 s', date_time, timestamp '2020-01-01') AS starts
          FROM bid
         GROUP BY 2) AS most
    ON b.price = most.maxprice AND b.date_time >= most.starts AND b.date_time < most.starts + interval '10 s'
