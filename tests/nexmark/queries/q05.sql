WITH bids (auction, starts, num) AS (
    SELECT b.auction, w.starts, count(*)
      FROM bid AS b
     CROSS JOIN LATERAL generate_series(date_bin('2 s', b.date_time, timestamp '2020-01-01') - interval '8 s',
                                        date_bin('2 s', b.date_time, timestamp '2020-01-01'), interval '2 s') AS w (starts)
     GROUP BY b.auction, w.starts)
SELECT bids.auction, bids.num, bids.starts
  FROM bids
  JOIN (SELECT max(num) AS maxn, starts FROM bids GROUP BY starts) AS most
    ON bids.starts = most.starts AND bids.num >= most.maxn
